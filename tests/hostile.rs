//! Files that were made to do harm: each is refused with an error that says what is wrong, and costs neither the process nor
//! much memory.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};

use common::{Folder, TINY, experiment, run};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use pgn_bench::config::Experiment;
use pgn_bench::data::source::{Picture, Source, all, elsewhere};
use pgn_bench::data::{Split, cifar10, stl10};
use pgn_bench::error::Error;
use pgn_bench::methods;
use pgn_bench::metrics::npz;
use pgn_bench::report::gate;
use pgn_bench::train::checkpoint::{self, Stored};
use pgn_bench::yaml;
use serde_json::{Value, json};

/// The message of what must fail.
fn refused<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error.to_string(),
    }
}

/// The first error of a source, in opening or in reading.
fn first(source: Result<Box<dyn Source>, Error>) -> String {
    let read =
        |source: Box<dyn Source>| source.batches(all(source.as_ref()), 7).collect::<Result<Vec<Vec<Picture>>, _>>();
    refused(source.and_then(read))
}

/// A `.tar.gz` of members: name, kind, size that is claimed, content that is there.
fn archive(path: &Path, members: &[(&str, tar::EntryType, u64, &[u8])]) {
    let mut packed = GzEncoder::new(std::fs::File::create(path).unwrap(), Compression::fast());
    for (name, kind, claimed, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(*kind);
        header.set_size(*claimed);
        header.set_cksum();
        packed.write_all(header.as_bytes()).unwrap();
        packed.write_all(content).unwrap();
        packed.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()]).unwrap();
    }
    packed.finish().unwrap();
}

#[test]
fn only_names_in_headers_and_only_files_count_in_an_archive() {
    use tar::EntryType::{Directory, GNULongName, Regular, Symlink, XHeader};
    let home = Folder::new("hostile-tar");
    let path = home.join("cifar-10-binary.tar.gz");
    let content = [0; 3073];
    let long = b"test_batch.bin\0";
    let pax = b"23 path=test_batch.bin\n";
    for members in [
        vec![("x", GNULongName, 15, &long[..]), ("other", Regular, 3073, &content)],
        vec![("x", XHeader, 23, &pax[..]), ("other", Regular, 3073, &content)],
        // Of this length it would be kept in memory.
        vec![("x", GNULongName, 1 << 40, &long[..])],
        vec![("test_batch.bin", Directory, 0, &[])],
        vec![("test_batch.bin", Symlink, 0, &[])],
    ] {
        archive(&path, &members);
        let error = first(cifar10::archive(&path, Split::Test));
        let cut = members.len() == 1 && members[0].2 > 1 << 30;
        assert!(error.contains(if cut { "not a readable" } else { "has no member `test_batch.bin`" }), "{error}");
    }
    archive(&path, &[("test_batch.bin", Regular, 3073, &content)]);
    assert_eq!(cifar10::archive(&path, Split::Test).unwrap().len(), 1);
}

#[test]
fn sizes_that_a_header_claims_are_not_believed() {
    let home = Folder::new("hostile-stl10");
    let path = home.join("stl10_binary.tar.gz");
    let most = (i64::MAX as u64) / 27_648 * 27_648;
    for claimed in [27_648 * 100_001, 27_648 * 10u64.pow(12), 27_648 * 10u64.pow(14), most] {
        archive(&path, &[("unlabeled_X.bin", tar::EntryType::Regular, claimed, &[0; 27_648])]);
        let error = first(stl10::archive(&path, Split::Unlabeled));
        assert!(error.contains("more than STL-10's 100000 images"), "{error}");
    }
    archive(&path, &[("unlabeled_X.bin", tar::EntryType::Regular, 27_648 * 9_999, &[0; 27_648])]);
    assert!(first(stl10::archive(&path, Split::Unlabeled)).contains("cannot be read to its end"));
}

