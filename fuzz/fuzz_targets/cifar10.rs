//! The batches of CIFAR-10's archives, before compression: the first byte chooses between the binary and Python's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use flate2::Compression;
use flate2::write::GzEncoder;
use pgn_bench::data::Split;
use pgn_bench::data::source::all;
use pgn_bench::data::cifar10::archive;

fuzz_target!(|data: &[u8]| {
    let Some((kind, batch)) = data.split_first() else { return };
    let Ok(folder) = tempfile::tempdir() else { return };
    let (name, member) = match kind % 2 {
        0 => ("cifar-10-binary.tar.gz", "cifar-10-batches-bin/test_batch.bin"),
        _ => ("cifar-10-python.tar.gz", "cifar-10-batches-py/test_batch"),
    };
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::none()));
    let mut header = tar::Header::new_gnu();
    header.set_size(batch.len() as u64);
    let whole = tar.append_data(&mut header, member, batch).and_then(|()| tar.into_inner()).and_then(GzEncoder::finish);
    let path = folder.path().join(name);
    if whole.and_then(|bytes| std::fs::write(&path, bytes)).is_ok()
        && let Ok(source) = archive(&path, Split::Test)
    {
        let _ = source.batches(all(source.as_ref()), 8).all(|batch| batch.is_ok());
    }
});
