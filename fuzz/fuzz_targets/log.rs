//! A run's log, which goes on from what of it can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgn_bench::train::log::{FILE, Log};

fuzz_target!(|data: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join(FILE);
    if std::fs::write(&path, data).is_ok()
        && let Ok((_, recent)) = Log::open(&path, u64::MAX, 0)
    {
        // What was kept reads the same again.
        let again = Log::open(&path, u64::MAX, 0).map(|(_, lines)| format!("{lines:?}"));
        assert_eq!(again.ok(), Some(format!("{recent:?}")));
    }
});
