//! Zip archives of images, with their labels.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgn_bench::data::source::{all, elsewhere};

fuzz_target!(|data: &[u8]| {
    let Ok(file) = tempfile::Builder::new().suffix(".zip").tempfile() else { return };
    if std::fs::write(file.path(), data).is_ok()
        && let Ok(source) = elsewhere(file.path())
    {
        let _ = source.labels();
        let _ = source.batches(all(source.as_ref()), 8).take(8).all(|batch| batch.is_ok());
    }
});
