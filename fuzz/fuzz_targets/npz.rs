//! Statistics files.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use pgn_bench::metrics::npz::read;

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::Builder::new().suffix(".npz").tempfile() else { return };
    if file.write_all(data).is_ok() {
        let _ = read(file.path());
    }
});
