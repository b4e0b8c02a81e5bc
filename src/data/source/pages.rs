//! What a Parquet file claims of itself, checked before the library believes it: a damaged size there is an allocation that
//! ends the process, which no error handling can catch.

use std::fs::File;
use std::io::Cursor;

use memmap2::Mmap;
use polars_buffer::Buffer;
use polars_parquet::parquet::metadata::ColumnChunkMetadata;
use polars_parquet::parquet::page::CompressedPage;
use polars_parquet::parquet::read::{get_page_iterator, read_metadata};

use super::thrift::{FILE, Thrift};
use crate::guard::caught;

const MAGIC: &[u8] = b"PAR1";
/// More than compression shrinks images or result rows.
const SHRINK: usize = 1 << 6;
/// What small files may grow by beyond that.
const SMALL: usize = 1 << 20;

/// Checks sizes and counts of a file, in the columns that are wanted: only what is read can do harm.
///
/// # Errors
/// When the file cannot be mapped, or one is impossible in a file of this length.
pub(crate) fn check(file: &File, wanted: impl Fn(&str) -> bool) -> Result<(), String> {
    // SAFETY: the map is only read; see `lmdb`.
    let map = unsafe { Mmap::map(file) }.map_err(|e| e.to_string())?;
    footer(&map)?;
    let bytes = Buffer::from_owner(map);
    caught(|| contents(&bytes, wanted)).and_then(|checked| checked)
}

fn footer(bytes: &[u8]) -> Result<(), String> {
    let ends = bytes.len() >= 12 && bytes.starts_with(MAGIC) && bytes.ends_with(MAGIC);
    let Some(tail) = bytes.len().checked_sub(8).filter(|_| ends) else { return Err("no PAR1 at both ends".to_owned()) };
    let length = u32::from_le_bytes([bytes[tail], bytes[tail + 1], bytes[tail + 2], bytes[tail + 3]]) as usize;
    let start = tail.checked_sub(length).filter(|&s| s >= 4).ok_or("its footer is longer than the file")?;
    Thrift { bytes: &bytes[start..tail], at: 0 }.structure(FILE, 0).ok_or_else(|| "its footer is damaged".to_owned())
}

fn contents(bytes: &Buffer<u8>, wanted: impl Fn(&str) -> bool) -> Result<(), String> {
    let metadata = read_metadata(&mut Cursor::new(bytes.as_ref())).map_err(|e| e.to_string())?;
    let rows: usize = metadata.row_groups.iter().map(|group| group.num_rows()).fold(0, usize::saturating_add);
    // None is told by less than a byte.
    if rows > bytes.len() || metadata.num_rows != rows {
        return Err(format!("it claims {} rows", metadata.num_rows));
    }
    let mut unpacked = 0usize;
    for group in &metadata.row_groups {
        for column in group.parquet_columns() {
            let root = column.descriptor().path_in_schema.first().map(|root| root.as_str());
            if root.is_some_and(&wanted) {
                unpacked = unpacked.saturating_add(self::column(bytes, column, group.num_rows())?);
            }
        }
    }
    if unpacked > bytes.len().saturating_mul(SHRINK).saturating_add(SMALL) {
        return Err(format!("it claims {unpacked} bytes of content"));
    }
    Ok(())
}

/// Checks a column and gives its bytes when they are unpacked.
fn column(bytes: &Buffer<u8>, column: &ColumnChunkMetadata, rows: usize) -> Result<usize, String> {
    let range = column.byte_range();
    let values = usize::try_from(column.num_values()).ok().filter(|&n| n == rows);
    let inside = range.start <= range.end && range.end <= bytes.len() as u64;
    let Some(values) = values.filter(|_| inside) else {
        return Err(format!("a column claims {} values for {rows} rows, in bytes {range:?}", column.num_values()));
    };
    let reader = get_page_iterator(column, Cursor::new(bytes.clone()), Vec::new(), bytes.len());
    let (mut seen, mut unpacked) = (0usize, 0usize);
    for (n, page) in reader.map_err(|e| e.to_string())?.enumerate() {
        match page.map_err(|e| e.to_string())? {
            CompressedPage::Data(page) => {
                seen = seen.saturating_add(page.num_values());
                unpacked = unpacked.saturating_add(page.uncompressed_size());
                if seen > values {
                    return Err(format!("a page claims {} values", page.num_values()));
                }
            }
            // Its header, which the library does not show: bytes, and values of which each has one or more.
            CompressedPage::Dict(_) if n == 0 => {
                let header = &bytes[range.start as usize..];
                let claim = |path: &[i64]| usize::try_from(Thrift { bytes: header, at: 0 }.field(path)?).ok();
                match (claim(&[2]), claim(&[7, 1])) {
                    (Some(size), Some(count)) if count <= size => unpacked = unpacked.saturating_add(size),
                    _ => return Err("a dictionary's header is damaged".to_owned()),
                }
            }
            CompressedPage::Dict(_) => return Err("a dictionary comes after values".to_owned()),
        }
    }
    if seen == values { Ok(unpacked) } else { Err(format!("a column has {seen} of {values} values")) }
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
            check(&File::open(&path).unwrap(), |_| true)
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
