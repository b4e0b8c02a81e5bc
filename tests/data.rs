//! Every data set from small files in its true format (written by `tests/data/make.py`), whole and broken.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Folder, TINY, command, experiment};
use pgn_bench::data::source::{Picture, Source, all as indices, elsewhere};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn all(source: &dyn Source) -> Vec<Picture> {
    source.batches(indices(source), 7).flat_map(Result::unwrap).collect()
}

fn error(source: &dyn Source) -> String {
    source.batches(indices(source), 7).find_map(Result::err).unwrap().to_string()
}

/// Red is the number of the image, green grows with the column.
fn is_image(picture: &Picture, number: usize, side: usize, tolerance: u8) {
    assert_eq!(picture.size, [side, side]);
    let at = (3 * side + side / 2) * 3;
    let want = [number, side / 2 * 255 / side, 3 * 255 / side];
    for (got, want) in picture.pixels[at..at + 3].iter().zip(want) {
        assert!(usize::from(*got).abs_diff(want) <= usize::from(tolerance), "{got} for {want} in image {number}");
    }
}

#[test]
fn lmdb_environments_of_all_layouts_are_read_in_order() {
    for (name, n, side, tolerance) in [("lmdb-index", 120, 16, 0), ("lmdb-side", 20, 16, 12), ("lmdb-raw", 12, 48, 0)] {
        let images = all(elsewhere(&file(name)).unwrap().as_ref());
        assert_eq!(images.len(), n, "{name}");
        images.iter().enumerate().for_each(|(i, picture)| is_image(picture, i, side, tolerance));
    }
    let sizes = elsewhere(&file("lmdb-sizes")).err().unwrap().to_string();
    assert!(sizes.contains("images of several sizes"), "{sizes}");
}

#[test]
fn broken_environments_are_errors_that_name_the_file() {
    let home = Folder::new("lmdb");
    let whole = std::fs::read(file("lmdb-index/data.mdb")).unwrap();
    let broken = |bytes: &[u8]| {
        std::fs::write(home.join("data.mdb"), bytes).unwrap();
        match elsewhere(&home.0) {
            Ok(source) => error(source.as_ref()),
            Err(error) => error.to_string(),
        }
    };
    for (cut, expected) in [(100, "ends before byte"), (9000, "lies beyond its end"), (0, "cannot map")] {
        let error = broken(&whole[..cut]);
        assert!(error.contains("data.mdb") && (error.contains(expected) || cut == 0), "{cut}: {error}");
    }
    assert!(broken(&[7; 20_000]).contains("no LMDB magic number"));
    let mut damaged = whole.clone();
    let at = damaged.windows(4).rposition(|w| w == b"\x89PNG").unwrap();
    damaged[at + 20] ^= 0xff;
    let error = broken(&damaged);
    assert!(error.contains("data.mdb: key ") && error.contains("cannot be decoded"), "{error}");
}

