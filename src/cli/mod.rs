//! The command line.

mod progress;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Trains GANs whose critic is normalised or penalised in different ways, and compares them.
#[derive(Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train and evaluate every cell of an experiment, then print the comparison
    Run(run::Args),
    /// Download a data set (cifar10) into the Hugging Face cache, checking its SHA-256
    Fetch {
        /// The data set
        dataset: String,
    },
    /// Print the comparison of what is in a results folder
    Table {
        /// The folder
        #[arg(default_value = "results")]
        results: PathBuf,
    },
}

impl Cli {
    /// Runs the command: exit code 0 fine, 1 a run diverged.
    ///
    /// # Errors
    /// When the input or the environment is wrong (exit code 2).
    pub fn execute(self) -> Result<ExitCode> {
        match self.command {
            Command::Run(args) => run::execute(&args),
            Command::Fetch { dataset } => {
                for path in crate::data::fetch(&dataset)? {
                    println!("{}", path.display());
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Table { results } => {
                print!("{}", run::comparison(&results)?);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
