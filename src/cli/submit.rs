//! `pgn-bench submit`: an experiment's cells as the tasks of one Slurm array job, or of a pool of processes on this machine. A task
//! is `run … --cell N --resume`, so whatever ends it, another one goes on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

use super::cells::Cells;
use super::setup::{Place, Transformers, Weights, bench, check};
use super::submission::{Engine, FOLDER, Submission, Task};
use super::terminal::{say, show};
use super::{pool, slurm};
use crate::config::ExtractorKind;
use crate::data;
use crate::error::{AtPath, Error};
use crate::files::write_bytes;
use crate::machine::compute::Compute;
use crate::results;
use crate::train::existing::{Existing, folder, refuse_partial, settle};
use crate::train::lock::Lock;

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("engine").required(true).args(["slurm", "jobs"])))]
pub(super) struct Args {
    #[command(flatten)]
    cells: Cells,
    #[command(flatten)]
    weights: Weights,
    #[command(flatten)]
    transformers: Transformers,
    #[command(flatten)]
    place: Place,
    /// Folder of the results, which all nodes see
    #[arg(long, short, default_value = "results")]
    output: PathBuf,
    /// Submit one array job to Slurm
    #[arg(long)]
    slurm: bool,
    /// Run N cells at a time on this machine, its cores shared out among them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// With --jobs: devices for the cells, such as cuda:0,cuda:1. A cell that starts gets the device with the fewest cells, the
    /// first of several; with more devices than N the last stay free
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',', conflicts_with_all = ["device", "slurm"], value_parser = device)]
    devices: Vec<String>,
    #[command(flatten)]
    options: slurm::Options,
    /// Print what would be submitted, and stop
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn execute(args: &Args) -> Result<ExitCode> {
    let cells = args.cells.resolve()?;
    let Some(first) = cells.first() else { bail!("the experiment has no cell") };
    for cell in &cells {
        settle(&args.output, cell, Existing::Resume, &[])?;
        refuse_partial(&args.output, cell)?;
    }
    // What a task would stumble over is found before any is submitted.
    [first.split, first.eval.reference].iter().try_for_each(|&s| data::check(&first.dataset, s, first.image_size))?;
    check(first, &args.weights, &args.transformers, false)?;
    if args.slurm && first.eval.extractor == ExtractorKind::Inception {
        args.weights.inception(first.eval.resize, &Compute::cpu())?;
    }
    let mut open = Vec::new();
    for (n, cell) in cells.iter().enumerate() {
        if !ended(&folder(&args.output, cell))? {
            open.push(n);
        }
    }
    if open.is_empty() {
        say(format_args!("All {} cells have ended: `pgn-bench table {}`", cells.len(), args.output.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let output = std::path::absolute(&args.output).at("find", &args.output)?;
    let submitted = output.join(first.group()).join(FOLDER);
    let experiment = submitted.join("experiment.yaml");
    let task =
        Task { command: command(args, &experiment, &output)?, devices: devices(args)?, folder: submitted.clone() };
    let named: Vec<(usize, String)> = open.iter().map(|&n| (n, cells[n].name())).collect();
    let script = args.slurm.then(|| slurm::script(&task, &args.options, &first.group(), &named)).transpose()?;
    if args.dry_run {
        match script {
            Some(script) => show(script),
            None => named.iter().zip(task.devices.iter().cycle()).for_each(|((n, name), device)| {
                say(format_args!("{} --cell {n} # {name}", slurm::quoted(&task.on(device))));
            }),
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.slurm {
        task.devices.iter().try_for_each(|device| args.place.open_on(device).map(drop))?;
    }
    let _lock = Lock::acquire(&submitted)?;
    refuse_second(&output.join(first.group()), args.slurm)?;
    write_bytes(&experiment, args.cells.text()?.as_bytes())?;
    if let Some(script) = script {
        let path = submitted.join("job.sh");
        write_bytes(&path, script.as_bytes())?;
        let job = slurm::submit(&path)?;
        Submission { engine: Engine::Slurm(job.clone()), cells, devices: BTreeMap::new() }.write(&submitted)?;
        say(format_args!("job {job}: {} tasks; `pgn-bench status {}` shows them", open.len(), args.output.display()));
        return Ok(ExitCode::SUCCESS);
    }
    // Made once, before the tasks would all wait for it.
    bench(first, (&args.weights, &args.transformers), &args.place.open_on(&task.devices[0])?)?;
    let submission = Submission { engine: Engine::Pool(std::process::id()), cells, devices: BTreeMap::new() };
    submission.write(&submitted)?;
    pool::run(&task, submission, &open, args.jobs.unwrap_or(1) as usize)
}

/// The name of a device, whether it is there or not.
fn device(name: &str) -> Result<String, &'static str> {
    let is_gpu = || name.strip_prefix("cuda:").is_some_and(|n| n.parse::<usize>().is_ok());
    if matches!(name, "cpu" | "cuda") || is_gpu() { Ok(name.to_owned()) } else { Err("expected cpu, cuda or cuda:N") }
}

/// Where the tasks compute.
fn devices(args: &Args) -> Result<Vec<String>> {
    if args.devices.is_empty() {
        return Ok(vec![args.place.device.clone()]);
    }
    let on_cpu = |device: &String| device == "cpu";
    if args.place.precision.is_none() && args.devices.iter().any(on_cpu) && !args.devices.iter().all(on_cpu) {
        bail!(
            "--devices: a GPU computes in tf32, which the cpu cannot, and the cells would not be compared: add --precision f32"
        );
    }
    Ok(args.devices.clone())
}

fn ended(run: &Path) -> Result<bool> {
    let rows = run.join(results::FILE);
    Ok(rows.is_file() && results::ended(&results::read(&rows)?))
}

/// An array job whose tasks are still queued would work on the same runs.
fn refuse_second(group: &Path, slurm: bool) -> Result<()> {
    for (path, submission) in Submission::find(group)? {
        let Engine::Slurm(job) = &submission.engine else { continue };
        let queue = match slurm::queue(job) {
            // Results may have been brought here from a cluster.
            Err(_) if !slurm => continue,
            queue => queue?,
        };
        if let queued @ 1.. = queue.values().filter(|q| q.is_open()).count() {
            bail!(
                "{}: job {job} still has {queued} tasks in the queue; wait for it, or `scancel {job}`",
                path.display()
            );
        }
    }
    Ok(())
}

fn command(args: &Args, experiment: &Path, output: &Path) -> Result<Vec<String>> {
    let program = std::env::current_exe()?;
    let mut command = vec![text(&program)?, "run".to_owned(), text(experiment)?];
    command.extend(args.cells.narrowing());
    command.extend(args.place.words());
    for (option, file) in args.weights.files().chain(args.transformers.files()) {
        command.extend([option.to_owned(), text(&std::path::absolute(file).at("find", file)?)?]);
    }
    command.extend(["--resume".to_owned(), "--output".to_owned(), text(output)?]);
    Ok(command)
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|t| !t.contains('\n'));
    Ok(text.ok_or_else(|| Error::content(path, "a path that is no plain text cannot be given to a task"))?.to_owned())
}
