//! Collections of every kind as people have them, written by the programs that write theirs (`tests/data/formats.py`,
//! `tests/data/layouts.py`).

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use common::{Folder, TINY, command, experiment};
use pgn_bench::data::source::{Labels, Picture, Source, all, elsewhere, open, part};
use pgn_bench::data::{Dataset, Split, load};

/// Classes of the twelve images.
const CLASSES: [u16; 12] = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn layout(name: &str) -> PathBuf {
    file("layouts").join(name)
}

/// The number of each image, which is its red.
fn numbers(source: &dyn Source, indices: Vec<usize>) -> Vec<u8> {
    let pictures = source.batches(indices, 5).flat_map(Result::unwrap);
    pictures.inspect(|p: &Picture| assert_eq!(p.size, [16, 16])).map(|p| p.pixels[0]).collect()
}

#[test]
fn every_format_has_pillows_values() {
    let source = elsewhere(&file("formats")).unwrap();
    assert_eq!(source.len(), 33);
    for (index, batch) in source.batches(all(source.as_ref()), 1).enumerate() {
        let name = source.describe(index);
        let picture = batch.unwrap_or_else(|e| panic!("{name}: {e}")).remove(0);
        assert_eq!(picture.size, if name.ends_with("turned.tif") { [19, 13] } else { [13, 19] }, "{name}");
        assert!(picture.pixels == std::fs::read(format!("{name}.rgb")).unwrap(), "{name} has other values");
    }
}

