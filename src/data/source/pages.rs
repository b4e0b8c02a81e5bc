//! What a Parquet file claims of itself, checked before the library believes it: a damaged size there is an allocation that
//! ends the process, which no error handling can catch.

use std::fs::File;
use std::io::Cursor;
use std::path::Path;

use memmap2::Mmap;
use polars_buffer::Buffer;
use polars_parquet::parquet::metadata::ColumnChunkMetadata;
use polars_parquet::parquet::page::CompressedPage;
use polars_parquet::parquet::read::{get_page_iterator, read_metadata};

use super::parquet::{IMAGES, LABELS};
use crate::error::{AtPath, Error, Result};
use crate::guard::caught;

const MAGIC: &[u8] = b"PAR1";
/// Deepest nesting of the footer's structures.
const DEEPEST: usize = 32;
/// More than any compression shrinks a page of images or labels.
const SHRINK: usize = 1 << 12;
/// Values that run-length encoding may put in a byte.
const RUN: usize = 1 << 12;

/// Checks sizes and counts of a file.
///
/// # Errors
/// When one is impossible in a file of this length.
pub(super) fn check(path: &Path) -> Result<()> {
    let bad = |what: String| Error::content(path, format!("not a readable Parquet file: {what}"));
    let file = File::open(path).at("open", path)?;
    // SAFETY: the map is only read; see `lmdb`.
    let map = unsafe { Mmap::map(&file) }.at("map", path)?;
    footer(&map).map_err(bad)?;
    let pages = Buffer::from_owner(map);
    caught(|| contents(&pages)).and_then(|checked| checked).map_err(bad)
}

fn footer(bytes: &[u8]) -> Result<(), String> {
    let ends = bytes.len() >= 12 && bytes.starts_with(MAGIC) && bytes.ends_with(MAGIC);
    let Some(tail) = bytes.len().checked_sub(8).filter(|_| ends) else { return Err("no PAR1 at both ends".to_owned()) };
    let length = u32::from_le_bytes([bytes[tail], bytes[tail + 1], bytes[tail + 2], bytes[tail + 3]]) as usize;
    let start = tail.checked_sub(length).filter(|&s| s >= 4).ok_or("its footer is longer than the file")?;
    let mut walk = Thrift { bytes: &bytes[start..tail], at: 0 };
    walk.skip(STRUCT, 0).ok_or_else(|| "its footer is damaged".to_owned())
}

/// Thrift's compact protocol, skipped value by value.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

const STRUCT: u8 = 12;

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn advance(&mut self, n: u64) -> Option<()> {
        self.at = self.at.checked_add(usize::try_from(n).ok()?).filter(|&at| at <= self.bytes.len())?;
        Some(())
    }

    /// Passes over a value of a type; a list has no more elements than bytes are left.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        match kind {
            1 | 2 => Some(()),
            3 => self.advance(1),
            4..=6 => self.varint().map(drop),
            7 => self.advance(8),
            8 => {
                let length = self.varint()?;
                self.advance(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                if count > (self.bytes.len() - self.at) as u64 {
                    return None;
                }
                // A true or false in a list has a byte of its own.
                let kind = if head & 15 <= 2 { 3 } else { head & 15 };
                (0..count).try_for_each(|_| self.skip(kind, depth + 1))
            }
            STRUCT => loop {
                let head = self.byte()?;
                if head == 0 {
                    return Some(());
                }
                if head >> 4 == 0 {
                    self.varint()?;
                }
                self.skip(head & 15, depth + 1)?;
            },
            _ => None,
        }
    }
}

fn contents(bytes: &Buffer<u8>) -> Result<(), String> {
    let metadata = read_metadata(&mut Cursor::new(bytes.as_ref())).map_err(|e| e.to_string())?;
    let most = bytes.len().saturating_mul(RUN);
    let rows: usize = metadata.row_groups.iter().map(|group| group.num_rows()).fold(0, usize::saturating_add);
    if rows > most || metadata.num_rows != rows {
        return Err(format!("it claims {} rows", metadata.num_rows));
    }
    for group in &metadata.row_groups {
        for column in group.parquet_columns() {
            // Only what is read can do harm.
            let root = column.descriptor().path_in_schema.first().map(|root| root.as_str());
            if !root.is_some_and(|root| [IMAGES[0], IMAGES[1], LABELS].contains(&root)) {
                continue;
            }
            self::column(bytes, column, group.num_rows())?;
        }
    }
    Ok(())
}

fn column(bytes: &Buffer<u8>, column: &ColumnChunkMetadata, rows: usize) -> Result<(), String> {
    let range = column.byte_range();
    let values = usize::try_from(column.num_values()).ok().filter(|&n| n == rows);
    let inside = range.start <= range.end && range.end <= bytes.len() as u64;
    let Some(values) = values.filter(|_| inside) else {
        return Err(format!("a column claims {} values for {rows} rows, in bytes {range:?}", column.num_values()));
    };
    let reader = get_page_iterator(column, Cursor::new(bytes.clone()), Vec::new(), bytes.len());
    let mut seen = 0usize;
    for page in reader.map_err(|e| e.to_string())? {
        // A dictionary's size has four bytes in the file, so it is no danger.
        let CompressedPage::Data(page) = page.map_err(|e| e.to_string())? else { continue };
        let (count, unpacked) = (page.num_values(), page.uncompressed_size());
        seen = seen.saturating_add(count);
        if seen > values || unpacked > page.compressed_size().saturating_add(16).saturating_mul(SHRINK) {
            return Err(format!("a page claims {count} values and {unpacked} bytes"));
        }
    }
    if seen == values { Ok(()) } else { Err(format!("a column has {seen} of {values} values")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = include_bytes!("../../../tests/data/faces.parquet");

    #[test]
    fn impossible_sizes_are_errors() {
        let path = std::env::temp_dir().join(format!("pgn-bench-pages-{}.parquet", std::process::id()));
        let checked = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            check(&path).map_err(|e| e.to_string())
        };
        checked(FILE).unwrap();
        assert!(checked(&FILE[..40]).unwrap_err().contains("no PAR1"));
        let mut long = FILE.to_vec();
        let tail = long.len() - 8;
        long[tail + 3] = 0x7f;
        assert!(checked(&long).unwrap_err().contains("longer than the file"));
        // Every byte of the footer and of the first page's header, turned.
        let refused = |at: usize| {
            let mut damaged = FILE.to_vec();
            damaged[at] ^= 0xff;
            usize::from(checked(&damaged).is_err())
        };
        assert!((4..24).map(refused).sum::<usize>() > 5);
        assert!((tail - 300..tail).map(refused).sum::<usize>() > 30);
        std::fs::remove_file(path).unwrap();
    }
}
