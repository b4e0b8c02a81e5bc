//! Weights as safetensors.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use pgn_bench::weights::read;

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::Builder::new().suffix(".safetensors").tempfile() else { return };
    if file.write_all(data).is_ok() {
        let _ = read(file.path());
    }
});
