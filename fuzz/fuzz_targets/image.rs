//! Image files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgn_bench::data::source::{all, elsewhere};

fuzz_target!(|data: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    if std::fs::write(folder.path().join("0.png"), data).is_ok()
        && let Ok(source) = elsewhere(folder.path())
    {
        let _ = source.batches(all(source.as_ref()), 8).all(|batch| batch.is_ok());
    }
});
