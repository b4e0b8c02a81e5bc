//! `pgn-bench export`: a run's generator as a folder to give away.

use std::path::PathBuf;

use anyhow::{Result, bail};
use candle_core::Device;

use super::checkpoint::{open, restore};
use super::choice;
use super::slurm::quoted;
use super::terminal::{remark, say};
use crate::config::{self, MODES};
use crate::export::{self, Form, GRAPH};
use crate::files::check_folder;
use crate::generators::Mode;
use crate::train::checkpoint::Part;

#[derive(clap::Args)]
pub(super) struct Args {
    /// A run's folder
    run: PathBuf,
    /// A new or empty folder
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// The generator that the ONNX file is of: trained, or its moving average; the run's own if not given
    #[arg(long, value_parser = choice(&config::WEIGHTS))]
    generator: Option<config::Weights>,
    /// Statistics that batch normalisation uses in the ONNX file; the run's own if not given
    #[arg(long, value_parser = choice(&MODES))]
    batch_norm: Option<Mode>,
}

pub(super) fn execute(args: &Args) -> Result<()> {
    check_folder(&args.output)?;
    if !args.run.is_dir() {
        bail!("{}: the folder of a run is exported, with all that lies in it", args.run.display());
    }
    let (state, progress) = restore(open(&args.run)?, &Device::Cpu)?;
    let weights = args.generator.unwrap_or(progress.generators()[0]);
    progress.require(&args.run, &[Part::of(weights)])?;
    let mode = args.batch_norm.unwrap_or(progress.cell.eval.batch_norm);
    let form = Form::new((&state, &progress), weights, mode);
    export::write(&args.run, &args.output, (&state, &progress), &form)?;
    let (name, folder) = (progress.cell.name(), args.output.display());
    say(format_args!("step {} of {name} in {folder}; {GRAPH} is the {} generator", progress.step, weights.id()));
    let quoted = quoted(&[args.output.display().to_string()]);
    say(format_args!("`pgn-bench import {quoted}` takes it back, `hf upload USER/NAME {quoted}` gives it to the Hub"));
    if let Some(reason) = &progress.diverged {
        remark(format_args!("the run diverged ({reason}): this is its last good checkpoint"));
    }
    Ok(())
}
