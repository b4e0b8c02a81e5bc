//! Parquet files as the Hugging Face Hub and others lay out images: a column of encoded images (a struct of `bytes` and `path`, or
//! bytes alone) or of paths to image files; optionally a column of classes, as whole numbers or names.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use polars_core::prelude::*;
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use rayon::prelude::*;

use super::{Batches, Labels, Picture, Room, Source, decode, folder, pages};
use crate::data::name_of;
use crate::error::{AtPath, Error, Result};
use crate::guard::caught;

/// Usual names of the column of images, of which the first that can hold some is taken; else the only one that can, else the first of
/// texts, which are paths.
const IMAGES: [&str; 9] = ["img", "image", "images", "jpg", "jpeg", "png", "webp", "image_path", "file_name"];
/// Usual names of the column of classes.
const LABELS: [&str; 7] = ["label", "labels", "class", "class_id", "cls", "target", "fine_label"];
/// Fields of a struct.
const BYTES: &str = "bytes";
const PATH: &str = "path";

/// One file after the other.
pub struct Parquet {
    tables: Vec<Table>,
    /// The image that each table ends before.
    ends: Vec<usize>,
    /// How many classes there are, where that is known.
    classes: Option<usize>,
}

struct Table {
    path: PathBuf,
    rows: usize,
    /// Column of the images.
    images: String,
    /// Column of the classes.
    labels: Option<String>,
    /// Where the images are, if the table only says that.
    linked: Option<Vec<PathBuf>>,
}

/// What a library call makes of a file; it may also panic on a damaged one.
fn of<T>(path: &Path, call: impl FnOnce() -> PolarsResult<T>) -> Result<T> {
    let made = caught(call).and_then(|made| made.map_err(|e| e.to_string()));
    made.map_err(|e| Error::content(path, format!("not a readable Parquet file: {e}")))
}

fn check(path: &Path, column: &str) -> Result<()> {
    pages::check(&File::open(path).at("open", path)?, |name| name == column)
        .map_err(|e| Error::content(path, format!("not a readable Parquet file: {e}")))
}

fn reader(path: &Path) -> Result<ParquetReader<File>> {
    Ok(ParquetReader::new(File::open(path).at("open", path)?))
}

/// A column of a file, some rows of it.
fn column(path: &Path, name: &str, rows: Option<[usize; 2]>) -> Result<Column> {
    let opened = reader(path)?.with_columns(Some(vec![name.to_owned()])).with_slice(rows.map(|[at, n]| (at, n)));
    of(path, || opened.finish()?.column(name).cloned())
}

fn is_binary(of: &ArrowDataType) -> bool {
    matches!(of, ArrowDataType::Binary | ArrowDataType::LargeBinary | ArrowDataType::BinaryView)
}

fn is_text(of: &ArrowDataType) -> bool {
    matches!(of, ArrowDataType::Utf8 | ArrowDataType::LargeUtf8 | ArrowDataType::Utf8View)
}

/// Whether a column of this type can hold images; one of paths can only be told by its name.
fn holds_images(of: &ArrowDataType) -> bool {
    let is_field = |f: &ArrowField| f.name == BYTES && is_binary(&f.dtype) || f.name == PATH && is_text(&f.dtype);
    is_binary(of) || matches!(of, ArrowDataType::Struct(fields) if fields.iter().any(is_field))
}

fn image_column(path: &Path, schema: &ArrowSchema) -> Result<String> {
    let usual = |able: fn(&ArrowDataType) -> bool| {
        IMAGES.iter().find(|name| schema.get(name).is_some_and(|f| able(&f.dtype))).map(|name| (*name).to_owned())
    };
    if let Some(name) = usual(holds_images) {
        return Ok(name);
    }
    let able: Vec<&str> = schema.iter_values().filter(|f| holds_images(&f.dtype)).map(|f| f.name.as_str()).collect();
    match (able.as_slice(), usual(is_text)) {
        ([one], _) => Ok((*one).to_owned()),
        ([], Some(name)) => Ok(name),
        ([], None) => {
            let names: Vec<String> = schema.iter_values().map(|f| format!("{} ({:?})", f.name, f.dtype)).collect();
            let names = names.join(", ");
            Err(Error::content(path, format!("has no column of images, such as `img` or `image`, only {names}")))
        }
        (several, _) => {
            let which = several.join(", ");
            Err(Error::content(
                path,
                format!("columns {which} may all hold images: rename the one that is meant `image`"),
            ))
        }
    }
}

