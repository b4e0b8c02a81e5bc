//! `pgn-bench report` and `gate`: pages, tables and verdicts from result rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::progress::followed;
use super::terminal::{say, show};
use crate::config::Cell;
use crate::error::AtPath;
use crate::files::{check_output, create_folder, named, write_bytes};
use crate::report::content::{Picture, Sources, build};
use crate::report::gate::{self, Outcome};
use crate::report::markdown::aligned;
use crate::report::{baselines, csv, html, latex, markdown, plot};
use crate::results::{self, Row};
use crate::train::existing::{CONFIG, SAMPLES};
use crate::train::rows::loss;
use crate::train::run::NEIGHBOURS;

#[derive(clap::Args)]
pub(super) struct ReportArgs {
    /// Folder of the results, or a file of rows
    #[arg(default_value = "results")]
    results: PathBuf,
    /// Folder for the report; tables/ and figures/ of an earlier one there are emptied
    #[arg(short, long, default_value = "reports/latest")]
    output: PathBuf,
    /// A text file with what there is to say of the runs, put before the tables; note.txt of the report's folder if it is there
    #[arg(long, value_name = "FILE")]
    note: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(super) struct GateArgs {
    /// The file of gates
    #[arg(default_value = "baselines/gates.yaml")]
    file: PathBuf,
    /// Folder of the results, or a file of rows
    #[arg(long, short, default_value = "results")]
    results: PathBuf,
    /// Only the gates of this name
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Write the results into the file as the new baselines
    #[arg(long)]
    update: bool,
    /// Also write JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Also write JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// All rows below a folder, or in a file of whatever name.
pub(super) fn rows(folder: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let files = if folder.is_file() { vec![folder.to_path_buf()] } else { results::find(folder)? };
    for path in files {
        rows.extend(results::read(&path)?);
    }
    if rows.is_empty() {
        bail!(
            "no results in {}: `pgn-bench run` makes some; a file of rows of another name than rows.parquet is named itself",
            folder.display()
        );
    }
    Ok(rows)
}

/// The folders of runs below a folder, with their cells.
pub(super) fn run_folders(folder: &Path) -> Result<Vec<(PathBuf, Cell)>> {
    let mut found = Vec::new();
    for config in named(folder, &[CONFIG])? {
        let text = std::fs::read_to_string(&config).at("read", &config)?;
        // A configuration of another version has another layout: its rows still count.
        if let (Ok(cell), Some(run)) = (serde_json::from_str::<Cell>(&text), config.parent())
            && cell.check(&config).is_ok()
        {
            found.push((run.to_path_buf(), cell));
        }
    }
    Ok(found)
}

/// The last sample grid of a run.
pub(super) fn last_grid(run: &Path) -> Option<PathBuf> {
    let grids = std::fs::read_dir(run.join(SAMPLES)).ok()?;
    grids.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "png")).max()
}

fn pictures(runs: &[(PathBuf, Cell)]) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for (run, cell) in runs {
        let neighbours = Some(run.join(NEIGHBOURS)).filter(|p| p.is_file());
        for (kind, path) in [("samples", last_grid(run)), ("neighbours", neighbours)] {
            let Some(path) = path else { continue };
            pictures.push(Picture {
                experiment: cell.experiment.clone(),
                scale: cell.scale.clone(),
                arch: cell.arch.clone(),
                method: cell.method.clone(),
                loss: loss(cell)?.id().to_owned(),
                width: cell.train.width,
                seed: cell.seed,
                kind: kind.to_owned(),
                png: std::fs::read(&path).at("read", &path)?,
            });
        }
    }
    Ok(pictures)
}

