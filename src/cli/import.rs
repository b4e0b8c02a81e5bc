//! `pgn-bench import`: a checkpoint of the released code as a run of an experiment's cell, or an exported run taken back.

use std::path::PathBuf;

use anyhow::{Result, bail};
use candle_core::Device;

use super::cells::Narrowing;
use super::terminal::say;
use crate::export;
use crate::files::create_folder;
use crate::results;
use crate::train::checkpoint::{self, Part, Progress};
use crate::train::existing::{Existing, empty_folder, folder, settle};
use crate::train::lock::Lock;
use crate::train::step::State;
use crate::train::{import, run};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The checkpoint (.pt, zip or legacy), or the folder that `export` wrote
    checkpoint: PathBuf,
    /// The experiment's YAML file or name, of a checkpoint; an exported folder has a configuration of its own
    experiment: Option<PathBuf>,
    #[command(flatten)]
    narrowing: Narrowing,
    /// Folder of the results
    #[arg(long, short, default_value = "results")]
    output: PathBuf,
    /// Start again where a run is there
    #[arg(long)]
    overwrite: bool,
}

/// What a checkpoint of the released code holds, as a run of the experiment's cell that is left.
fn released(args: &Args) -> Result<(State, Progress)> {
    if !args.checkpoint.exists() {
        bail!("{}: there is neither a checkpoint nor a folder of this name", args.checkpoint.display());
    }
    let Some(experiment) = &args.experiment else {
        bail!("{}: name the experiment that says what was trained", args.checkpoint.display());
    };
    let cells = args.narrowing.resolve(experiment)?;
    let [cell] = cells.as_slice() else {
        bail!(
            "{} cells are left: name the one that was trained with --only, such as arch=cnn32,method=pgn,seed=0",
            cells.len()
        );
    };
    Ok(import::read(&args.checkpoint, cell, run::classes(cell)?, &Device::Cpu)?)
}

/// The run of an exported folder.
fn exported(args: &Args) -> Result<(State, Progress)> {
    if args.experiment.is_some() || args.narrowing.names_some() {
        bail!(
            "{}: an exported folder says what was trained: leave the experiment, --only and --set out",
            args.checkpoint.display()
        );
    }
    Ok(export::read(&args.checkpoint, &Device::Cpu)?)
}

pub(super) fn execute(args: &Args) -> Result<()> {
    let (state, progress) = if args.checkpoint.is_dir() { exported(args)? } else { released(args)? };
    let cell = &progress.cell;
    create_folder(&args.output)?;
    settle(&args.output, cell, if args.overwrite { Existing::Overwrite } else { Existing::Refuse }, &[])?;
    let folder = folder(&args.output, cell);
    let _lock = Lock::acquire(&folder)?;
    empty_folder(&folder, cell)?;
    for name in results::FILES {
        let rows = args.checkpoint.join(name);
        if rows.is_file() {
            results::write(&folder.join(name), &results::read(&rows)?)?;
        }
    }
    checkpoint::save(&folder.join(checkpoint::FILE), &state, &progress)?;
    say(format_args!("step {} of {} in {}", progress.step, cell.name(), folder.display()));
    say(format_args!("`pgn-bench eval {0}`, `sample {0} -o grid.png` measure and draw it", folder.display()));
    if progress.lacking.is_empty() {
        say("`run … --resume` trains it on");
    } else {
        let parts = Part::list(&progress.lacking);
        say(format_args!("{} has no {parts}: training cannot go on from it", args.checkpoint.display()));
    }
    Ok(())
}
