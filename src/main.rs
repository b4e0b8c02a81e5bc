//! The command line of pgn-bench.

use std::process::ExitCode;

use clap::Parser;
use pgn_bench::cli::Cli;

/// Activations of tens of megabytes come and go many times a step: this allocator keeps their pages, where the system's
/// returns them and pays for each page again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pgn-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