#[test]
fn every_layout_has_the_same_images_and_classes() {
    let labelled = Some(Labels { of: CLASSES.to_vec(), classes: 3 });
    let layouts = [
        ("uint8.parquet", &labelled),
        ("uint16.parquet", &labelled),
        ("int32.parquet", &labelled),
        ("int64.parquet", &labelled),
        ("text.parquet", &labelled),
        ("dictionary.parquet", &labelled),
        ("none.PARQUET", &None),
        ("binary.parquet", &None),
        ("struct.parquet", &None),
        ("path.parquet", &None),
        ("files", &None),
        ("dataset.zip", &labelled),
        ("samples.npz", &labelled),
        ("compressed.npz", &None),
        ("array.npy", &None),
    ];
    for (name, labels) in layouts {
        let source = elsewhere(&layout(name)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(numbers(source.as_ref(), all(source.as_ref())), (0..12).collect::<Vec<u8>>(), "{name}");
        assert_eq!(numbers(source.as_ref(), vec![1, 6, 11]), [1, 6, 11], "{name}");
        assert_eq!(source.labels().unwrap_or_else(|e| panic!("{e}")), *labels, "{name}");
        assert!(source.files().iter().all(|file| file.is_file()), "{name}");
    }
    let folders = elsewhere(&layout("classes.ZIP")).unwrap();
    assert_eq!(numbers(folders.as_ref(), all(folders.as_ref())), [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
    assert_eq!(folders.labels().unwrap().unwrap().of, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
}

#[test]
fn a_clone_of_the_hubs_has_splits() {
    let hub = layout("hub");
    let train = part(&hub, Split::Train).unwrap();
    assert_eq!(
        (numbers(train.as_ref(), all(train.as_ref())), train.labels().unwrap().unwrap().of),
        ((0..12).collect(), CLASSES.to_vec())
    );
    assert_eq!(part(&hub, Split::Test).unwrap().len(), 4);
    assert!(
        part(&hub, Split::Validation).err().unwrap().to_string().contains("has no validation split, only train, test")
    );
    assert_eq!(elsewhere(&hub).unwrap().len(), 16);
    let named = |name: String| open(name.as_ref(), &mut |_, _| {}).map(|named| named.source().len());
    assert_eq!(named(format!("{}:test", hub.display())).unwrap(), 4);
    assert!(named(format!("{}:tests", hub.display())).unwrap_err().to_string().contains("unknown split `tests`"));
    assert!(
        named(format!("{}:test", layout("int64.parquet").display()))
            .unwrap_err()
            .to_string()
            .contains("it is one file")
    );
}

/// What a run on a collection says, with nothing done.
fn planned(home: &Folder, name: &str, arch: &str) -> (i32, String, String) {
    let set = format!("dataset: {{path: {}}}", layout(name).display());
    let yaml = home.write("experiment.yaml", &TINY.replace("dataset: shapes", &set).replace("cnn32", arch));
    let output = home.join("out");
    let done = command(&home.0, &experiment(&yaml, &output, &["--dry-run"])).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

#[test]
fn labels_are_asked_for_by_conditional_networks_alone() {
    let home = Folder::new("labels");
    for (name, fault) in [
        ("unlabelled.parquet", "row 0: the label -1 in column `label` is below 0"),
        ("null.parquet", "row 0: no label in column `label`"),
        ("floats.parquet", "column `label` has type f64, not whole numbers or names"),
        ("none.PARQUET", "has no labels of two classes or more"),
    ] {
        let source = elsewhere(&layout(name)).unwrap();
        assert_eq!(numbers(source.as_ref(), all(source.as_ref())).len(), 12, "{name}");
        let (code, _, stderr) = planned(&home, name, "biggan32");
        assert!(code == 2 && stderr.contains(fault), "{name}: {stderr}");
        assert_eq!(planned(&home, name, "cnn32").0, 0, "{name}");
    }
    let parameters = |name: &str| {
        let (code, stdout, stderr) = planned(&home, name, "biggan32");
        assert_eq!(code, 0, "{stderr}");
        stdout
            .lines()
            .find(|l| l.contains("biggan32-"))
            .unwrap()
            .split('|')
            .nth(6)
            .unwrap()
            .trim()
            .parse::<usize>()
            .unwrap()
    };
    let of = ["int64.parquet", "uint8.parquet", "dictionary.parquet", "imagenet.parquet"].map(parameters);
    // 997 classes more, each with an embedding in the critic's sum and a scale and shift in each of the generator's layers.
    assert!(of[0] == of[1] && of[0] == of[2] && (of[3] - of[0]).is_multiple_of(997) && of[3] > of[0], "{of:?}");
}

/// A test of its own process would be needed to set the cache for `load` alone, so it is the binary that trains.
#[test]
fn a_run_says_what_its_images_were_made_from() {
    let home = Folder::new("converted");
    std::fs::create_dir_all(home.join("set")).unwrap();
    for i in 0..9u8 {
        image::GrayImage::from_pixel(32, 32, image::Luma([i])).save(home.join(&format!("set/{i}.png"))).unwrap();
    }
    image::RgbaImage::from_pixel(32, 32, image::Rgba([9, 8, 7, 50])).save(home.join("set/9.png")).unwrap();
    let set = Dataset::Elsewhere { path: home.join("set") };
    // SAFETY: the other tests of this process give the cache to their commands themselves.
    unsafe { std::env::set_var("PGN_BENCH_CACHE", home.join("cache")) };
    let images = load(&set, Split::Train, 32, &mut |_, _| {}).unwrap();
    assert_eq!(images.converted, "9 greyscale, 1 RGBA");
    assert!(images.fingerprint().ends_with(" from 9 greyscale, 1 RGBA"), "{}", images.fingerprint());
    assert_eq!((images.image(3)[..3].to_vec(), images.image(9)[..3].to_vec()), (vec![3; 3], vec![9, 8, 7]));
}

#[test]
fn many_small_images_are_walked_in_little_memory() {
    let home = Folder::new("many");
    let png = std::fs::read(layout("files/7.png")).unwrap();
    for i in 0..2000 {
        let path = home.join(&format!("set/{}/{i}.png", i / 100));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &png).unwrap();
    }
    let source = elsewhere(&home.join("set")).unwrap();
    assert_eq!((source.len(), source.labels().unwrap().unwrap().classes), (2000, 20));
    let batches = source.batches(all(source.as_ref()), 64).map(|batch| batch.unwrap().len());
    assert_eq!(batches.collect::<Vec<_>>()[30..], [64, 16]);
}

#[test]
fn nothing_is_left_out_in_silence() {
    let home = Folder::new("silence");
    let png = std::fs::read(layout("files/7.png")).unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        let set = home.join("set");
        let _ = std::fs::remove_dir_all(&set);
        std::fs::create_dir_all(set.join("a")).unwrap();
        std::fs::write(set.join("a/0.png"), &png).unwrap();
        std::fs::write(set.join(name), bytes).unwrap();
        let read = elsewhere(&set).and_then(|s| s.batches(all(s.as_ref()), 9).collect::<Result<Vec<_>, _>>());
        read.err().map(|e| e.to_string()).unwrap_or_default()
    };
    for (name, bytes, said) in [
        ("1", &png[..], "1 without extension"),
        ("a/1.dat", &png, "1 .dat in a"),
        ("1.avif", b"", "1 .avif"),
        ("1.png", b"", "1.png: image cannot be decoded: it is empty"),
        ("1.png", b"version https://git-lfs.github.com/spec/v1", "run `git lfs pull`"),
        ("notes.txt", b"Plain words", ""),
    ] {
        let error = refused(name, bytes);
        assert!(error.contains(said) && error.is_empty() == said.is_empty(), "{name}: {error}");
    }
    let twice = elsewhere(&layout("twice.zip")).err().unwrap().to_string();
    assert!(twice.contains("1 of its 3 files have the names of others"), "{twice}");
}
