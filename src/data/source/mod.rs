//! Where images come from: folders, archives, arrays, Parquet files, LMDB environments. They are decoded in order, a batch at a
//! time, so memory does not grow with their number. One reader opens them for whoever asks, by rules that [`tree`] states.

mod ahead;
pub mod archive;
pub mod arrays;
mod decode;
pub mod folder;
mod jpeg;
pub mod lmdb;
mod order;
pub(crate) mod pages;
pub mod parquet;
mod room;
pub mod stream;
mod thrift;
pub mod tree;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use ahead::{ahead, records};
pub(crate) use decode::decode;
pub use order::Order;
pub(crate) use room::Room;

use super::{Images, Split, load, name_of};
use crate::error::{Error, Result};
use crate::files::refuse_pointer;
use tree::Holds;

/// What an image was before it was red, green and blue in eight bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// That.
    Rgb,
    /// Greyscale, with transparency or without.
    Grey,
    /// With transparency, which is dropped.
    Rgba,
    /// Inks.
    Cmyk,
    /// Of 16 bits, of which the upper eight are kept.
    Deep,
}

impl Mode {
    /// Name in what runs say of their data.
    pub fn id(self) -> &'static str {
        match self {
            Self::Rgb => "RGB",
            Self::Grey => "greyscale",
            Self::Rgba => "RGBA",
            Self::Cmyk => "CMYK",
            Self::Deep => "16-bit",
        }
    }
}

/// A decoded image.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// `[height, width, 3]`, red, green, blue.
    pub pixels: Vec<u8>,
    /// Height, width.
    pub size: [usize; 2],
    /// What it was before.
    pub mode: Mode,
}

impl Picture {
    /// Bytes `[height, width, 3]`.
    pub fn rgb(pixels: Vec<u8>, size: [usize; 2]) -> Self {
        Self { pixels, size, mode: Mode::Rgb }
    }
}

/// The images of one size in a buffer `[N, side, side, 3]`.
pub fn pictures(pixels: &[u8], side: usize) -> Vec<Picture> {
    pixels.chunks_exact(side * side * 3).map(|p| Picture::rgb(p.to_vec(), [side; 2])).collect()
}

/// Classes of images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    /// That of each image.
    pub of: Vec<u16>,
    /// Their number.
    pub classes: usize,
}

impl Labels {
    /// Most classes.
    pub const MOST: usize = 1 << 16;

    /// Classes as numbers below `classes`; `bad` makes an error of a fault.
    ///
    /// # Errors
    /// When there are too many classes, or a number is none of them.
    pub fn new(of: impl IntoIterator<Item = u64>, classes: usize, bad: &dyn Fn(String) -> Error) -> Result<Self> {
        if classes > Self::MOST {
            return Err(bad(format!("has {classes} classes, more than {}", Self::MOST)));
        }
        let number = |(i, label): (usize, u64)| {
            let fits = u16::try_from(label).ok().filter(|&l| usize::from(l) < classes);
            fits.ok_or_else(|| bad(format!("image {i}: the label {label} is not one of 0 to {}", classes.max(1) - 1)))
        };
        Ok(Self { of: of.into_iter().enumerate().map(number).collect::<Result<_>>()?, classes })
    }
}

/// Batches in order; the first error ends them.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<Vec<Picture>>> + Send + 'a>;

/// A collection of images.
pub trait Source: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The class of each image; none where images have no classes. Who does not use them does not ask.
    ///
    /// # Errors
    /// When they cannot be read, or are no classes.
    fn labels(&self) -> Result<Option<Labels>>;
    /// What image `index` is called in messages.
    fn describe(&self, index: usize) -> String;
    /// The files that hold the images.
    fn files(&self) -> Vec<PathBuf>;
    /// The images of these indices, which ascend, at most `size` at a time.
    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_>;
}

/// The indices of all images.
pub fn all(source: &dyn Source) -> Vec<usize> {
    (0..source.len()).collect()
}

/// Calls `read` with `size` of the indices at a time.
pub(super) fn in_chunks<'a>(
    indices: Vec<usize>,
    size: usize,
    mut read: impl FnMut(&[usize]) -> Result<Vec<Picture>> + Send + 'a,
) -> Batches<'a> {
    let size = size.max(1);
    let firsts = (0..indices.len()).step_by(size);
    Box::new(firsts.map(move |first| read(&indices[first..indices.len().min(first + size)])))
}

impl Source for Images {
    fn len(&self) -> usize {
        self.len()
    }

    fn labels(&self) -> Result<Option<Labels>> {
        Ok(Some(Labels { of: self.labels.clone(), classes: self.classes }))
    }

