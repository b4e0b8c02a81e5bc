//! The command line.

mod bench;
mod cells;
mod checkpoint;
mod collect;
mod collection;
mod embedded;
mod export;
mod import;
mod manual;
mod measure;
mod measures;
mod pool;
mod progress;
mod reference;
mod report;
mod run;
mod setup;
mod slurm;
mod start;
mod status;
mod submission;
mod submit;
pub mod terminal;
mod watch;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

use self::terminal::{say, show, show_tables};
use crate::config::schema;

/// Trains GANs whose critic is normalised or penalised in different ways, and compares them.
#[derive(Parser)]
#[command(version, about, max_term_width = 80)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train and evaluate every cell of an experiment, then print the comparison
    Run(run::Args),
    /// Train four critics on the embedded data set and compare them, in minutes: `run demo --scale smoke --resume`
    Demo(start::DemoArgs),
    /// Write a commented experiment to start from
    Init(start::InitArgs),
    /// Download a data set or an extractor's weights into the Hugging Face cache, checking their SHA-256
    Fetch {
        /// cifar10, stl10 or celebahq; inception, dinov2 (that is dinov2-large; also dinov2-base and dinov2-small) or clip
        what: String,
    },
    /// Measure generated images against real ones in every way, from one pass over each: FID, FD∞, sFID, IS, KID, precision and recall,
    /// AuthPct, MiFID, MIND over Inception; the same over DINOv2; CMMD over CLIP
    Measure(Box<measures::Args>),
    /// Fréchet Inception Distance between two collections of images (folder, Parquet file, npz statistics, cifar10:train, …); over another
    /// extractor fd-dinov2, fd-clip
    Fid {
        /// The real images, or an npz of their statistics
        real: OsString,
        /// The generated images, or an npz of their statistics
        generated: OsString,
        /// Give a 95 % interval from N bootstrap replicates of the generated images (20 at least)
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = replicates)]
        bootstrap: usize,
        #[command(flatten)]
        options: collection::Options,
    },
    /// Inception Score of a collection of images
    Is {
        /// The collection
        a: OsString,
        #[command(flatten)]
        options: collection::Options,
    },
    /// Kernel Inception Distance between two collections of images; over another extractor kd-dinov2, kd-clip
    Kid {
        /// The real images
        real: OsString,
        /// The generated images
        generated: OsString,
        #[command(flatten)]
        subsets: measure::Subsets,
        #[command(flatten)]
        options: collection::Options,
    },
    /// Improved precision and recall, density and coverage
    Pr {
        /// The real images
        real: OsString,
        /// The generated images
        generated: OsString,
        /// Balls reach to the k-th neighbour
        #[arg(short, default_value_t = 3)]
        k: usize,
        #[command(flatten)]
        options: collection::Options,
    },
    /// Write the statistics of a collection as npz, as pytorch-fid does
    Stats {
        /// The collection
        a: OsString,
        /// The file
        #[arg(short, long)]
        output: PathBuf,
        #[command(flatten)]
        options: collection::Options,
    },
    /// Measure the generator of a checkpoint, by the protocol it was trained under or another one
    Eval(checkpoint::EvalArgs),
    /// Write a run's generator to a folder to give away, a repository of the Hugging Face Hub: safetensors, ONNX, rows, samples, README
    Export(export::Args),
    /// Take a checkpoint of the released GN or PGN code as a run of an experiment's cell, or take an exported run back
    Import(import::Args),
    /// Measure how steep a checkpoint's critic is: gradient norms and slopes, also under noise
    Probe(checkpoint::ProbeArgs),
    /// Draw images from the generator of a checkpoint: a grid (.png), or a folder of PNG files
    Sample(checkpoint::SampleArgs),
    /// Show generated images of a checkpoint beside the training images nearest to them
    Neighbours(checkpoint::NeighboursArgs),
    /// Write the report on a results folder: the paper's tables beside ours, claims, curves, pictures
    Report(report::ReportArgs),
    /// Time training updates of a network by operator and pass: launches, bytes, shares of the device's measured peak
    Bench(bench::Args),
    /// Check distances (FID, KID, FD-DINOv2, …) against thresholds and baselines: exit code 1 when one fails, 2 when they cannot be compared
    Gate(report::GateArgs),
    /// Run the cells of an experiment as the tasks of a Slurm array job, or several at a time on this machine
    Submit(submit::Args),
    /// Show the tasks of submissions beside what their runs have reached
    Status(status::Args),
    /// Bring the runs of several results folders into one
    Collect(collect::Args),
    /// Show the runs of a results folder as they stand
    Watch(watch::Args),
    /// Print the comparison of what is in results folders, and what `measure -o` left
    Table {
        /// Folders of results, or files of rows
        #[arg(default_value = "results")]
        results: Vec<PathBuf>,
    },
    /// Print the JSON schema of experiments, with which editors complete and check them
    Schema,
    /// Print a shell's completions of these commands
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages of these commands
    Man {
        /// Folder for them, such as ~/.local/share/man/man1
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Write the pages that are made of the program into a clone
    #[command(hide = true)]
    Reference {
        /// The clone
        #[arg(default_value = ".")]
        clone: PathBuf,
    },
}

