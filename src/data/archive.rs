//! Members of the original archives of data sets, read as streams and never unpacked to disk; and fixed-size records of
//! planar pixels, which is what they hold.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use md5::Md5;

use super::source::{Batches, Labels, Picture, Source, ahead, records};
use crate::error::{AtPath, Error, Result};
use crate::files::file_digest;

/// A file inside an archive or a folder that was unpacked from one.
#[derive(Clone, Debug)]
pub struct Member {
    /// A `.tar.gz` file, or a folder.
    pub container: PathBuf,
    /// Name, without the path before it.
    pub name: String,
}

impl Member {
    /// What it is called in messages.
    pub fn describe(&self) -> String {
        format!("{} in {}", self.name, self.container.display())
    }

    /// The files that hold it.
    pub fn file(&self) -> PathBuf {
        if self.container.is_dir() { self.container.join(&self.name) } else { self.container.clone() }
    }

    /// Shows `read` the member's bytes and their number.
    ///
    /// # Errors
    /// When the archive cannot be read or has no such member, or `read` fails.
    pub fn open<T>(&self, read: impl FnOnce(&mut dyn Read, u64) -> Result<T>) -> Result<T> {
        if self.container.is_dir() {
            let path = self.file();
            let mut file = File::open(&path).at("open", &path)?;
            let len = file.metadata().at("read", &path)?.len();
            return read(&mut BufReader::new(&mut file), len);
        }
        let path = &self.container;
        let bad = |e: std::io::Error| Error::content(path, format!("not a readable .tar.gz archive: {e}"));
        let file = File::open(path).at("open", path)?;
        let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
        // Raw: names longer than a header's are of any length, and none is wanted.
        for entry in archive.entries().map_err(bad)?.raw(true) {
            let mut entry = entry.map_err(bad)?;
            let here = entry.header().entry_type().is_file()
                && entry.path().map_err(bad)?.file_name().is_some_and(|n| n == self.name.as_str());
            if here {
                let size = entry.size();
                return read(&mut entry, size);
            }
        }
        Err(Error::content(path, format!("has no member `{}`", self.name)))
    }

    /// The whole member, which may have `most` bytes.
    ///
    /// # Errors
    /// As for [`Member::open`], and when it is longer, or ends early.
    pub fn bytes(&self, most: u64) -> Result<Vec<u8>> {
        self.open(|read, size| {
            let too_long = || Error::invalid(format!("{} has {size} bytes, more than {most}", self.describe()));
            let size = usize::try_from(size).ok().filter(|_| size <= most).ok_or_else(too_long)?;
            let mut bytes = Vec::new();
            read.take(most).read_to_end(&mut bytes).map_err(|e| cut(self, &e))?;
            if bytes.len() != size {
                return Err(Error::invalid(format!("{} ends after {} of {size} bytes", self.describe(), bytes.len())));
            }
            Ok(bytes)
        })
    }
}

fn cut(member: &Member, e: &std::io::Error) -> Error {
    Error::invalid(format!("{} cannot be read to its end: {e}", member.describe()))
}

/// A whole published set must have the published checksum; any other number of images is somebody's own selection.
///
/// # Errors
/// When the number of images is the published one and the checksum is not.
pub fn check_published(path: &Path, images: usize, published: (usize, &str)) -> Result<()> {
    if images != published.0 {
        return Ok(());
    }
    let found = file_digest::<Md5>(path)?;
    if found == published.1 {
        return Ok(());
    }
    Err(Error::content(
        path,
        format!("damaged: its MD5 is {found}, the published one {}; download it again", published.1),
    ))
}

/// Images of one member, each three planes of `side`×`side` bytes.
pub struct Records {
    /// Where they are.
    pub member: Member,
    /// Side in pixels.
    pub side: usize,
    /// Whether planes are stored column by column.
    pub column_major: bool,
    /// Number of images.
    pub len: usize,
    /// Their classes, if they have some.
    pub labels: Option<Labels>,
}

/// Planes of red, green, blue as `[side, side, 3]`.
pub fn interleave(planes: &[u8], side: usize, column_major: bool) -> Picture {
    let area = side * side;
    let mut pixels = Vec::with_capacity(3 * area);
    for at in 0..area {
        let at = if column_major { at % side * side + at / side } else { at };
        pixels.extend([planes[at], planes[area + at], planes[2 * area + at]]);
    }
    Picture::rgb(pixels, [side; 2])
}

impl Source for Records {
    fn len(&self) -> usize {
        self.len
    }

    fn labels(&self) -> Result<Option<Labels>> {
        Ok(self.labels.clone())
    }

    fn describe(&self, index: usize) -> String {
        format!("image {index} of {}", self.member.describe())
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.member.file()]
    }

    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_> {
        let (member, side, column_major) = (self.member.clone(), self.side, self.column_major);
        // Decompression runs ahead of whoever resizes.
        ahead(move |give| {
            member.open(|read, _| {
                let mut record = vec![0; side * side * 3];
                records(&indices, size, give, |wanted| {
                    read.read_exact(&mut record).map_err(|e| cut(&member, &e))?;
                    Ok(wanted.then(|| interleave(&record, side, column_major)))
                })
            })
        })
    }
}