#[test]
fn parquet_tables_have_labels_if_there_is_a_column() {
    let source = elsewhere(&file("faces.parquet")).unwrap();
    let labels = source.labels().unwrap().unwrap();
    assert_eq!((source.len(), labels.classes), (30, 2));
    for (i, picture) in all(source.as_ref()).iter().enumerate() {
        is_image(picture, i, 16, 0);
        assert_eq!(usize::from(labels.of[i]), i % 2);
    }
    let home = Folder::new("parquet");
    let path = home.join("cut.parquet");
    let whole = std::fs::read(file("faces.parquet")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = elsewhere(&path).err().unwrap().to_string();
    assert!(error.contains("cut.parquet: not a readable Parquet file"), "{error}");
}

/// `run` on a data set found in `data`, with settings replaced.
fn run(home: &Folder, data: &Path, yaml: &str, more: &[&str]) -> (i32, String) {
    let file = home.write("experiment.yaml", yaml);
    let output = home.join("out");
    let quick = ["--overwrite", "--set", "train.steps=1", "--set", "eval.every=1"];
    let mut command: Command = command(&home.0, &experiment(&file, &output, &[&quick[..], more].concat()));
    let done = command.env("PGN_BENCH_DATA", data).output().unwrap();
    (done.status.code().unwrap(), String::from_utf8(done.stderr).unwrap())
}

#[test]
fn cifar10_is_read_from_both_original_archives_alike() {
    let mut fingerprints = Vec::new();
    for name in ["cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"] {
        let home = Folder::new("cifar-archive");
        std::fs::create_dir_all(home.join("data/cifar10")).unwrap();
        std::fs::copy(file(name), home.join("data/cifar10").join(name)).unwrap();
        let yaml = TINY.replace("shapes", "cifar10").replace("pgn+cr", "pgn");
        let (code, stderr) = run(&home, &home.join("data"), &yaml, &[]);
        assert_eq!(code, 0, "{stderr}");
        let rows = pgn_bench::results::read(&home.join("out/tiny-smoke/cnn32-pgn-s0/rows.parquet")).unwrap();
        fingerprints.push(rows[0].reference_sha256.clone());

        let whole = std::fs::read(file(name)).unwrap();
        std::fs::write(home.join("data/cifar10").join(name), &whole[..whole.len() - 60]).unwrap();
        let (code, stderr) = run(&home, &home.join("data"), &yaml, &[]);
        assert!(code == 2 && stderr.contains(name), "{stderr}");
    }
    assert_eq!(fingerprints[0], fingerprints[1]);

    // Unpacked where other tools unpack it, and as the Hub's repository is cloned.
    let home = Folder::new("cifar-unpacked");
    let packed = std::fs::File::open(file("cifar-10-python.tar.gz")).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(packed)).unpack(home.join("unpacked")).unwrap();
    std::fs::create_dir_all(home.join("clone/cifar10/plain_text")).unwrap();
    std::fs::write(home.join("clone/cifar10/README.md"), "").unwrap();
    for split in ["train", "test"] {
        let to = home.join(&format!("clone/cifar10/plain_text/{split}-00000-of-00001.parquet"));
        std::fs::copy(file("layouts/int64.parquet"), to).unwrap();
    }
    let yaml = TINY.replace("shapes", "cifar10").replace("pgn+cr", "pgn");
    for data in ["unpacked", "clone"] {
        let (code, stderr) = run(&home, &home.join(data), &yaml, &[]);
        assert_eq!(code, 0, "{data}: {stderr}");
        let rows = pgn_bench::results::read(&home.join("out/tiny-smoke/cnn32-pgn-s0/rows.parquet")).unwrap();
        assert_eq!(rows[0].reference_sha256 == fingerprints[0], data == "unpacked");
    }
}

#[test]
fn folders_are_data_sets_with_classes_and_splits() {
    let home = Folder::new("folders");
    let write = |path: &str, side: u32, shade: u8| {
        let path = home.join("set").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(side, side, image::Rgb([shade; 3])).save(path).unwrap();
    };
    for i in 0..12u8 {
        for split in ["train", "test"] {
            write(&format!("{split}/dark/{i}.png"), 40, i);
            write(&format!("{split}/light/{i}.png"), 40, 240 + i);
        }
    }
    let yaml = TINY.replace("dataset: shapes", &format!("dataset: {{folder: {}}}", home.join("set").display()));
    let (code, stderr) = run(&home, &home.0, &yaml.replace("cnn32", "biggan32"), &[]);
    assert_eq!(code, 0, "{stderr}");
    let rows = pgn_bench::results::read(&home.join("out/tiny-smoke/biggan32-pgn+cr-s0/rows.parquet")).unwrap();
    assert_eq!((rows[0].dataset.as_str(), rows[0].split.as_str()), ("set", "train"));

    // Its own results are a Parquet file without images.
    let other = elsewhere(&home.join("out/tiny-smoke/biggan32-pgn+cr-s0/rows.parquet")).err().unwrap().to_string();
    assert!(
        other.contains("rows.parquet: has no column of images, such as `img` or `image`, only experiment ("),
        "{other}"
    );

    write("train/light/99.png", 41, 0);
    let (code, stderr) = run(&home, &home.0, &yaml, &[]);
    assert!(code == 2 && stderr.contains("99.png has 41×41 pixels, expected 40×40 as the first"), "{stderr}");
    std::fs::write(home.join("set/train/light/99.png"), "no image").unwrap();
    let (code, stderr) = run(&home, &home.0, &yaml, &[]);
    assert!(code == 2 && stderr.contains("99.png: image cannot be decoded"), "{stderr}");
    let nowhere = yaml.replace("/set}", "/nowhere}");
    let (code, stderr) = run(&home, &home.0, &nowhere, &[]);
    assert!(code == 2 && stderr.contains("there is no such file or folder"), "{stderr}");
}
