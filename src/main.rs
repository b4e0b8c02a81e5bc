//! The command line of pgn-bench.

use std::process::ExitCode;

use clap::Parser;
use pgn_bench::cli::Cli;

fn main() -> ExitCode {
    pgn_bench::machine::memory::keep_pages();
    match Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pgn-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
