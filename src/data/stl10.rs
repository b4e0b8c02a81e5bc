//! STL-10 (Coates et al. 2011): 100,000 unlabelled images of 96×96 pixels, 5,000 + 8,000 labelled ones in ten classes, from
//! the original binary archive (planes stored column by column), packed or unpacked, or Parquet files of the Hugging Face
//! Hub. GANs are trained on the unlabelled ones at 48×48 pixels.

use std::path::{Path, PathBuf};

use super::archive::{Member, Records, check_published};
use super::hub::{Kind, Repository, check_stored};
use super::locate::{Found, found, of_parquet, split_in};
use super::source::{Labels, Source};
use super::{ImagesOf, Split};
use crate::error::{Error, Result};

const SIDE: usize = 96;
const RECORD: u64 = 3 * 96 * 96;
const CLASSES: usize = 10;
const ARCHIVE: (&str, &str) = ("stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb");
const FOLDER: &str = "stl10_binary";
/// The repository's revisions are known by name only; each file's content is checked against the hash the Hub gives it.
const REPOSITORY: Repository = Repository { repo: "jxie/stl10", kind: Kind::Dataset, revision: "main" };

/// Member, images, and MD5 when unpacked.
fn published(split: Split) -> (&'static str, usize, &'static str) {
    match split {
        Split::Train => ("train_X.bin", 5_000, "918c2871b30a85fa023e0c44e0bee87f"),
        Split::Test => ("test_X.bin", 8_000, "7f263ba9f9e0b06b93213547f721ac82"),
        _ => ("unlabeled_X.bin", 100_000, "5242ba1fed5e4be9e1e742405eb56ca4"),
    }
}

fn files_of(split: Split) -> String {
    format!("data/{split}-")
}

pub(super) fn fetch() -> Result<Vec<PathBuf>> {
    REPOSITORY.fetch(&[Split::Unlabeled, Split::Train, Split::Test].map(files_of))
}

/// Finds a split.
pub(super) fn locate(split: Split) -> Result<ImagesOf> {
    let names = [ARCHIVE.0, FOLDER, "train_X.bin", "unlabeled_X.bin"];
    let (found, looked) = found("stl10", &names, &names[..2]);
    let classes = (split != Split::Unlabeled).then_some(CLASSES);
    match found {
        Some(Found::Folder(folder)) => return split_in(&folder, split, classes),
        Some(Found::Named(path)) => {
            let single = path.extension().is_some_and(|e| e == "bin");
            let container = if single { path.parent().map(Path::to_path_buf).unwrap_or_default() } else { path };
            let images = member(&container, split);
            let mut files = vec![images.file()];
            if split != Split::Unlabeled && container.is_dir() {
                files.push(of_labels(&images).file());
            }
            return Ok(ImagesOf { files, open: Box::new(move || archive(&container, split)) });
        }
        None => {}
    }
    let files = REPOSITORY.cached(&files_of(split));
    if !files.is_empty() {
        let of = of_parquet(files.clone(), classes);
        return Ok(ImagesOf {
            open: Box::new(move || check_stored(&files).and_then(|()| (of.open)())),
            files: of.files,
        });
    }
    Err(Error::invalid(format!(
        "stl10 is not on this machine (looked in {looked} and the Hugging Face cache); run `pgn-bench fetch stl10`, or set \
         PGN_BENCH_DATA to a folder with stl10/{} or stl10/{FOLDER}",
        ARCHIVE.0
    )))
}

fn member(container: &Path, split: Split) -> Member {
    Member { container: container.to_path_buf(), name: published(split).0.to_owned() }
}

/// A split in the original archive, or in a folder it was unpacked to.
///
/// # Errors
/// When it has no such member, or one of another size.
pub fn archive(container: &Path, split: Split) -> Result<Box<dyn Source>> {
    Ok(Box::new(records(member(container, split), split)?))
}

