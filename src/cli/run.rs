//! `pgn-bench run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use candle_core::Device;

use super::bench::{self, Weights, bench};
use super::progress::CellBar;
use crate::config::{Cell, Experiment, only};
use crate::critic::Critic;
use crate::files::{create_folder, write_bytes};
use crate::generators::Generator;
use crate::report::table::{aligned, comparison as compare};
use crate::rng::Stream;
use crate::train::run::{Existing, Outcome, check_folder, folder, run};
use crate::{data, methods, results};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The experiment's YAML file
    experiment: PathBuf,
    /// Which of the file's scales to run
    #[arg(long, default_value = "full")]
    scale: String,
    /// Only the cells with these values, such as method=pgn,seed=0
    #[arg(long, value_name = "KEY=VALUE,…")]
    only: Vec<String>,
    /// Replace a setting, such as train.steps=1000 (given last, it wins)
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    weights: Weights,
    /// Where to compute: cpu
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Folder of the results
    #[arg(long, short, default_value = "results")]
    output: PathBuf,
    /// Go on with runs that are there, finished ones included
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,
    /// Start again where runs are there
    #[arg(long)]
    overwrite: bool,
    /// Print the cells with their sizes and stop
    #[arg(long)]
    dry_run: bool,
}

/// The comparison of everything below a results folder.
pub(super) fn comparison(folder: &Path) -> Result<String> {
    let mut rows = Vec::new();
    for path in results::find(folder)? {
        rows.extend(results::read(&path)?);
    }
    if rows.is_empty() {
        bail!("no results in {}: `pgn-bench run` makes some", folder.display());
    }
    Ok(compare(&rows))
}

pub(super) fn execute(args: &Args) -> Result<ExitCode> {
    let device = bench::device(&args.device)?;
    let experiment = Experiment::read(&args.experiment, &args.set)?;
    let cells = only(experiment.resolve(&args.scale)?, &args.only)?;
    if args.dry_run {
        print!("{}", plan(&cells)?);
        return Ok(ExitCode::SUCCESS);
    }
    let existing = match (args.resume, args.overwrite) {
        (true, _) => Existing::Resume,
        (_, true) => Existing::Overwrite,
        _ => Existing::Refuse,
    };
    for cell in &cells {
        check_folder(&args.output, cell, existing)?;
    }
    create_folder(&args.output)?;
    let Some(first) = cells.first() else { bail!("the experiment has no cell") };
    let bench = bench(first, &args.weights, device)?;

    let mut diverged = 0;
    for (n, cell) in cells.iter().enumerate() {
        let mut watch = CellBar::new(cell, n + 1, cells.len());
        match run(&args.output, cell, &bench, existing, &mut watch)? {
            Outcome::Finished => watch.finish("finished"),
            Outcome::Diverged(reason) => {
                diverged += 1;
                watch.finish(&format!("DIVERGED: {reason}; the last good checkpoint is kept"));
            }
        }
    }
    let group = args.output.join(first.group());
    let table = comparison(&group)?;
    write_bytes(&group.join("table.md"), table.as_bytes())?;
    print!("{table}");
    println!("Rows, logs and sample grids are in {}; the table is also in table.md there.", group.display());
    for cell in &cells {
        println!("  {:<20} {}", cell.name(), last_grid(&folder(&args.output, cell))?.display());
    }
    Ok(if diverged > 0 { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn last_grid(run: &Path) -> Result<PathBuf> {
    let mut grids: Vec<PathBuf> =
        std::fs::read_dir(run.join("samples"))?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    grids.sort();
    Ok(grids.pop().unwrap_or_else(|| run.join("samples")))
}

/// The cells with their sizes.
fn plan(cells: &[Cell]) -> Result<String> {
    let head =
        ["cell", "dataset", "loss", "steps", "n_dis", "G parameters", "D parameters", "GFLOP/step", "evaluations"];
    let mut rows = Vec::new();
    for cell in cells {
        let Some(choice) = methods::find(&cell.method) else { bail!("unknown method {}", cell.method) };
        let (t, classes) = (&cell.train, data::classes(&cell.dataset, cell.split)?);
        let mut stream = Stream::new(cell.seed, "plan", 0);
        let dtype = candle_core::DType::F32;
        let critic =
            Critic::new(&cell.arch, t.width, classes, choice.method.spectral(), &mut stream, dtype, &Device::Cpu)?;
        let generator = Generator::new(&cell.arch, t.width, classes, &mut stream, dtype, &Device::Cpu)?;
        rows.push(vec![
            cell.name(),
            cell.dataset.name(),
            choice.method.loss().unwrap_or(t.loss).id().to_owned(),
            t.steps.to_string(),
            t.critic_steps.to_string(),
            generator.params.len().to_string(),
            critic.params.len().to_string(),
            format!("{:.1}", crate::train::cost::step_flops(cell, &choice, &critic, &generator)? as f64 / 1e9),
            (t.steps / cell.eval.every).to_string(),
        ]);
    }
    Ok(aligned(&head.map(str::to_owned), rows))
}