#[test]
fn pickles_neither_nest_nor_multiply() {
    let home = Folder::new("hostile-pickle");
    let path = home.join("cifar-10-python.tar.gz");
    let nested = |open: &[u8], close: &[u8]| [open.repeat(100_000), close.repeat(100_000)].concat();
    // A list of twice the list before, forty times over.
    let mut doubled = b"]q\x00K\x01a0".to_vec();
    doubled.extend((0..40u8).flat_map(|i| [b'h', i, b'h', i, 0x86, b'q', i + 1]));
    for (name, pickle) in [
        ("tuples", nested(b"(", b"t")),
        ("lists", nested(b"]", b"a")),
        ("reduced", nested(b"}", b"R")),
        ("doubled", doubled),
        ("duplicates", [&b"K\x01"[..], &b"2\x86".repeat(60)].concat()),
        ("many", b"N".repeat(1 << 20)),
        ("empty", Vec::new()),
        ("long", b"B\xff\xff\xff\xff".to_vec()),
        ("longer", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        ("text", b"T\xff\xff\xff\xff".to_vec()),
        ("in itself", b"]q\x00h\x00a".to_vec()),
        ("memo", b"r\xff\xff\xff\xff".to_vec()),
        ("mark", b"((t(tt(t(NNe".to_vec()),
    ] {
        let pickle = [b"\x80\x02", &pickle[..], b"."].concat();
        archive(&path, &[("test_batch", tar::EntryType::Regular, pickle.len() as u64, &pickle)]);
        let error = first(cifar10::archive(&path, Split::Test));
        assert!(error.contains("is no batch of CIFAR-10"), "{name}: {error}");
    }
}

/// A page of an environment, whose nodes all lie at `node`.
fn page(number: u64, flags: u16, pointers: usize, node: usize, content: &[u8]) -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[..8].copy_from_slice(&number.to_le_bytes());
    page[10..12].copy_from_slice(&flags.to_le_bytes());
    page[12..14].copy_from_slice(&(16 + 2 * pointers as u16).to_le_bytes());
    page[16..16 + 2 * pointers].copy_from_slice(&(node as u16).to_le_bytes().repeat(pointers));
    let end = (node + content.len()).min(page.len());
    page[node..end].copy_from_slice(&content[..end - node]);
    page
}

#[test]
fn keys_and_values_of_an_environment_lie_in_their_pages() {
    let home = Folder::new("hostile-lmdb");
    let mut meta = page(0, 8, 0, 16, &[]);
    meta[16..24].copy_from_slice(&[0xde, 0xc0, 0xef, 0xbe, 1, 0, 0, 0]);
    meta[40..44].copy_from_slice(&4096u32.to_le_bytes());
    meta[128..136].copy_from_slice(&2u64.to_le_bytes());
    // Size of the value, flags, length of the key.
    let node = |value: u32, flags: u16, key: u16| {
        [&value.to_le_bytes()[..], &flags.to_le_bytes(), &key.to_le_bytes(), &[b'1'; 700]].concat()
    };
    for (pointers, at, node) in [
        // Two thousand keys, all of the same bytes.
        (1000, 3000, node(3, 0, 400)),
        (1, 3000, node(3, 0, 600)),
        (1, 3000, node(3, 0, 65_535)),
        (1, 4000, node(3, 0, 100)),
        (1, 3000, node(2000, 0, 1)),
        (1, 16, node(3, 0, 1)),
    ] {
        let leaf = page(2, 2, pointers, at, &node);
        std::fs::write(home.join("data.mdb"), [&meta[..], &meta, &leaf, &[0; 8192]].concat()).unwrap();
        let error = first(elsewhere(&home.0));
        assert!(error.contains("data.mdb") && error.contains("does not fit in it"), "{pointers} at {at}: {error}");
    }
}

/// A PNG of black pixels, one bit each.
fn png(width: u32, height: u32) -> Vec<u8> {
    let chunk = |kind: &[u8], content: &[u8]| {
        let named = [kind, content].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&named);
        [&(content.len() as u32).to_be_bytes()[..], &named, &crc.sum().to_be_bytes()].concat()
    };
    let mut pixels = ZlibEncoder::new(Vec::new(), Compression::fast());
    (0..height).for_each(|_| pixels.write_all(&vec![0; 1 + width.div_ceil(8) as usize]).unwrap());
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
    let chunks = [chunk(b"IHDR", &head), chunk(b"IDAT", &pixels.finish().unwrap()), chunk(b"IEND", &[])];
    [b"\x89PNG\r\n\x1a\n", &chunks.concat()[..]].concat()
}

#[test]
fn images_that_claim_too_many_pixels_are_not_decoded() {
    let home = Folder::new("hostile-images");
    std::fs::write(home.join("a.png"), png(22_000, 22_000)).unwrap();
    assert!(first(elsewhere(&home.0)).contains("a.png: image cannot be decoded: it has 22000×22000 pixels, more than"));
    std::fs::write(home.join("a.png"), png(1, 68_000_000)).unwrap();
    assert!(first(elsewhere(&home.0)).contains("it has 1×68000000 pixels"));
    std::fs::write(home.join("a.png"), png(3, 2)).unwrap();
    assert_eq!(elsewhere(&home.0).unwrap().batches(vec![0], 7).next().unwrap().unwrap()[0].size, [2, 3]);

    std::fs::remove_file(home.join("a.png")).unwrap();
    let mut jpeg = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/small.jpg")).unwrap();
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    std::fs::write(home.join("a.jpg"), jpeg).unwrap();
    assert!(first(elsewhere(&home.0)).contains("it has 60000×60000 pixels"));
}

/// A checkpoint of a tiny run, with its scalars.
fn trained(home: &Folder) -> (PathBuf, Vec<u8>, Value) {
    let file = home.write("tiny.yaml", TINY);
    let quick = ["--set", "train.steps=1", "--set", "eval.every=1"];
    let (code, _, stderr) = run(&home.0, &experiment(&file, &home.join("out"), &quick));
    assert_eq!(code, 0, "{stderr}");
    let path = home.join("out/tiny-smoke/cnn32-pgn+cr-s0").join(checkpoint::FILE);
    let bytes = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    (path, bytes[8 + length..].to_vec(), header)
}

