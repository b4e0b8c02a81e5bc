//! The command line of pgn-bench.

use std::process::ExitCode;

use clap::Parser;
use pgn_bench::cli::{Cli, terminal};

fn main() -> ExitCode {
    // Libraries would add backtraces to their messages, which are part of ours; a panic keeps its own.
    // SAFETY: no other thread has been started.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    pgn_bench::machine::memory::keep_pages();
    match Cli::try_parse() {
        Ok(cli) => terminal::ended(cli.execute()),
        Err(error) => terminal::ended(Ok(terminal::usage(&error))),
    }
}
