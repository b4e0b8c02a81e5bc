//! A zip archive of image files, as StyleGAN's tools pack data sets (`dataset.zip`).

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use zip::ZipArchive;

use super::decode::decode;
use super::room::Room;
use super::tree::{self, Holds, Tree};
use super::{Batches, Labels, Source, in_chunks};
use crate::data::{Split, name_of};
use crate::error::{AtPath, Error, Result};

/// Most bytes of a packed file.
const LONGEST: u64 = 1 << 28;
/// Most bytes of the record at the end of an archive, with its comment.
const END: u64 = 22 + u16::MAX as u64;

/// Images of an archive, in order.
pub struct Zip {
    path: PathBuf,
    archive: Mutex<ZipArchive<BufReader<File>>>,
    /// Folder that the images are below.
    root: PathBuf,
    images: Vec<PathBuf>,
}

/// How many files the end of an archive says that there are, unless they are so many that it says so elsewhere.
fn listed(path: &Path) -> Result<Option<usize>> {
    let mut file = File::open(path).at("open", path)?;
    let length = file.metadata().at("read", path)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(END))).at("read", path)?;
    let mut end = Vec::new();
    file.take(END).read_to_end(&mut end).at("read", path)?;
    let record = end.windows(12).rev().find(|w| w.starts_with(b"PK\x05\x06"));
    Ok(record.map(|w| usize::from(u16::from_le_bytes([w[10], w[11]]))).filter(|&n| n < usize::from(u16::MAX)))
}

fn bad(path: &Path) -> impl Fn(String) -> Error {
    move |what| Error::content(path, format!("not a readable zip archive: {what}"))
}

impl Zip {
    /// Lists the images of a split.
    ///
    /// # Errors
    /// When the archive cannot be read, or holds no image, or anything else that is read.
    pub fn open(path: &Path, split: Split) -> Result<Self> {
        let file = BufReader::new(File::open(path).at("open", path)?);
        let mut archive = ZipArchive::new(file).map_err(|e| bad(path)(e.to_string()))?;
        let names = archive.file_names().map(|name| name.map(|name| name.into_owned())).collect::<Result<Vec<_>, _>>();
        let names = names.map_err(|e| bad(path)(e.to_string()))?;
        // The library keeps one of those that share a name.
        if let Some(listed) = listed(path)?.filter(|&listed| listed > names.len()) {
            let twice = format!("{} of its {listed} files have the names of others", listed - names.len());
            return Err(Error::content(path, format!("{twice}: pack it anew")));
        }
        let mut tree = Tree::default();
        for name in names.iter().filter(|name| !name.ends_with('/')) {
            tree.add(PathBuf::from(name), || archive.by_name(name).is_ok_and(tree::begins_image));
        }
        let Holds::Images(images) = tree.holds(path)? else {
            return Err(Error::content(path, "holds no image files: only those are read from an archive"));
        };
        let (root, images) = tree::images_of(path, images, split)?;
        Ok(Self { path: path.to_path_buf(), archive: Mutex::new(archive), root, images })
    }

    /// The bytes of a packed file; none if it is not there.
    fn read(&self, name: &Path) -> Result<Option<Vec<u8>>> {
        let bad = |what: String| bad(&self.path)(format!("{}: {what}", name_of(name)));
        // Names come from the archive, so they are text.
        let text = name.to_str().unwrap_or_default();
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = archive.index_for_name(text) else { return Ok(None) };
        let packed =
            archive.by_index(index).map_err(|e| bad(format!("{e}; pack it anew, by deflate and without password")))?;
        if packed.size() > LONGEST {
            return Err(bad(format!("has {} bytes, more than {LONGEST}", packed.size())));
        }
        let (size, mut bytes) = (packed.size(), Vec::new());
        // What it unpacks to is not believed either.
        packed.take(size + 1).read_to_end(&mut bytes).map_err(|e| bad(e.to_string()))?;
        if bytes.len() as u64 != size {
            return Err(bad(format!("does not have the {size} bytes that it says")));
        }
        Ok(Some(bytes))
    }
}

impl Source for Zip {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn labels(&self) -> Result<Option<Labels>> {
        for (place, below) in tree::places_of_labels(&self.root) {
            if let Some(json) = self.read(&place)? {
                return tree::stated(&self.path.join(&place), &json, below, &self.images);
            }
        }
        tree::classes(&self.path.join(&self.root), &self.images)
    }

    fn describe(&self, index: usize) -> String {
        let image = self.images.get(index).map(|image| name_of(&self.root.join(image)));
        format!("{} in {}", image.unwrap_or_default(), name_of(&self.path))
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_> {
        in_chunks(indices, size, |chunk| {
            let bytes = chunk.iter().map(|&i| Ok((i, self.read(&self.root.join(&self.images[i]))?)));
            let room = Room::default();
            let decoded = bytes.collect::<Result<Vec<_>>>()?.into_par_iter().map(|(i, bytes)| {
                let fault = |m: String| Error::invalid(format!("{}: {m}", self.describe(i)));
                decode(&bytes.ok_or_else(|| fault("is gone".to_owned()))?, &room, &fault)
            });
            decoded.collect()
        })
    }
}
