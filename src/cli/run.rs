//! `pgn-bench run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use candle_core::Device;

use super::cells::Cells;
use super::progress::{CellBar, bar};
use super::report::{last_grid, rows};
use super::setup::{Place, Transformers, Weights, bench, check};
use super::slurm::quoted;
use super::terminal::{remark, say, show_tables};
use crate::config::{Cell, FULL, MODIFIED};
use crate::files::{create_folder, write_bytes};
use crate::interrupt;
use crate::report::images;
use crate::report::markdown::aligned;
use crate::report::table::comparison as compare;
use crate::results::Row;
use crate::train::cost::{Cost, measure};
use crate::train::existing::{CONFIG, Existing, folder, refuse_partial, settle};
use crate::train::rows::loss;
use crate::train::run::{Outcome, classes, run};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cells: Cells,
    #[command(flatten)]
    weights: Weights,
    #[command(flatten)]
    transformers: Transformers,
    /// Only the cell of this number, counted from 0 in the order of --dry-run
    #[arg(long, value_name = "N")]
    cell: Option<usize>,
    #[command(flatten)]
    place: Place,
    /// Folder of the results
    #[arg(long, short, default_value = "results")]
    output: PathBuf,
    /// Go on with runs that are there, finished ones included
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// With --resume: settings that may differ from those a run was started with, such as train.steps
    #[arg(long, value_name = "KEY,…", value_delimiter = ',', requires = "resume")]
    allow: Vec<String>,
    /// Start again where runs are there
    #[arg(long)]
    overwrite: bool,
    /// Print the cells with their sizes and stop
    #[arg(long)]
    dry_run: bool,
}

/// The comparison of everything below results folders, or in files of rows: runs under their protocols, then collections of images.
pub(super) fn comparison(results: &[&Path]) -> Result<String> {
    let mut all = Vec::new();
    for path in results {
        all.extend(rows(path)?);
    }
    let (of_images, of_runs): (Vec<Row>, Vec<Row>) = all.into_iter().partition(Row::is_of_images);
    Ok(format!("{}{}", compare(&of_runs), images::text(&of_images.iter().collect::<Vec<_>>())))
}

pub(super) fn execute(args: &Args) -> Result<ExitCode> {
    let compute = args.place.open()?;
    let mut cells = args.cells.resolve()?;
    if let Some(n) = args.cell {
        let Some(cell) = cells.get(n) else { bail!("--cell {n}: there are {} cells, from 0", cells.len()) };
        cells = vec![cell.clone()];
    }
    let Some(first) = cells.first() else { bail!("the experiment has no cell") };
    check(first, &args.weights, &args.transformers, args.dry_run)?;
    remark_unmodified(&args.output, first);
    if args.dry_run {
        if args.resume {
            remark(found(&args.output, &cells));
        }
        show_tables(&plan(&cells, &compute.device)?);
        return Ok(ExitCode::SUCCESS);
    }
    let existing = match (args.resume, args.overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Overwrite,
        _ => Existing::Refuse,
    };
    for cell in &mut cells {
        *cell = settle(&args.output, cell, existing, &args.allow)?;
        if args.resume {
            refuse_partial(&args.output, cell)?;
        }
    }
    create_folder(&args.output)?;
    let Some(first) = cells.first() else { bail!("the experiment has no cell") };
    let bench = bench(first, (&args.weights, &args.transformers), &compute)?;

    interrupt::install()?;
    let mut diverged = 0;
    for (n, cell) in cells.iter().enumerate() {
        let mut watch = CellBar::new(cell, n + 1, cells.len());
        match run(&args.output, cell, &bench, existing, &mut watch)? {
            Outcome::Finished => watch.finish("finished"),
            Outcome::Interrupted => {
                watch.finish(&format!("stopped; it goes on with: {}", resume_command()));
                return Ok(ExitCode::from(128 + interrupt::requested().unwrap_or(0)));
            }
            Outcome::Diverged(reason) => {
                diverged += 1;
                watch.finish(&format!("DIVERGED: {reason}; the last good checkpoint is kept"));
            }
        }
    }
    let group = args.output.join(first.group());
    let table = comparison(&[&group])?;
    write_bytes(&group.join("table.md"), table.as_bytes())?;
    show_tables(&table);
    say(format_args!("Rows, logs and sample grids are in {}; the table is also in table.md there.", group.display()));
    for cell in &cells {
        let run = folder(&args.output, cell);
        say(format_args!("  {:<20} {}", cell.name(), last_grid(&run).unwrap_or(run).display()));
    }
    Ok(if diverged > 0 { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// The command that goes on with what this one began.
fn resume_command() -> String {
    let words = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    let mut words: Vec<String> = words.filter(|a| a != "--overwrite" && a != "--resume").collect();
    // The demo goes on without being asked to.
    if words.get(1).is_none_or(|command| command != "demo") {
        words.push("--resume".to_owned());
    }
    quoted(&words)
}

/// What --resume has to go on with.
fn found(output: &Path, cells: &[Cell]) -> String {
    let there = cells.iter().filter(|cell| folder(output, cell).join(CONFIG).is_file()).count();
    format!("--resume goes on with {there} of {} runs; the others would be new", cells.len())
}

/// Says that runs of the file's own settings are not those that --set makes.
fn remark_unmodified(output: &Path, cell: &Cell) {
    let [group, unmodified] = [cell.group(), format!("{}-{FULL}", cell.experiment)].map(|name| output.join(name));
    if cell.scale == MODIFIED && unmodified.is_dir() {
        let [group, unmodified] = [group.display(), unmodified.display()];
        remark(format_args!("--set makes runs of their own, in {group}; those in {unmodified} are left as they are"));
    }
}

/// The cells with what they cost.
fn plan(cells: &[Cell], device: &Device) -> Result<String> {
    let head = [
        "cell",
        "data set",
        "loss",
        "steps",
        "n_dis",
        "G parameters",
        "D parameters",
        "GFLOP/step",
        "memory GiB",
        "s/step",
        "training h",
        "evaluations",
    ];
    let (mut rows, mut total) = (Vec::new(), 0.0);
    let mut known: Vec<(&Cell, Cost)> = Vec::new();
    let measuring = bar("measuring a step of each", cells.len() as u64, "cells");
    for cell in cells {
        let t = &cell.train;
        // Seeds cost the same.
        let cost = match known.iter().find(|(k, _)| k.arch == cell.arch && k.method == cell.method) {
            Some((_, cost)) => *cost,
            None => measure(cell, classes(cell)?, device)?,
        };
        known.push((cell, cost));
        let hours = t.steps as f64 * cost.step_s / 3600.0;
        total += hours;
        rows.push(vec![
            cell.name(),
            cell.dataset.name(),
            loss(cell)?.id().to_owned(),
            t.steps.to_string(),
            t.critic_steps.to_string(),
            cost.parameters[0].to_string(),
            cost.parameters[1].to_string(),
            format!("{:.1}", cost.step_flops as f64 / 1e9),
            format!("{:.2}", cost.memory_bytes as f64 / f64::from(1 << 30)),
            format!("{:.3}", cost.step_s),
            format!("{hours:.2}"),
            (t.steps.div_ceil(cell.eval.every) + 1).to_string(),
        ]);
        measuring.inc(1);
    }
    measuring.finish_and_clear();
    let table = aligned(&head.map(str::to_owned), rows);
    Ok(format!(
        "{table}{total:.1} hours of training, extrapolated from a short step of each cell; evaluations come on top.\n"
    ))
}