#[test]
fn a_checkpoint_has_the_settings_of_an_experiment_and_the_networks_it_says() {
    let home = Folder::new("hostile-checkpoint");
    let (path, data, header) = trained(&home);
    let with = |at: &str, value: Value| {
        let mut header = header.clone();
        let mut progress: Value = serde_json::from_str(header["__metadata__"]["pgn-bench"].as_str().unwrap()).unwrap();
        match progress.pointer_mut(at) {
            Some(there) => *there = value,
            None => progress[at.trim_start_matches('/')] = value,
        }
        header["__metadata__"]["pgn-bench"] = progress.to_string().into();
        let header = header.to_string();
        std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
        Stored::open(&path).map(drop)
    };
    with("/cell/train/width", json!(0.05)).unwrap();
    for (at, value, expected) in [
        ("/cell/train/width", json!(1e9), "train.width: 1000000000.0 is not allowed"),
        ("/cell/train/width", json!(1e300), "train.width"),
        ("/cell/train/width", json!(300.0), "train.width: 300.0 is not allowed"),
        ("/cell/train/width", json!(-1.0), "train.width"),
        ("/cell/train/width", json!(8.0), "cnn32 of width 8 has"),
        ("/cell/train/critic_batch", json!(10u64.pow(12)), "train.critic_batch"),
        ("/cell/train/critic_steps", json!(u64::MAX), "train.critic_steps"),
        ("/cell/eval/batch", json!(0), "eval.batch: 0 is not allowed"),
        ("/cell/eval/batch", json!(10u64.pow(12)), "eval.batch"),
        ("/cell/eval/weights", json!([]), "eval.weights: [] is not allowed"),
        ("/cell/eval/weights", json!(vec!["raw"; 1_000_000]), "eval.weights[1]: raw is there twice"),
        ("/cell/eval/metrics", json!([]), "eval.metrics"),
        ("/cell/eval/metrics", json!(vec!["fid"; 1_000_000]), "eval.metrics"),
        ("/cell/eval/images", json!(10u64.pow(12)), "eval.images"),
        ("/cell/eval/every", json!(0), "eval.every"),
        ("/cell/eval/batch_norm", json!("train"), "eval.batch_norm: train is not allowed"),
        ("/cell/image_size", json!(10u64.pow(10)), "image_size"),
        ("/cell/image_size", json!(64), "image_size: cnn32 makes images of 32×32 pixels"),
        ("/cell/method", json!("../x"), "method"),
        ("/cell/experiment", json!("../x"), "experiment"),
        ("/cell/arch", json!("biggan32"), "but biggan32 of width 0.05 has"),
        ("/classes", json!(10u64.pow(13)), "10000000000000 classes"),
        ("/classes", json!(0), "0 classes"),
        ("/lacking", json!(["Generator", "Average"]), "it has no generator"),
    ] {
        let error = refused(with(at, value));
        assert!(error.contains("checkpoint.safetensors") && error.contains(expected), "{at}: {error}");
        assert!(error.len() < 2000, "{at}: {} bytes of message", error.len());
    }
}

#[test]
fn experiments_and_gates_are_small() {
    let home = Folder::new("hostile-experiment");
    let file = home.write("long.yaml", &"[".repeat(200_000));
    for error in [refused(yaml::read(&file)), refused(gate::read(&file))] {
        assert!(error.contains("has 200000 bytes; at most 65536 are read"), "{error}");
    }
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let seeds = list((0..20_000).map(|seed| seed.to_string()).collect());
    let many = TINY
        .replace("methods: [pgn+cr]", &format!("methods: {}", list(methods::ids())))
        .replace("seeds: [0]", &format!("seeds: {seeds}"));
    let error = refused(Experiment::parse("many.yaml", &many, &[]).and_then(|e| e.resolve("smoke")));
    assert!(error.contains("tiny at scale smoke has") && error.contains("cells, more than 100000"), "{error}");
    let error = refused(Experiment::parse("twice.yaml", &TINY.replace("[pgn+cr]", "[gn, pgn, gn]"), &[]));
    assert!(error.contains("methods[2]: gn is there twice"), "{error}");
}

#[test]
fn what_a_file_of_statistics_says_is_quoted_in_short() {
    let home = Folder::new("hostile-npz");
    let path = home.join("wild.npz");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let header = "[".repeat(60_000) + "\n";
    let array = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    zip.start_file("mu.npy", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&array).unwrap();
    zip.finish().unwrap();
    let error = refused(npz::read(&path));
    assert!(error.contains("not a statistics file") && error.len() < 1000, "{} bytes: {error:.500}", error.len());
}
