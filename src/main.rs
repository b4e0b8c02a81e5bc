//! The command line of pgn-bench.

use std::process::ExitCode;

use clap::Parser;
use pgn_bench::cli::Cli;

fn main() -> ExitCode {
    pgn_bench::memory::keep_pages();
    match Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            // Ours name their causes; those of libraries may not.
            let mut message = String::new();
            for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
                if !message.ends_with(&cause) {
                    message = if message.is_empty() { cause } else { format!("{message}: {cause}") };
                }
            }
            eprintln!("pgn-bench: {message}");
            ExitCode::from(2)
        }
    }
}
