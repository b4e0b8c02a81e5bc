//! CIFAR-10 (Krizhevsky 2009) in the Parquet layout of the Hugging Face Hub: `img: struct<bytes, path>` with an encoded
//! image, `label: int64`.

use std::fs::File;
use std::path::{Path, PathBuf};

use polars_core::prelude::*;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use rayon::prelude::*;

use super::hub::{Kind, Pinned};
use super::{Images, Split};
use crate::error::{AtPath, Error, Result};

const SIDE: usize = 32;
const CLASSES: usize = 10;

fn pinned(split: Split) -> Pinned {
    let (file, sha256) = match split {
        Split::Train => (
            "plain_text/train-00000-of-00001.parquet",
            "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883",
        ),
        Split::Test => (
            "plain_text/test-00000-of-00001.parquet",
            "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de",
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

/// Finds a split in `$PGN_BENCH_DATA/cifar10` or the Hub's cache.
pub(super) fn locate(split: Split) -> Result<PathBuf> {
    let name = format!("{split}-00000-of-00001.parquet");
    let mut looked = Vec::new();
    if let Some(folder) = std::env::var_os("PGN_BENCH_DATA") {
        let path = Path::new(&folder).join("cifar10").join(&name);
        if path.is_file() {
            return Ok(path);
        }
        looked.push(path.display().to_string());
    }
    if let Some(path) = pinned(split).cached() {
        return Ok(path);
    }
    looked.push("the Hugging Face cache".to_owned());
    Err(Error::invalid(format!(
        "cifar10 is not on this machine (looked in {}); run `pgn-bench fetch cifar10`, or set PGN_BENCH_DATA to a folder \
         with cifar10/{name}",
        looked.join(" and ")
    )))
}

pub(super) fn fetch(split: Split) -> Result<PathBuf> {
    pinned(split).fetch()
}

/// Reads and decodes one Parquet file.
pub(super) fn read(path: &Path, split: Split) -> Result<Images> {
    let bad = |e: PolarsError| Error::content(path, format!("not a readable Parquet file of CIFAR-10: {e}"));
    let file = File::open(path).at("open", path)?;
    let table = ParquetReader::new(file)
        .with_columns(Some(vec!["img".to_owned(), "label".to_owned()]))
        .finish()
        .map_err(bad)?;
    let encoded = table.column("img").and_then(|c| c.struct_()?.field_by_name("bytes")).map_err(bad)?;
    let encoded = encoded.binary().map_err(bad)?;
    let labels = table.column("label").and_then(|c| c.i64().cloned()).map_err(bad)?;
    let labels: Vec<u8> = labels
        .iter()
        .enumerate()
        .map(|(row, label)| match label.map(u8::try_from) {
            Some(Ok(l)) if usize::from(l) < CLASSES => Ok(l),
            _ => Err(Error::content(path, format!("row {row}: label {label:?} is not one of 0 to 9"))),
        })
        .collect::<Result<_>>()?;
    let encoded: Vec<Option<&[u8]>> = encoded.iter().collect();
    let mut pixels = vec![0; encoded.len() * SIDE * SIDE * 3];
    pixels.par_chunks_exact_mut(SIDE * SIDE * 3).zip(&encoded).enumerate().try_for_each(|(row, (out, bytes))| {
        let fault = |message: String| Error::content(path, format!("row {row}: {message}"));
        let bytes = bytes.ok_or_else(|| fault("no image".to_owned()))?;
        let image = image::load_from_memory(bytes).map_err(|e| fault(format!("image cannot be decoded: {e}")))?;
        if (image.width(), image.height()) != (SIDE as u32, SIDE as u32) {
            return Err(fault(format!("image has {}×{} pixels, expected 32×32", image.width(), image.height())));
        }
        out.copy_from_slice(&image.into_rgb8());
        Ok(())
    })?;
    Ok(Images { side: SIDE, pixels, labels, classes: CLASSES, name: format!("cifar10:{split}") })
}
