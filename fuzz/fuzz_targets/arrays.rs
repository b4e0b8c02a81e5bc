//! Arrays of images, alone or in an archive, with their labels.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgn_bench::data::source::{all, elsewhere};

fuzz_target!(|data: &[u8]| {
    let suffix = if data.starts_with(b"\x93NUMPY") { ".npy" } else { ".npz" };
    let Ok(file) = tempfile::Builder::new().suffix(suffix).tempfile() else { return };
    if std::fs::write(file.path(), data).is_ok()
        && let Ok(source) = elsewhere(file.path())
    {
        let _ = source.labels();
        let _ = source.batches(all(source.as_ref()), 8).take(8).all(|batch| batch.is_ok());
    }
});
