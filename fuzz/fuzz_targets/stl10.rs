//! STL-10's archive, as gzip would unpack it: tar headers and members.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use pgn_bench::data::Split;
use pgn_bench::data::source::all;
use pgn_bench::data::stl10::archive;

fuzz_target!(|data: &[u8]| {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join("stl10_binary.tar.gz");
    let mut gz = GzEncoder::new(Vec::new(), Compression::none());
    let whole = gz.write_all(data).and_then(|()| gz.finish());
    if whole.and_then(|bytes| std::fs::write(&path, bytes)).is_ok()
        && let Ok(source) = archive(&path, Split::Train)
    {
        let _ = source.batches(all(source.as_ref()), 2).all(|batch| batch.is_ok());
    }
});
