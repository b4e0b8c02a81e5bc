//! Parquet files as the Hugging Face Hub lays out images: a column `img` or `image`, struct of `bytes` (an encoded image) and
//! `path`; optionally a column `label` of whole numbers.

use std::fs::File;
use std::path::{Path, PathBuf};

use polars_core::prelude::*;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use rayon::prelude::*;

use super::{Batches, Labelled, Room, Source, decode, pages};
use crate::data::name_of;
use crate::error::{AtPath, Error, Result};
use crate::guard::caught;

const IMAGES: [&str; 2] = ["img", "image"];
const LABELS: &str = "label";

/// One file after the other.
pub struct Parquet {
    files: Vec<(PathBuf, usize)>,
    columns: Vec<String>,
    classes: usize,
}

fn reader(path: &Path) -> Result<ParquetReader<File>> {
    Ok(ParquetReader::new(File::open(path).at("open", path)?))
}

fn check(path: &Path) -> Result<()> {
    let wanted = |column: &str| IMAGES.contains(&column) || column == LABELS;
    pages::check(&File::open(path).at("open", path)?, wanted)
        .map_err(|e| Error::content(path, format!("not a readable Parquet file: {e}")))
}

/// What a library call makes of a file; it may also panic on a damaged one.
fn of<T>(path: &Path, call: impl FnOnce() -> PolarsResult<T>) -> Result<T> {
    let made = caught(call).and_then(|made| made.map_err(|e| e.to_string()));
    made.map_err(|e| Error::content(path, format!("not a readable Parquet file: {e}")))
}

impl Parquet {
    /// Opens files of one layout. `classes`: how many there are, where images have labels that are wanted.
    ///
    /// # Errors
    /// When one cannot be read, holds no image, or lacks a column.
    pub fn open(paths: Vec<PathBuf>, classes: Option<usize>) -> Result<Self> {
        let (mut files, mut columns) = (Vec::new(), Vec::new());
        for path in paths {
            check(&path)?;
            let mut reader = reader(&path)?;
            let (rows, schema) = of(&path, || Ok((reader.num_rows()?, reader.schema()?)))?;
            let names = || schema.iter_names().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
            let Some(column) = IMAGES.into_iter().find(|c| schema.contains(c)) else {
                return Err(Error::content(&path, format!("has no column `img` or `image`, only {}", names())));
            };
            columns = vec![column.to_owned()];
            if classes.is_some() {
                if !schema.contains(LABELS) {
                    return Err(Error::content(&path, format!("has no column `{LABELS}`, only {}", names())));
                }
                columns.push(LABELS.to_owned());
            }
            files.push((path, rows));
        }
        match files.first() {
            Some((path, _)) if files.iter().all(|(_, rows)| *rows == 0) => Err(Error::content(path, "holds no image")),
            Some(_) => Ok(Self { files, columns, classes: classes.unwrap_or(1) }),
            None => Err(Error::invalid("no Parquet file is named")),
        }
    }

    /// Opens one file, with its labels if it has any.
    ///
    /// # Errors
    /// As for [`Parquet::open`], and when the labels are no whole numbers below 256.
    pub fn with_labels_if_any(path: &Path) -> Result<Self> {
        check(path)?;
        let mut opened = reader(path)?;
        let schema = of(path, || opened.schema())?;
        if schema.get(LABELS).is_none_or(|field| !matches!(field.dtype(), ArrowDataType::Int64)) {
            return Self::open(vec![path.to_path_buf()], None);
        }
        let opened = opened.with_columns(Some(vec![LABELS.to_owned()]));
        let labels = of(path, || opened.finish()?.column(LABELS)?.i64().cloned())?;
        let most = labels.iter().flatten().max().and_then(|l| u8::try_from(l).ok());
        let most = most.ok_or_else(|| Error::content(path, format!("column `{LABELS}`: labels are from 0 to 255")))?;
        Self::open(vec![path.to_path_buf()], Some(usize::from(most) + 1))
    }

    /// Rows `first..first + n` of a file.
    fn rows(&self, path: &Path, first: usize, n: usize) -> Result<Vec<Labelled>> {
        let opened = reader(path)?.with_columns(Some(self.columns.clone())).with_slice(Some((first, n)));
        let (encoded, labels) = of(path, || {
            let table = opened.finish()?;
            let encoded = table.column(&self.columns[0])?.struct_()?.field_by_name("bytes")?.binary()?.clone();
            let labels = self.columns.get(1).map(|column| table.column(column)?.i64().cloned()).transpose()?;
            Ok((encoded, labels))
        })?;
        let encoded: Vec<Option<&[u8]>> = encoded.iter().collect();
        let labels: Vec<Option<i64>> = match &labels {
            Some(labels) => labels.iter().collect(),
            None => vec![Some(0); encoded.len()],
        };
        let room = Room::default();
        encoded
            .par_iter()
            .zip(&labels)
            .enumerate()
            .map(|(k, (encoded, label))| {
                let fault = |m: String| Error::content(path, format!("row {}: {m}", first + k));
                let label = label.and_then(|l| u8::try_from(l).ok()).filter(|&l| usize::from(l) < self.classes);
                let most = self.classes - 1;
                let label = label.ok_or_else(|| fault(format!("the label is not one of 0 to {most}")))?;
                Ok((decode(encoded.ok_or_else(|| fault("no image".to_owned()))?, &room, &fault)?, label))
            })
            .collect()
    }
}

impl Source for Parquet {
    fn len(&self) -> usize {
        self.files.iter().map(|(_, rows)| rows).sum()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn describe(&self, mut index: usize) -> String {
        for (path, rows) in &self.files {
            if index < *rows {
                return format!("{}: row {index}", name_of(path));
            }
            index -= rows;
        }
        String::new()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }

    fn batches(&self, size: usize) -> Batches<'_> {
        let ranges = self.files.iter().flat_map(move |(path, rows)| {
            (0..*rows).step_by(size.max(1)).map(move |first| (path, first, size.min(rows - first)))
        });
        Box::new(ranges.map(|(path, first, n)| self.rows(path, first, n)))
    }
}
