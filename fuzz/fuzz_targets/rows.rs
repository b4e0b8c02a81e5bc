//! Result rows, and the table and report of what was accepted.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use pgn_bench::report::content::{Sources, build};
use pgn_bench::report::table::comparison;
use pgn_bench::results::read;

fuzz_target!(|data: &[u8]| {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(data).is_ok()
        && let Ok(rows) = read(file.path())
        && rows.len() < 1000
    {
        let _ = comparison(&rows);
        let _ = build(&Sources { rows: &rows, baselines: &[], pictures: &[], cells: &[], note: "" });
    }
});
