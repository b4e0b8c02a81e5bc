//! `pgn-bench import`: a checkpoint of the released code as a run of an experiment's cell.

use std::path::PathBuf;

use anyhow::{Result, bail};
use candle_core::Device;

use super::cells::Cells;
use super::terminal::say;
use crate::files::create_folder;
use crate::train::checkpoint::{self, Part};
use crate::train::existing::{Existing, empty_folder, folder, settle};
use crate::train::lock::Lock;
use crate::train::{import, run};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The checkpoint (.pt, zip or legacy)
    checkpoint: PathBuf,
    #[command(flatten)]
    cells: Cells,
    /// Folder of the results
    #[arg(long, short, default_value = "results")]
    output: PathBuf,
    /// Start again where a run is there
    #[arg(long)]
    overwrite: bool,
}

pub(super) fn execute(args: &Args) -> Result<()> {
    let cells = args.cells.resolve()?;
    let [cell] = cells.as_slice() else {
        bail!(
            "--only leaves {} cells: name the one that was trained, such as arch=cnn32,method=pgn,seed=0",
            cells.len()
        );
    };
    create_folder(&args.output)?;
    settle(&args.output, cell, if args.overwrite { Existing::Overwrite } else { Existing::Refuse }, &[])?;
    let classes = run::classes(cell)?;
    let (state, progress) = import::read(&args.checkpoint, cell, classes, &Device::Cpu)?;
    let folder = folder(&args.output, cell);
    let _lock = Lock::acquire(&folder)?;
    empty_folder(&folder, cell)?;
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