    fn describe(&self, index: usize) -> String {
        format!("image {index} of {}", self.name)
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_> {
        in_chunks(indices, size, |chunk| {
            Ok(chunk.iter().map(|&i| Picture::rgb(self.image(i).to_vec(), [self.side; 2])).collect())
        })
    }
}

/// What a name on the command line stands for.
pub enum Named {
    /// A split of a known data set, decoded.
    Split(Arc<Images>),
    /// Images elsewhere.
    Elsewhere(Box<dyn Source>),
}

impl Named {
    /// The images, whichever they are.
    pub fn source(&self) -> &dyn Source {
        match self {
            Self::Split(images) => images.as_ref(),
            Self::Elsewhere(source) => source.as_ref(),
        }
    }
}

/// Opens what a name stands for: a path ([`elsewhere`]); a path with a split after it, such as `faces:validation`; or a split of a
/// data set, such as `cifar10:train` or `stl10:unlabeled@48` (after the `@`, the size in pixels). `progress` hears of the images
/// decoded into the cache.
///
/// # Errors
/// When there is none of these, or it holds no image.
pub fn open(name: &OsStr, progress: &mut dyn FnMut(usize, usize)) -> Result<Named> {
    let text = name.to_string_lossy();
    if let Some((id, split)) = text.split_once(':').filter(|(id, _)| super::IDS.contains(id)) {
        let (split, side) = match split.split_once('@') {
            Some((split, side)) => (split, side.parse().ok().filter(|s| (8..=1024).contains(s))),
            None => (split, Some(super::native_side(id))),
        };
        let Some(side) = side else {
            return Err(Error::invalid(format!("{text}: the size after `@` is a whole number from 8 to 1024")));
        };
        let dataset = super::Dataset::Known(id.to_owned());
        return Ok(Named::Split(load(&dataset, Split::parse(split)?, side, progress)?));
    }
    let path = Path::new(name);
    if !path.exists()
        && let Some((of, split)) = text.rsplit_once(':')
        && Path::new(of).exists()
    {
        return part(Path::new(of), Split::parse(split)?).map(Named::Elsewhere);
    }
    elsewhere(path).map(Named::Elsewhere)
}

/// Opens all images of a folder, an archive, a Parquet file, an array or an LMDB environment.
///
/// # Errors
/// When it is none of these, or holds no image.
pub fn elsewhere(path: &Path) -> Result<Box<dyn Source>> {
    part(path, Split::All)
}

/// Opens the images of a split: those in the folder or files of its name, where there are some; else all are the training split.
///
/// # Errors
/// As for [`elsewhere`], and when there is no such split.
pub fn part(path: &Path, split: Split) -> Result<Box<dyn Source>> {
    if path.is_dir() && !path.join(lmdb::FILE).is_file() {
        return held(path, folder::listed(path)?.holds(path)?, split);
    }
    if !path.exists() {
        return Err(Error::invalid(format!(
            "{}: there is no such file or folder, and it is no data set with split such as cifar10:train (known: {}); an \
             experiment names a split as `split: test`",
            name_of(path),
            super::IDS.join(", ")
        )));
    }
    if path.is_file() {
        refuse_pointer(path)?;
    }
    let kind = tree::extension(path);
    if kind == "zip" {
        return Ok(Box::new(archive::Zip::open(path, split)?));
    }
    if ![Split::All, Split::Train].contains(&split) {
        return Err(Error::content(path, format!("has no {split} split: it is one file")));
    }
    match kind.as_str() {
        _ if path.is_dir() => Ok(Box::new(lmdb::Lmdb::open(path)?)),
        "parquet" => Ok(Box::new(parquet::Parquet::open(vec![path.to_path_buf()], None)?)),
        "npz" | "npy" => Ok(Box::new(arrays::Arrays::open(path)?)),
        "tar" | "tgz" | "gz" | "bz2" | "xz" | "zst" => Err(Error::content(
            path,
            "a tar archive is read from standard input, unpacked: give - in its place, and `< FILE.tar`, or `gzip -dc FILE |` before",
        )),
        _ => Err(Error::content(
            path,
            "neither a folder of images, nor a zip archive, a Parquet file, an npz of images or an LMDB environment",
        )),
    }
}

/// Opens the images of a split of a folder that holds these.
///
/// # Errors
/// As for [`part`].
pub(super) fn held(folder: &Path, holds: Holds, split: Split) -> Result<Box<dyn Source>> {
    Ok(match holds {
        Holds::Images(images) => {
            let (below, images) = tree::images_of(folder, images, split)?;
            Box::new(folder::Folder::new(folder.to_path_buf(), below, images))
        }
        Holds::Tables(tables) => {
            let tables = tree::part(folder, tables, split)?;
            Box::new(parquet::Parquet::open(tables.iter().map(|t| folder.join(t)).collect(), None)?)
        }
        Holds::Environments(folders) => match tree::part(folder, folders, split)?.as_slice() {
            [one] => Box::new(lmdb::Lmdb::open(&folder.join(one))?),
            several => {
                let names: Vec<String> = several.iter().map(|p| name_of(p)).collect();
                let several = format!("holds the LMDB environments {}: name the one", names.join(", "));
                return Err(Error::content(folder, several));
            }
        },
    })
}
