//! CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 images of 32×32 pixels in ten classes, from the Parquet files of the Hugging
//! Face Hub or one of the original archives.

use std::path::{Path, PathBuf};

use super::archive::{Member, check_published, interleave};
use super::hub::{Kind, Pinned};
use super::locate::{Found, found, of_parquet, split_in};
use super::pickle::{Pickle, Value};
use super::source::{Batches, Labels, Source, in_chunks};
use super::{ImagesOf, Split};
use crate::error::{Error, Result};

const SIDE: usize = 32;
const CLASSES: usize = 10;
const RECORD: usize = 1 + 3 * SIDE * SIDE;
/// Far more than a batch file has.
const LONGEST: u64 = 1 << 28;

/// A form that the set is published in.
struct Published {
    /// The archive.
    packed: &'static str,
    /// The folder that it unpacks to.
    folder: &'static str,
    md5: &'static str,
}

const BINARY: Published = Published {
    packed: "cifar-10-binary.tar.gz",
    folder: "cifar-10-batches-bin",
    md5: "c32a1d4ab5d03f1284b67883e8d87530",
};
const PYTHON: Published = Published {
    packed: "cifar-10-python.tar.gz",
    folder: "cifar-10-batches-py",
    md5: "c58f30108f718f92721af3b95e74349a",
};
/// Python's batches, unpacked, and their MD5.
const BATCHES: [(&str, &str); 6] = [
    ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
    ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
    ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
    ("data_batch_4", "634d18415352ddfa80567beed471001a"),
    ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
    ("test_batch", "40351d587109b95175f43aff81a1287e"),
];
/// Images of a published batch.
const OF_BATCH: usize = 10_000;

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
    let names = [BINARY.packed, PYTHON.packed, BINARY.folder, PYTHON.folder];
    let (found, looked) = found("cifar10", &names, &names);
    match found {
        Some(Found::Folder(folder)) => return split_in(&folder, split, Some(CLASSES)),
        Some(Found::Named(path)) => {
            let files = members(&path, split).iter().map(Member::file).collect();
            return Ok(ImagesOf { files, open: Box::new(move || archive(&path, split)) });
        }
        None => {}
    }
    let pinned = pinned(split);
    if let Some(path) = pinned.cached() {
        let of = of_parquet(vec![path.clone()], Some(CLASSES));
        // Whoever downloads may be killed before its check.
        return Ok(ImagesOf {
            open: Box::new(move || pinned.check(&path).and_then(|()| (of.open)())),
            files: of.files,
        });
    }
    Err(Error::invalid(format!(
        "cifar10 is not on this machine (looked in {looked} and the Hugging Face cache); run `pgn-bench fetch cifar10`, or \
         set PGN_BENCH_DATA to a folder with cifar10/{split}-00000-of-00001.parquet, a copy of the Hub's repository as cifar10, \
         cifar10/{} or cifar10/{}",
        BINARY.packed, PYTHON.packed
    )))
}

/// A split in an original archive.
///
/// # Errors
/// When the archive or a batch in it is damaged.
pub fn archive(path: &Path, split: Split) -> Result<Box<dyn Source>> {
    Ok(Box::new(Archive::open(path, split)?))
}

/// The batches of an original archive, packed or unpacked, in order of number.
struct Archive {
    path: PathBuf,
    /// Planes and label of each image.
    images: Vec<(Vec<u8>, u8)>,
}

fn is_python(container: &Path) -> bool {
    container.file_name().is_some_and(|name| name == PYTHON.packed || name == PYTHON.folder)
}

/// The batches of a split.
fn members(container: &Path, split: Split) -> Vec<Member> {
    let of_split = |(name, _): &&(&str, &str)| (*name == "test_batch") == (split == Split::Test);
    let name = |name: &str| if is_python(container) { name.to_owned() } else { format!("{name}.bin") };
    let member = |(batch, _): &(&str, &str)| Member { container: container.to_path_buf(), name: name(batch) };
    BATCHES.iter().filter(of_split).map(member).collect()
}

impl Archive {
    fn open(path: &Path, split: Split) -> Result<Self> {
        let python = is_python(path);
        let members = members(path, split);
        let mut images = Vec::new();
        for member in &members {
            let bytes = member.bytes(LONGEST)?;
            let of_batch = if python { pickled(&bytes, member)? } else { records(&bytes, member)? };
            let md5 = BATCHES.iter().find(|(name, _)| path.is_dir() && *name == member.name).map(|(_, md5)| *md5);
            if let Some(md5) = md5 {
                check_published(&member.file(), of_batch.len(), (OF_BATCH, md5))?;
            }
            images.extend(of_batch);
        }
        if !path.is_dir() {
            let md5 = if python { PYTHON.md5 } else { BINARY.md5 };
            check_published(path, images.len(), (members.len() * OF_BATCH, md5))?;
        }
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

    fn labels(&self) -> Result<Option<Labels>> {
        let of = self.images.iter().map(|(_, label)| u16::from(*label)).collect();
        Ok(Some(Labels { of, classes: CLASSES }))
    }

    fn describe(&self, index: usize) -> String {
        format!("image {index} of {}", self.path.display())
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_> {
        in_chunks(indices, size, |chunk| {
            Ok(chunk.iter().map(|&i| interleave(&self.images[i].0, SIDE, false)).collect())
        })
    }
}
