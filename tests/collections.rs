//! Collections of every kind as people have them, written by the programs that write theirs.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use pgn_bench::data::source::{all, elsewhere};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The largest difference of levels to what Pillow reads, of each file (`tests/data/formats.py`).
#[test]
fn every_format_has_pillows_values() {
    let source = elsewhere(&file("formats")).unwrap();
    assert_eq!(source.len(), 33);
    for (index, batch) in source.batches(all(source.as_ref()), 1).enumerate() {
        let name = source.describe(index);
        let picture = batch.unwrap_or_else(|e| panic!("{name}: {e}")).remove(0);
        let want = std::fs::read(format!("{name}.rgb")).unwrap();
        assert_eq!((picture.size, picture.pixels.len()), ([13, 19], want.len()), "{name}");
        let off = picture.pixels.iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        println!("{name} {off} {:?}", picture.mode);
    }
}