/// The bytes and the path of each row of a column of images, as far as it has them.
fn fields(of: &Column) -> PolarsResult<[Option<Column>; 2]> {
    Ok(match of.dtype() {
        DataType::Binary => [Some(of.clone()), None],
        DataType::String => [None, Some(of.clone())],
        _ => {
            let of = of.struct_()?;
            [BYTES, PATH].map(|field| of.field_by_name(field).ok().map(Column::from))
        }
    })
}

impl Table {
    fn open(path: PathBuf) -> Result<Self> {
        // The footer comes first: nothing of a damaged one is believed.
        check(&path, "")?;
        let mut opened = reader(&path)?;
        let (rows, schema) = of(&path, || Ok((opened.num_rows()?, opened.schema()?)))?;
        let images = image_column(&path, &schema)?;
        check(&path, &images)?;
        let labels = LABELS.iter().find(|name| schema.contains(name)).map(|name| (*name).to_owned());
        Ok(Self { path, rows, images, labels, linked: None })
    }

    /// Whether the first image is in the table itself.
    fn has_bytes(&self) -> Result<bool> {
        let first = column(&self.path, &self.images, Some([0, 1]))?;
        of(&self.path, || Ok(matches!(&fields(&first)?[0], Some(bytes) if bytes.null_count() == 0)))
    }