/// Passes an argument on without the spaces around it, as after the commas of a quoted list.
#[derive(Clone)]
struct Trimmed<P>(P);

impl<P: TypedValueParser> TypedValueParser for Trimmed<P> {
    type Value = P::Value;
    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<P::Value, clap::Error> {
        self.0.parse_ref(command, arg, value.to_str().map_or(value, |text| OsStr::new(text.trim())))
    }
    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

/// Fewest bootstrap replicates: the standard error of so many is itself known to 1/√(2·19), a sixth.
const REPLICATES: usize = 20;

/// A number of bootstrap replicates.
fn replicates(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n == 0 || n >= REPLICATES => Ok(n),
        _ => Err(format!("expected 0 for no interval, or at least {REPLICATES} replicates")),
    }
}

/// A parser of one of the named choices.
fn choice<T: Clone + Send + Sync + 'static>(choices: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T> {
    let names = Trimmed(PossibleValuesParser::new(choices.iter().map(|(name, _)| *name)));
    names.try_map(|name| choices.iter().find(|(n, _)| *n == name).map(|(_, t)| t.clone()).ok_or("unknown choice"))
}

impl Cli {
    /// Runs the command: exit code 0 fine, 1 a run diverged or a gate failed.
    ///
    /// # Errors
    /// When the input or the environment is wrong (exit code 2).
    pub fn execute(self) -> Result<ExitCode> {
        match self.command {
            Command::Run(args) => return run::execute(&args),
            Command::Demo(args) => return Self::parse_from(args.words()).execute(),
            Command::Init(args) => start::init(&args)?,
            Command::Measure(args) => measures::execute(&args)?,
            Command::Fid { real, generated, bootstrap, options } => {
                measure::fid(&options, [&real, &generated], bootstrap)?
            }
            Command::Is { a, options } => measure::inception_score(&options, &a)?,
            Command::Kid { real, generated, subsets, options } => {
                measure::kernel_distance(&options, [&real, &generated], &subsets)?
            }
            Command::Pr { real, generated, k, options } => measure::precision_recall(&options, [&real, &generated], k)?,
            Command::Stats { a, output, options } => measure::statistics(&options, &a, &output)?,
            Command::Fetch { what } => {
                let fetched = match setup::published(&what) {
                    Some(weights) => vec![weights.fetch()?],
                    None => crate::data::fetch(&what)?,
                };
                for path in fetched {
                    say(path.display());
                }
            }
            Command::Eval(args) => checkpoint::evaluate(&args)?,
            Command::Export(args) => export::execute(&args)?,
            Command::Import(args) => import::execute(&args)?,
            Command::Probe(args) => checkpoint::probe(&args)?,
            Command::Sample(args) => checkpoint::sample(&args)?,
            Command::Neighbours(args) => checkpoint::neighbours(&args)?,
            Command::Report(args) => report::report(&args)?,
            Command::Bench(args) => bench::execute(&args)?,
            Command::Gate(args) => return report::gate(&args),
            Command::Submit(args) => return submit::execute(&args),
            Command::Status(args) => status::execute(&args)?,
            Command::Collect(args) => collect::execute(&args)?,
            Command::Watch(args) => watch::execute(&args)?,
            Command::Table { results } => {
                show_tables(&run::comparison(&results.iter().map(PathBuf::as_path).collect::<Vec<_>>())?)
            }
            Command::Schema => show(schema::text()),
            Command::Completions { shell } => show(manual::completions(shell)?),
            Command::Man { output } => manual::man(&output)?,
            Command::Reference { clone } => reference::write(&clone)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