pub(super) fn report(args: &ReportArgs) -> Result<()> {
    let rows = rows(&args.results)?;
    create_folder(&args.output)?;
    check_output(&args.output.join("report.md"), None)?;
    let baselines = baselines::embedded()?;
    let folders = if args.results.is_dir() { run_folders(&args.results)? } else { Vec::new() };
    let pictures = pictures(&folders)?;
    let cells: Vec<Cell> = folders.into_iter().map(|(_, cell)| cell).collect();
    let out = &args.output;
    let earlier = out.join("report.md");
    let is_again = earlier.is_file();
    if is_again && !std::fs::read_to_string(&earlier).at("read", &earlier)?.starts_with("# Results") {
        bail!("{} is no report of this program: name another folder with -o", earlier.display());
    }
    let note = args.note.clone().or_else(|| Some(out.join("note.txt")).filter(|n| n.is_file()));
    let note = note.map(|path| std::fs::read_to_string(&path).at("read", &path)).transpose()?.unwrap_or_default();
    let report =
        build(&Sources { rows: &rows, baselines: &baselines, pictures: &pictures, cells: &cells, note: &note });
    // What an earlier report left would be taken for this one's.
    for part in ["tables", "figures"] {
        let folder = out.join(part);
        if is_again && folder.is_dir() {
            std::fs::remove_dir_all(&folder).at("empty", &folder)?;
        }
        create_folder(&folder)?;
    }
    let figures = followed("drawing", "figures", |progress| {
        let mut figures: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (n, (name, of)) in report.plots.iter().enumerate() {
            figures.insert(format!("{name}.png"), plot::png(of)?);
            if let Some(svg) = plot::svg(of)? {
                figures.insert(format!("{name}.svg"), svg.into_bytes());
            }
            progress(n + 1, report.plots.len());
        }
        Ok(figures)
    })?;
    for (file, bytes) in &figures {
        write_bytes(&out.join("figures").join(file), bytes)?;
    }
    let document = &report.document;
    for table in document.tables() {
        write_bytes(&out.join("tables").join(format!("{}.csv", table.id)), csv::render(table).as_bytes())?;
        write_bytes(&out.join("tables").join(format!("{}.tex", table.id)), latex::table(table).as_bytes())?;
    }
    write_bytes(&out.join("report.md"), markdown::render(document).as_bytes())?;
    write_bytes(&out.join("report.tex"), latex::render(document).as_bytes())?;
    write_bytes(&out.join("report.html"), html::render(document, &figures).as_bytes())?;
    say(format_args!(
        "{} rows: {} (also .md, .tex; tables and figures beside it)",
        rows.len(),
        out.join("report.html").display()
    ));
    Ok(())
}

pub(super) fn gate(args: &GateArgs) -> Result<ExitCode> {
    [&args.junit, &args.json].into_iter().flatten().try_for_each(|path| check_output(path, None))?;
    let mut gates = gate::read(&args.file)?;
    let wanted = |g: &gate::Gate| args.only.is_empty() || args.only.contains(&g.name);
    if let Some(name) = args.only.iter().find(|n| gates.gates.iter().all(|g| g.name != **n)) {
        let names: Vec<&str> = gates.gates.iter().map(|g| g.name.as_str()).collect();
        bail!("--only {name}: no such gate in {}; there are: {}", args.file.display(), names.join(", "));
    }
    let rows = rows(&args.results)?;
    if args.update {
        for g in gates.gates.iter_mut().filter(|g| wanted(g)) {
            *g = gate::updated(g, &rows)?;
            say(format_args!("{}: baseline from {} runs", g.name, g.baseline.as_ref().map_or(0, |b| b.values.len())));
        }
        gate::write(&args.file, &gates)?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = args.file.display().to_string();
    let findings: Vec<_> = gates.gates.iter().filter(|g| wanted(g)).map(|g| gate::check(g, &rows, &file)).collect();
    let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), gate::shown);
    let lines = findings.iter().map(|f| {
        let outcome = format!("{:?}", f.outcome).to_lowercase();
        vec![f.name.clone(), outcome, shown(f.value), shown(f.limit), f.runs.to_string(), f.message.clone()]
    });
    let head = ["gate", "outcome", "distance", "limit", "runs", "why"].map(str::to_owned);
    show(aligned(&head, lines.collect()));
    if let Some(path) = &args.junit {
        write_bytes(path, gate::junit(&findings).as_bytes())?;
    }
    if let Some(path) = &args.json {
        write_bytes(path, &serde_json::to_vec_pretty(&findings)?)?;
    }
    if std::env::var_os("GITHUB_ACTIONS").is_some() {
        show(gate::annotations(&findings, &file));
    }
    Ok(match gate::overall(&findings) {
        Outcome::Passed => ExitCode::SUCCESS,
        Outcome::Failed => ExitCode::from(1),
        Outcome::Error => ExitCode::from(2),
    })
}
