//! Where images come from: folders, Parquet files, LMDB environments, archives. They are decoded in order, a batch at a
//! time, so memory does not grow with their number.

pub mod folder;
mod jpeg;
pub mod lmdb;
pub(crate) mod pages;
pub mod parquet;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::{DynamicImage, ImageDecoder, ImageReader};

use super::{Images, Split, load, name_of};
use crate::error::{Error, Result};

/// A decoded image.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// `[height, width, 3]`, red, green, blue.
    pub pixels: Vec<u8>,
    /// Height, width.
    pub size: [usize; 2],
}

/// The images of one size in a buffer `[N, side, side, 3]`.
pub fn pictures(pixels: &[u8], side: usize) -> Vec<Picture> {
    pixels.chunks_exact(side * side * 3).map(|p| Picture { pixels: p.to_vec(), size: [side; 2] }).collect()
}

/// An image and its class.
pub type Labelled = (Picture, u8);

/// Batches in order; the first error ends them.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<Vec<Labelled>>> + Send + 'a>;

/// A collection of images.
pub trait Source: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Number of classes; one where images have no labels.
    fn classes(&self) -> usize;
    /// What image `index` is called in messages.
    fn describe(&self, index: usize) -> String;
    /// The files that hold the images.
    fn files(&self) -> Vec<PathBuf>;
    /// All images in order, `size` at a time.
    fn batches(&self, size: usize) -> Batches<'_>;
}

/// Most pixels of an image.
const LARGEST: usize = 1 << 26;
/// Most pixels of images that are in memory together.
const TOGETHER: usize = 1 << 30;

/// Room for images that are decoded together: a small file may claim many pixels.
#[derive(Default)]
pub(crate) struct Room(AtomicUsize);

impl Room {
    fn take(&self, width: usize, height: usize) -> Result<(), String> {
        let pixels = width.saturating_mul(height);
        if pixels > LARGEST {
            return Err(format!("it has {width}×{height} pixels, more than {LARGEST}"));
        }
        if self.0.fetch_add(pixels, Ordering::Relaxed) + pixels > TOGETHER {
            return Err(format!(
                "it has {width}×{height} pixels, and there is no room for so many as large: make them smaller"
            ));
        }
        Ok(())
    }
}

/// Decodes a PNG or JPEG.
pub(crate) fn decode(bytes: &[u8], room: &Room, what: &dyn Fn(String) -> Error) -> Result<Picture> {
    let decode = if bytes.starts_with(b"\xff\xd8") { jpeg::decode } else { decode_png };
    decode(bytes, room).map_err(|e| what(format!("image cannot be decoded: {e}")))
}

fn decode_png(bytes: &[u8], room: &Room) -> Result<Picture, String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions();
    let size = [height as usize, width as usize];
    room.take(size[1], size[0])?;
    let image = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    Ok(Picture { pixels: image.into_rgb8().into_raw(), size })
}

/// Calls `read` with each range of `size` indices below `len`.
pub(super) fn in_ranges<'a>(
    len: usize,
    size: usize,
    read: impl FnMut(std::ops::Range<usize>) -> Result<Vec<Labelled>> + Send + 'a,
) -> Batches<'a> {
    let ranges = (0..len).step_by(size.max(1)).map(move |first| first..(first + size).min(len));
    Box::new(ranges.map(read))
}

impl Source for Images {
    fn len(&self) -> usize {
        self.len()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn describe(&self, index: usize) -> String {
        format!("image {index} of {}", self.name)
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn batches(&self, size: usize) -> Batches<'_> {
        in_ranges(self.len(), size, move |range| {
            let picture = |i| Picture { pixels: self.image(i).to_vec(), size: [self.side; 2] };
            Ok(range.map(|i| (picture(i), self.labels[i])).collect())
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

/// Opens a folder, a Parquet file, an LMDB environment, or a split of a data set such as `cifar10:train` or
/// `stl10:unlabeled@48` (after the `@`, the size in pixels). `progress` hears of the images decoded into the cache.
///
/// # Errors
/// When there is none of these, or it holds no image.
pub fn open(name: &str, progress: &mut dyn FnMut(usize, usize)) -> Result<Named> {
    if let Some((id, split)) = name.split_once(':').filter(|(id, _)| super::IDS.contains(id)) {
        let (split, side) = match split.split_once('@') {
            Some((split, side)) => (split, side.parse().ok().filter(|s| (8..=1024).contains(s))),
            None => (split, Some(super::native_side(id))),
        };
        let Some(side) = side else {
            return Err(Error::invalid(format!("{name}: the size after `@` is a whole number from 8 to 1024")));
        };
        let dataset = super::Dataset::Known(id.to_owned());
        return Ok(Named::Split(load(&dataset, Split::parse(split)?, side, progress)?));
    }
    elsewhere(Path::new(name)).map(Named::Elsewhere)
}

/// Opens a folder, a Parquet file or an LMDB environment.
///
/// # Errors
/// When it is none of these, or holds no image.
pub fn elsewhere(path: &Path) -> Result<Box<dyn Source>> {
    if path.join(lmdb::FILE).is_file() {
        return Ok(Box::new(lmdb::Lmdb::open(path)?));
    }
    if path.is_dir() {
        return Ok(Box::new(folder::Folder::open(path)?));
    }
    if path.extension().is_some_and(|e| e == "parquet") {
        return Ok(Box::new(parquet::Parquet::with_labels_if_any(path)?));
    }
    if !path.exists() {
        return Err(Error::invalid(format!(
            "{}: there is no such file or folder, and it is no data set with split such as cifar10:train (known: {})",
            name_of(path),
            super::IDS.join(", ")
        )));
    }
    Err(Error::content(path, "neither a folder of images, nor a Parquet file, nor an LMDB environment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_are_large_alone_or_together_are_refused() {
        let room = Room::default();
        assert!(room.take(8192, 8193).unwrap_err().contains("8192×8193 pixels, more than"));
        assert!((0..16).all(|_| room.take(8192, 8192).is_ok()));
        assert!(room.take(1, 1).unwrap_err().contains("make them smaller"));
        assert!(Room::default().take(usize::MAX, 2).is_err());
    }
}
