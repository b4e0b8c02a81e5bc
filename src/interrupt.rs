//! SIGINT, SIGTERM and SIGUSR1 ask a run to save itself and end.

use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

use crate::error::{Error, Result};

/// The signal that came, or 0.
static CAME: AtomicU8 = AtomicU8::new(0);
/// A step of a large network may take longer than whoever stops a process waits.
const PATIENCE: Duration = Duration::from_secs(9);

/// Makes the signals set a mark. A second one, or [`PATIENCE`] without an end, ends the process at once: the last checkpoint
/// stays.
///
/// # Errors
/// When the system refuses.
pub fn install() -> Result<()> {
    handle(|signal| {
        std::thread::sleep(PATIENCE);
        let _ = writeln!(
            std::io::stderr(),
            "pgn-bench: the step takes too long; the last checkpoint stays, --resume goes on from it"
        );
        std::process::exit(128 + signal);
    })
}

/// Makes the signals set a mark and no more, for a process that waits for others to end.
///
/// # Errors
/// When the system refuses.
pub fn mark_only() -> Result<()> {
    handle(|_| {})
}

fn handle(after: fn(i32)) -> Result<()> {
    let refused = |e: std::io::Error| Error::invalid(format!("cannot handle signals: {e}"));
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGUSR1]).map_err(refused)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if CAME.swap(signal as u8, Ordering::SeqCst) != 0 {
                std::process::exit(128 + signal);
            }
            std::thread::spawn(move || after(signal));
        }
    });
    Ok(())
}

/// The signal that asked for the end, if one did.
pub fn requested() -> Option<u8> {
    Some(CAME.load(Ordering::SeqCst)).filter(|&signal| signal > 0)
}
