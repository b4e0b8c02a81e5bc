//! Where images to measure come from: a folder of image files, a Parquet file with encoded images, or a data set id with a
//! split. Images are decoded as they are asked for, so memory does not grow with their number.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polars_core::prelude::*;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use rayon::prelude::*;

use super::{IDS, Images, Split, load};
use crate::error::{AtPath, Error, Result};
use crate::files::sha256;

const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// A decoded image.
#[derive(Clone, Debug)]
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

/// A collection of images.
pub enum Source {
    /// Files, in order of name.
    Folder(Vec<PathBuf>),
    /// Encoded images of a Parquet file.
    Parquet {
        /// The file.
        path: PathBuf,
        /// The encoded images.
        encoded: BinaryChunked,
    },
    /// A split of a known data set.
    Known(Arc<Images>),
}

impl Source {
    /// Opens a folder, a Parquet file, or a data set such as `cifar10:train`, `shapes:test` (32×32 pixels).
    ///
    /// # Errors
    /// When there is none of these, or it holds no image.
    pub fn open(name: &str) -> Result<Self> {
        if let Some((id, split)) = name.split_once(':').filter(|(id, _)| IDS.contains(id)) {
            let split = match split {
                "train" => Split::Train,
                "test" => Split::Test,
                other => return Err(Error::invalid(format!("{name}: unknown split `{other}`; known: train, test"))),
            };
            return Ok(Self::Known(load(id, split, 32)?));
        }
        let path = Path::new(name);
        if path.is_dir() {
            return Self::folder(path);
        }
        if path.extension().is_some_and(|e| e == "parquet") {
            return Self::parquet(path);
        }
        let known: Vec<String> = IDS.iter().map(|id| format!("{id}:train")).collect();
        Err(Error::invalid(format!(
            "{name}: neither a folder of images, nor a Parquet file, nor a data set with split such as {}",
            known.join(", ")
        )))
    }

    fn folder(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).at("read", folder)? {
            let path = entry.at("read", folder)?.path();
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
            if EXTENSIONS.contains(&extension.as_str()) {
                files.push(path);
            }
        }
        if files.is_empty() {
            return Err(Error::content(folder, format!("holds no image ({})", EXTENSIONS.join(", "))));
        }
        files.sort();
        Ok(Self::Folder(files))
    }

    fn parquet(path: &Path) -> Result<Self> {
        let bad = |e: PolarsError| Error::content(path, format!("not a readable Parquet file: {e}"));
        let mut reader = ParquetReader::new(File::open(path).at("open", path)?);
        let schema = reader.schema().map_err(bad)?;
        let Some(column) = ["img", "image"].into_iter().find(|c| schema.contains(c)) else {
            let names: Vec<&str> = schema.iter_names().map(|n| n.as_str()).collect();
            return Err(Error::content(path, format!("has no column `img` or `image`, only {}", names.join(", "))));
        };
        let table = reader.with_columns(Some(vec![column.to_owned()])).finish().map_err(bad)?;
        let encoded = table.column(column).and_then(|c| c.struct_()?.field_by_name("bytes")).map_err(bad)?;
        let encoded = encoded.binary().map_err(bad)?.clone();
        if encoded.is_empty() {
            return Err(Error::content(path, "holds no image"));
        }
        Ok(Self::Parquet { path: path.to_path_buf(), encoded })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        match self {
            Self::Folder(files) => files.len(),
            Self::Parquet { encoded, .. } => encoded.len(),
            Self::Known(images) => images.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decodes images `first..first + n`.
    ///
    /// # Errors
    /// When one cannot be read or decoded; the message names it.
    pub fn read(&self, first: usize, n: usize) -> Result<Vec<Picture>> {
        let decode = |bytes: &[u8], what: &dyn Fn(String) -> Error| {
            let image = image::load_from_memory(bytes).map_err(|e| what(format!("image cannot be decoded: {e}")))?;
            let size = [image.height() as usize, image.width() as usize];
            Ok(Picture { pixels: image.into_rgb8().into_raw(), size })
        };
        let range = first..(first + n).min(self.len());
        match self {
            Self::Folder(files) => files[range]
                .par_iter()
                .map(|path| decode(&std::fs::read(path).at("read", path)?, &|m| Error::content(path, m)))
                .collect(),
            Self::Parquet { path, encoded } => range
                .into_par_iter()
                .map(|row| {
                    let fault = |m: String| Error::content(path, format!("row {row}: {m}"));
                    decode(encoded.get(row).ok_or_else(|| fault("no image".to_owned()))?, &fault)
                })
                .collect(),
            Self::Known(images) => {
                let size = [images.side; 2];
                Ok(range.map(|i| Picture { pixels: images.image(i).to_vec(), size }).collect())
            }
        }
    }

    /// SHA-256 over what the images are: their encoded bytes, or the pixels of a known data set.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hashes = String::new();
        match self {
            Self::Folder(files) => {
                for path in files {
                    hashes.push_str(&sha256(&std::fs::read(path).at("read", path)?));
                }
            }
            Self::Parquet { encoded, .. } => {
                for bytes in encoded.iter().flatten() {
                    hashes.push_str(&sha256(bytes));
                }
            }
            Self::Known(images) => return Ok(images.fingerprint()),
        }
        Ok(sha256(hashes.as_bytes()))
    }
}
