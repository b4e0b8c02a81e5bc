//! CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 images of 32×32 pixels in ten classes, from the Parquet files of the Hugging
//! Face Hub or one of the original archives.

use std::path::{Path, PathBuf};

use super::archive::{Member, check_published, interleave};
use super::hub::{Kind, Pinned};
use super::locate::{Candidates, candidates};
use super::pickle::{Pickle, Value};
use super::source::parquet::Parquet;
use super::source::{Batches, Picture, Source, in_ranges};
use super::{ImagesOf, Split};
use crate::error::{Error, Result};

const SIDE: usize = 32;
const CLASSES: usize = 10;
const RECORD: usize = 1 + 3 * SIDE * SIDE;
/// Far more than a batch file has.
const LONGEST: u64 = 1 << 28;
const BINARY: (&str, &str) = ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530");
const PYTHON: (&str, &str) = ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a");

fn pinned(split: Split) -> Pinned {
    let (file, sha256) = match split {
        Split::Test => (
            "plain_text/test-00000-of-00001.parquet",
            "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
        ),
        _ => (
            "plain_text/train-00000-of-00001.parquet",
            "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
        ),
    };
    Pinned {
        repo: "uoft-cs/cifar10",
        kind: Kind::Dataset,
        revision: "0b2714987fa478483af9968de7c934580d0bb9a2",
        file,
        sha256,
    }
}

pub(super) fn fetch() -> Result<Vec<PathBuf>> {
    [Split::Train, Split::Test].map(|split| pinned(split).fetch()).into_iter().collect()
}

/// Finds a split.
pub(super) fn locate(split: Split) -> Result<ImagesOf> {
    let parquet = format!("{split}-00000-of-00001.parquet");
    let Candidates { found, looked } = candidates("cifar10", &[&parquet, BINARY.0, PYTHON.0]);
    let parquet = |path: PathBuf| ImagesOf {
        files: vec![path.clone()],
        open: Box::new(|| Ok(Box::new(Parquet::open(vec![path], Some(CLASSES))?))),
    };
    match found {
        Some(path) if path.extension().is_some_and(|e| e == "parquet") => return Ok(parquet(path)),
        Some(path) => {
            let files = vec![path.clone()];
            return Ok(ImagesOf { files, open: Box::new(move || archive(&path, split)) });
        }
        None => {}
    }
    let pinned = pinned(split);
    if let Some(path) = pinned.cached() {
        let of = parquet(path.clone());
        // Whoever downloads may be killed before its check.
        return Ok(ImagesOf {
            open: Box::new(move || pinned.check(&path).and_then(|()| (of.open)())),
            files: of.files,
        });
    }
    Err(Error::invalid(format!(
        "cifar10 is not on this machine (looked in {looked} and the Hugging Face cache); run `pgn-bench fetch cifar10`, or \
         set PGN_BENCH_DATA to a folder with cifar10/{split}-00000-of-00001.parquet, cifar10/{} or cifar10/{}",
        BINARY.0, PYTHON.0
    )))
}

/// A split in an original archive.
///
/// # Errors
/// When the archive or a batch in it is damaged.
pub fn archive(path: &Path, split: Split) -> Result<Box<dyn Source>> {
    Ok(Box::new(Archive::open(path, split)?))
}

/// The batches of an original archive, in order of number.
struct Archive {
    path: PathBuf,
    /// Planes and label of each image.
    images: Vec<(Vec<u8>, u8)>,
}

impl Archive {
    fn open(path: &Path, split: Split) -> Result<Self> {
        let python = path.file_name().is_some_and(|n| n == PYTHON.0);
        let names: Vec<String> = match split {
            Split::Test => vec!["test_batch".to_owned()],
            _ => (1..=5).map(|k| format!("data_batch_{k}")).collect(),
        };
        let mut images = Vec::new();
        for name in names {
            let name = if python { name } else { format!("{name}.bin") };
            let member = Member { container: path.to_path_buf(), name };
            let bytes = member.bytes(LONGEST)?;
            images.extend(if python { pickled(&bytes, &member)? } else { records(&bytes, &member)? });
        }
        let published = match split {
            Split::Test => 10_000,
            _ => 50_000,
        };
        check_published(path, images.len(), (published, if python { PYTHON.1 } else { BINARY.1 }))?;
        Ok(Self { path: path.to_path_buf(), images })
    }
}

fn labelled(planes: &[u8], label: i64, index: usize, member: &Member) -> Result<(Vec<u8>, u8)> {
    let label = u8::try_from(label).ok().filter(|&l| usize::from(l) < CLASSES);
    let fault = || Error::invalid(format!("{}: image {index}: the label is not one of 0 to 9", member.describe()));
    Ok((planes.to_vec(), label.ok_or_else(fault)?))
}

/// A label byte, then the planes.
fn records(bytes: &[u8], member: &Member) -> Result<Vec<(Vec<u8>, u8)>> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        let whole = format!("{} has {} bytes, not a multiple of {RECORD}", member.describe(), bytes.len());
        return Err(Error::invalid(format!("{whole}: it is cut off or no batch of CIFAR-10")));
    }
    bytes.chunks_exact(RECORD).enumerate().map(|(i, r)| labelled(&r[1..], i64::from(r[0]), i, member)).collect()
}

/// Python's dictionary with a numpy array `data`, whose state has the bytes last, and a list `labels`.
fn pickled(bytes: &[u8], member: &Member) -> Result<Vec<(Vec<u8>, u8)>> {
    let bad = |what: &str| Error::invalid(format!("{} is no batch of CIFAR-10: {what}", member.describe()));
    let pickle = Pickle::parse(bytes).map_err(|e| bad(&e))?;
    let entry = |key: &str| pickle.entry(key).ok_or_else(|| bad(&format!("no entry `{key}`")));
    let Value::Object(Some(state)) = entry("data")? else { return Err(bad("`data` is no array")) };
    let last = match pickle.get(*state) {
        Value::Items(state) => state.last().map(|place| pickle.get(*place)),
        _ => None,
    };
    let Some(Value::Bytes(planes)) = last else { return Err(bad("`data` is no array of bytes")) };
    let Value::Items(labels) = entry("labels")? else { return Err(bad("`labels` is no list")) };
    if planes.is_empty() || planes.len() != labels.len() * (RECORD - 1) {
        return Err(bad(&format!("{} bytes of pixels for {} labels", planes.len(), labels.len())));
    }
    let image = |(i, (planes, label)): (usize, (&[u8], &usize))| match pickle.get(*label) {
        Value::Int(label) => labelled(planes, *label, i, member),
        _ => Err(bad("a label is no number")),
    };
    planes.chunks_exact(RECORD - 1).zip(labels).enumerate().map(image).collect()
}

impl Source for Archive {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> usize {
        CLASSES
    }

    fn describe(&self, index: usize) -> String {
        format!("image {index} of {}", self.path.display())
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn batches(&self, size: usize) -> Batches<'_> {
        in_ranges(self.len(), size, |range| {
            let picture = |planes: &[u8]| -> Picture { interleave(planes, SIDE, false) };
            Ok(self.images[range].iter().map(|(planes, label)| (picture(planes), *label)).collect())
        })
    }
}