fn records(member: Member, split: Split) -> Result<Records> {
    let size = member.open(|_, size| Ok(size))?;
    if size == 0 || !size.is_multiple_of(RECORD) {
        return Err(Error::invalid(format!(
            "{} has {size} bytes, not a multiple of {RECORD}: it is cut off or no part of STL-10",
            member.describe()
        )));
    }
    let (_, images, md5) = published(split);
    // A packed size is a claim that nothing has confirmed yet.
    let Some(len) = usize::try_from(size / RECORD).ok().filter(|&len| len <= images) else {
        return Err(Error::invalid(format!(
            "{} has {size} bytes, more than STL-10's {images} images",
            member.describe()
        )));
    };
    let md5 = if member.container.is_dir() { md5 } else { ARCHIVE.1 };
    check_published(&member.file(), len, (images, md5))?;
    let labels = if split == Split::Unlabeled { None } else { Some(labels(&member, len)?) };
    Ok(Records { member, side: SIDE, column_major: true, len, labels })
}

fn of_labels(images: &Member) -> Member {
    Member { name: images.name.replace("_X", "_y"), ..images.clone() }
}

/// The labels beside the images, 1 to 10.
fn labels(images: &Member, len: usize) -> Result<Labels> {
    let member = of_labels(images);
    let labels = member.bytes(len as u64)?;
    if labels.len() != len {
        return Err(Error::invalid(format!("{} has {} labels for {len} images", member.describe(), labels.len())));
    }
    match labels.iter().position(|l| !(1..=CLASSES as u8).contains(l)) {
        Some(at) => {
            Err(Error::invalid(format!("{}: label {at} is {}, not one of 1 to 10", member.describe(), labels[at])))
        }
        None => Ok(Labels { of: labels.into_iter().map(|l| u16::from(l - 1)).collect(), classes: CLASSES }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_packed_and_unpacked_column_by_column() {
        let root = std::env::temp_dir().join(format!("pgn-bench-stl10-{}", std::process::id()));
        let folder = root.join(FOLDER);
        std::fs::create_dir_all(&folder).unwrap();
        // Red is the row, green the column, blue the image.
        let images: Vec<u8> = (0..3u8)
            .flat_map(|n| (0..3).flat_map(move |c| (0..96u8).flat_map(move |x| (0..96).map(move |y| [y, x, n][c]))))
            .collect();
        std::fs::write(folder.join("train_X.bin"), &images).unwrap();
        std::fs::write(folder.join("train_y.bin"), [10, 1, 2]).unwrap();
        let packed = root.join(ARCHIVE.0);
        let gz = flate2::write::GzEncoder::new(std::fs::File::create(&packed).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gz);
        tar.append_dir_all(FOLDER, &folder).unwrap();
        tar.into_inner().unwrap().finish().unwrap();
        for container in [folder.clone(), packed.clone()] {
            let member = Member { container, name: "train_X.bin".to_owned() };
            let source = records(member, Split::Train).unwrap();
            let got: Vec<_> = source.batches(vec![0, 2], 2).flat_map(|b| b.unwrap()).collect();
            assert_eq!(source.labels().unwrap().unwrap().of, [9, 0, 1]);
            assert_eq!(got[1].pixels[(7 * 96 + 5) * 3..][..3], [7, 5, 2]);
        }
        let error = |name: &str| {
            let member = Member { container: folder.clone(), name: name.to_owned() };
            records(member, Split::Train).err().unwrap().to_string()
        };
        std::fs::write(folder.join("train_y.bin"), [10, 1, 0]).unwrap();
        assert!(error("train_X.bin").contains("label 2 is 0, not one of 1 to 10"));
        std::fs::write(folder.join("train_X.bin"), &images[1..]).unwrap();
        assert!(error("train_X.bin").contains("not a multiple of 27648"));
        assert!(error("test_X.bin").contains("cannot open"));
        let whole = std::fs::read(&packed).unwrap();
        std::fs::write(&packed, &whole[..whole.len() / 2]).unwrap();
        let member = Member { container: packed, name: "train_X.bin".to_owned() };
        let cut =
            records(member, Split::Train).map(|s| s.batches(vec![0, 1, 2], 2).find_map(Result::err)).ok().flatten();
        assert!(cut.is_none_or(|e| e.to_string().contains("cannot be read to its end")));
        std::fs::remove_dir_all(root).unwrap();
    }
}