    /// Paths are below the table's folder, unless they are absolute.
    fn links(&self) -> Result<Vec<PathBuf>> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let all = column(&self.path, &self.images, None)?;
        let paths = of(&self.path, || fields(&all)?[1].as_ref().map(|p| p.str().cloned()).transpose())?;
        let Some(paths) = paths else { return Err(self.fault(0, "no image")) };
        let link = |(row, path): (usize, Option<&str>)| {
            path.map(|p| folder.join(p)).ok_or_else(|| self.fault(row, "neither an image nor a path to one"))
        };
        paths.iter().enumerate().map(link).collect()
    }

    fn fault(&self, row: usize, what: impl AsRef<str>) -> Error {
        Error::content(&self.path, format!("row {row}: {}", what.as_ref()))
    }

    /// The images of these rows, which ascend.
    fn read(&self, rows: &[usize]) -> Result<Vec<Picture>> {
        let room = Room::default();
        if let Some(linked) = &self.linked {
            let one = |&row: &usize| {
                let path = &linked[row];
                let read = folder::read(path).map_err(|e| self.fault(row, e.to_string()))?;
                decode(&read, &room, &|m| Error::content(path, m))
            };
            return rows.par_iter().map(one).collect();
        }
        let (Some(&first), Some(&last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
        let part = column(&self.path, &self.images, Some([first, last - first + 1]))?;
        let bytes = of(&self.path, || fields(&part)?[0].as_ref().map(|b| b.binary().cloned()).transpose())?;
        let Some(bytes) = bytes else { return Err(self.fault(first, "no image")) };
        let encoded: Vec<Option<&[u8]>> = bytes.iter().collect();
        let one = |&row: &usize| {
            let encoded = encoded.get(row - first).copied().flatten().ok_or_else(|| self.fault(row, "no image"))?;
            decode(encoded, &room, &|m| self.fault(row, m))
        };
        rows.par_iter().map(one).collect()
    }

    /// The column of classes, one way or the other.
    fn classes(&self) -> Result<Option<Classes>> {
        let Some(name) = &self.labels else { return Ok(None) };
        check(&self.path, name)?;
        let labels = column(&self.path, name, None)?;
        let missing = |row: usize| self.fault(row, format!("no label in column `{name}`"));
        let kind = labels.dtype().clone();
        if kind.is_integer() {
            let numbers = of(&self.path, || labels.cast(&DataType::Int64)?.i64().cloned())?;
            let number = |(row, label): (usize, Option<i64>)| {
                let label = label.ok_or_else(|| missing(row))?;
                u64::try_from(label)
                    .map_err(|_| self.fault(row, format!("the label {label} in column `{name}` is below 0")))
            };
            return Ok(Some(Classes::Numbers(numbers.iter().enumerate().map(number).collect::<Result<_>>()?)));
        }
        if kind == DataType::String || kind.is_categorical() {
            let names = of(&self.path, || labels.cast(&DataType::String)?.str().cloned())?;
            let word = |(row, label): (usize, Option<&str>)| label.map(str::to_owned).ok_or_else(|| missing(row));
            return Ok(Some(Classes::Names(names.iter().enumerate().map(word).collect::<Result<_>>()?)));
        }
        let what = format!("column `{name}` has type {kind}, not whole numbers or names: images have no classes");
        Err(Error::content(&self.path, what))
    }
}

enum Classes {
    Numbers(Vec<u64>),
    Names(Vec<String>),
}

impl Parquet {
    /// Opens files. `classes`: how many there are, where that is known.
    ///
    /// # Errors
    /// When one cannot be read, none holds an image, or a column of images is missing.
    pub fn open(paths: Vec<PathBuf>, classes: Option<usize>) -> Result<Self> {
        let mut tables = paths.into_iter().map(Table::open).collect::<Result<Vec<_>>>()?;
        // The first says it for all: to look at a row is to read many.
        let first = tables.iter().find(|table| table.rows > 0);
        if let Some(false) = first.map(Table::has_bytes).transpose()? {
            for table in tables.iter_mut().filter(|table| table.rows > 0) {
                table.linked = Some(table.links()?);
            }
        }
        match tables.first() {
            Some(table) if tables.iter().all(|t| t.rows == 0) => Err(Error::content(&table.path, "holds no image")),
            Some(_) => {
                let ends = tables.iter().scan(0usize, |end, table| {
                    *end = end.saturating_add(table.rows);
                    Some(*end)
                });
                Ok(Self { ends: ends.collect(), tables, classes })
            }
            None => Err(Error::invalid("no Parquet file is named")),
        }
    }

    /// The table that image `index` is in, by number, and its row there.
    fn place(&self, index: usize) -> (usize, usize) {
        let table = self.ends.partition_point(|&end| end <= index);
        (table, index - table.checked_sub(1).map_or(0, |before| self.ends[before]))
    }
}

impl Source for Parquet {
    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn labels(&self) -> Result<Option<Labels>> {
        let tables: Vec<&Table> = self.tables.iter().filter(|t| t.rows > 0).collect();
        let found = tables.iter().map(|t| t.classes()).collect::<Result<Vec<_>>>()?;
        let (mut numbers, mut names) = (Vec::new(), Vec::new());
        for (table, found) in tables.iter().zip(found) {
            match found {
                Some(Classes::Numbers(some)) if names.is_empty() => numbers.extend(some),
                Some(Classes::Names(some)) if numbers.is_empty() => names.extend(some),
                None if numbers.is_empty() && names.is_empty() => {}
                _ => return Err(Error::content(&table.path, "its labels are not those of the files before it")),
            }
        }
        let bad =
            |what: String| tables.first().map_or_else(|| Error::invalid(&what), |t| Error::content(&t.path, &what));
        if !names.is_empty() {
            let known: BTreeSet<&String> = names.iter().collect();
            let known: Vec<&String> = known.into_iter().collect();
            let number = |name: &String| known.binary_search(&name).map_or(u64::MAX, |k| k as u64);
            numbers = names.iter().map(number).collect();
        }
        if numbers.len() != self.len() {
            return match (numbers.is_empty(), self.classes) {
                (true, None) => Ok(None),
                _ => Err(bad("not every file has a column of labels, such as `label`".to_owned())),
            };
        }
        let most = numbers.iter().max().map_or(0, |&l| usize::try_from(l).unwrap_or(usize::MAX).saturating_add(1));
        Labels::new(numbers, self.classes.unwrap_or(most), &bad).map(Some)
    }

    fn describe(&self, index: usize) -> String {
        let (table, row) = self.place(index);
        self.tables.get(table).map_or_else(String::new, |table| format!("{}: row {row}", name_of(&table.path)))
    }

    fn files(&self) -> Vec<PathBuf> {
        let linked = self.tables.iter().flat_map(|table| table.linked.iter().flatten().cloned());
        self.tables.iter().map(|table| table.path.clone()).chain(linked).collect()
    }

    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_> {
        // Rows are read in stretches, whatever is wanted of them.
        let size = size.max(1);
        let places: Vec<(usize, usize)> = indices.into_iter().map(|i| self.place(i)).collect();
        let stretches = places.chunk_by(|a, b| (a.0, a.1 / size) == (b.0, b.1 / size));
        let stretches: Vec<Vec<(usize, usize)>> = stretches.map(<[_]>::to_vec).collect();
        Box::new(stretches.into_iter().map(|stretch| {
            let rows: Vec<usize> = stretch.iter().map(|&(_, row)| row).collect();
            self.tables[stretch[0].0].read(&rows)
        }))
    }
}
