//! The one way out to the terminal: results on standard output, remarks on standard error. Whoever reads them may go away
//! (`| head`, a closed window) or have no room (a log on a full disk), and neither ends a command in the middle of its work.

use std::fmt::Display;
use std::io::{Error, ErrorKind, Write, stderr, stdout};
use std::process::ExitCode;
use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use console::Term;

use crate::report::markdown::fitted;

/// Why standard output took no more; nothing is written to it after that.
static REFUSED: OnceLock<Error> = OnceLock::new();

fn noted(written: std::io::Result<()>) {
    if let Err(error) = written {
        // The first failure is the one to report.
        let _ = REFUSED.set(error);
    }
}

/// Writes a result as it is, such as a table with its last line's end.
pub(super) fn show(text: impl Display) {
    if is_read() {
        let mut out = stdout().lock();
        noted(write!(out, "{text}").and_then(|()| out.flush()));
    }
}

/// Writes a result with tables, which are made as narrow as a terminal that says how wide it is.
pub(super) fn show_tables(text: &str) {
    match Term::stdout().size_checked() {
        Some((_, width)) => show(fitted(text, width.into())),
        None => show(text),
    }
}

/// Writes a result of one line.
pub(super) fn say(line: impl Display) {
    show(format_args!("{line}\n"));
}

/// Writes a remark of one line; one that cannot be written is dropped.
pub(super) fn remark(line: impl Display) {
    let _ = writeln!(stderr(), "{line}");
}

/// Whether standard output has taken everything so far: a command that would print for ever ends when it has not.
pub(super) fn is_read() -> bool {
    REFUSED.get().is_none()
}

/// Shows the help or version that was asked for, or what is wrong with the arguments: exit code 0, or 2.
pub fn usage(error: &clap::Error) -> ExitCode {
    let written = error.print().and_then(|()| stdout().flush());
    if error.use_stderr() {
        return ExitCode::from(2);
    }
    noted(written);
    ExitCode::SUCCESS
}

/// The exit code of a command that has ended, its error said on standard error.
///
/// A reader of standard output that went away has seen what it wanted, as `head` has: the command keeps the code that it earned,
/// so that a script under `pipefail` does not take it for a failure. Results that could not be written for another reason, such as a full
/// disk, are an error like any other, found after the work is done and its files are written.
pub fn ended(command: Result<ExitCode>) -> ExitCode {
    let code = command.and_then(|code| match REFUSED.get() {
        Some(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow!("cannot write to standard output: {e} (the work is done, and its files are written)"))
        }
        _ => Ok(code),
    });
    code.unwrap_or_else(|error| {
        remark(format_args!("pgn-bench: {error:#}"));
        ExitCode::from(2)
    })
}
