//! LMDB environments of images, as the released code and its relatives keep CelebA-HQ and LSUN. Read by walking the pages
//! here, because the C library trusts its file: what is damaged there is undefined behaviour.
//!
//! Keys: `0`, `1`, … (the released code); `{side}-{index:05}` with an entry `length` (StyleGAN2 in PyTorch); or anything else,
//! in order of key (LSUN). Values: PNG or JPEG, or bytes `[side, side, 3]`.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;

use super::{Batches, Labels, Picture, Room, Source, decode, in_chunks};
use crate::data::name_of;
use crate::error::{AtPath, Error, Result};

/// The environment's file in its folder.
pub const FILE: &str = "data.mdb";

const HEADER: usize = 16;
/// Bytes of a node before its key.
const NODE: usize = 8;
const LONGEST_KEY: usize = 511;
const MAGIC: u64 = 0xBEEF_C0DE;
const VERSION: u64 = 1;
const BRANCH: u64 = 0x01;
const LEAF: u64 = 0x02;
const BIG_DATA: u64 = 0x01;
/// A leaf's value is a database or a list of its own.
const NESTED: u64 = 0x06;
/// Far deeper than any tree of 2⁴⁸ pages.
const DEEPEST: usize = 32;

/// A key, and where its value is in the file.
type Entry = (Vec<u8>, std::ops::Range<usize>);

/// Values in order, as places in the mapped file.
pub struct Lmdb {
    path: PathBuf,
    map: Mmap,
    entries: Vec<Entry>,
    /// Side of images that are bytes, not files.
    raw: Option<usize>,
}

/// Reads little-endian numbers of a file whose content nobody vouches for.
struct Pages<'a> {
    bytes: &'a [u8],
    size: usize,
    /// Pages still allowed to be visited: a loop among them ends here.
    left: usize,
}

impl<'a> Pages<'a> {
    fn number(&self, at: usize, width: usize) -> Result<u64, String> {
        let bytes = self.bytes.get(at..at.saturating_add(width)).ok_or_else(|| format!("it ends before byte {at}"))?;
        Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    /// Page size, transaction and root of the main database, from the meta page at `at`.
    fn meta(&self, at: usize) -> Result<[u64; 3], String> {
        let base = at + HEADER;
        if self.number(base, 4)? != MAGIC {
            return Err("no LMDB magic number".to_owned());
        }
        if self.number(base + 4, 4)? != VERSION {
            return Err(format!("LMDB data version {}, expected {VERSION}", self.number(base + 4, 4)?));
        }
        // Address and map size (8 each), the free list's database (48), the main one.
        let main = base + 24 + 48;
        Ok([self.number(base + 24, 4)?, self.number(main + 56, 8)?, self.number(main + 40, 8)?])
    }

    fn page(&mut self, number: u64) -> Result<usize, String> {
        self.left = self.left.checked_sub(1).ok_or("its pages form a loop")?;
        let at = usize::try_from(number).ok().and_then(|n| n.checked_mul(self.size));
        at.filter(|at| at + HEADER <= self.bytes.len()).ok_or_else(|| format!("page {number} lies beyond its end"))
    }

    /// Shows `each` every key and value below a page, in order of key.
    fn walk(
        &mut self,
        number: u64,
        depth: usize,
        each: &mut dyn FnMut(&'a [u8], std::ops::Range<usize>),
    ) -> Result<(), String> {
        let page = self.page(number)?;
        let flags = self.number(page + 10, 2)?;
        let lower = self.number(page + 12, 2)? as usize;
        if depth > DEEPEST || flags & (BRANCH | LEAF) == 0 || lower < HEADER || lower > self.size {
            return Err(format!("page {number} is neither a branch nor a leaf"));
        }
        // Nodes lie side by side in their page.
        let mut room = self.size - lower;
        for index in 0..(lower - HEADER) / 2 {
            let place = self.number(page + HEADER + 2 * index, 2)? as usize;
            let node = page + place;
            let low = self.number(node, 4)?;
            let (flags_of_node, key) = (self.number(node + 4, 2)?, self.number(node + 6, 2)? as usize);
            let inline = match (flags & BRANCH, flags_of_node & BIG_DATA) {
                (0, 0) => low as usize,
                (0, _) => size_of::<u64>(),
                _ => 0,
            };
            let length = NODE + key + inline;
            let left = room
                .checked_sub(length)
                .filter(|_| key <= LONGEST_KEY && place >= lower && place + length <= self.size);
            room = left.ok_or_else(|| format!("node {index} of page {number} does not fit in it"))?;
            if flags & BRANCH != 0 {
                self.walk(low | flags_of_node << 32, depth + 1, each)?;
                continue;
            }
            if flags_of_node & NESTED != 0 {
                return Err("it holds more than one database, or keys with several values".to_owned());
            }
            let after = node + NODE + key;
            let start = if flags_of_node & BIG_DATA == 0 {
                after
            } else {
                let number = self.number(after, 8)?;
                self.page(number)? + HEADER
            };
            let end = start.saturating_add(low as usize);
            let key = self.bytes.get(node + NODE..after).filter(|_| end <= self.bytes.len());
            each(key.ok_or_else(|| format!("a value of page {number} lies beyond its end"))?, start..end);
        }
        Ok(())
    }
}

/// The key as a number: `17`, or `128-00017`.
fn index(key: &[u8]) -> Option<(Option<u64>, u64)> {
    let text = std::str::from_utf8(key).ok()?;
    match text.split_once('-') {
        Some((side, index)) => Some((Some(side.parse().ok()?), index.parse().ok()?)),
        None => Some((None, text.parse().ok()?)),
    }
}

impl Lmdb {
    /// Reads the keys of an environment (a folder with `data.mdb`).
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or holds no image or images of several sizes.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let file = File::open(&path).at("open", &path)?;
        // SAFETY: the map is only read; a file that another process truncates meanwhile is outside what any reader can
        // guard against.
        let map = unsafe { Mmap::map(&file) }.at("map", &path)?;
        let bad = |what: String| Error::content(&path, format!("not a readable LMDB environment: {what}"));
        let mut entries = entries(&map).map_err(bad)?;
        entries.retain(|(key, _)| key != b"length");
        if entries.is_empty() {
            return Err(Error::content(&path, "holds no image"));
        }
        if entries.iter().all(|(key, _)| index(key).is_some()) {
            entries.sort_by_key(|(key, _)| index(key));
            let sides = [&entries[0], &entries[entries.len() - 1]].map(|(key, _)| index(key).and_then(|i| i.0));
            if sides[0] != sides[1] {
                return Err(Error::content(
                    &path,
                    "holds images of several sizes: an environment of one size is needed",
                ));
            }
        }
        let len = entries[0].1.len();
        let side = (len / 3).isqrt();
        let encoded = |at: &std::ops::Range<usize>| {
            map[at.clone()].starts_with(b"\x89PNG") || map[at.clone()].starts_with(b"\xff\xd8")
        };
        let square = side > 0 && side * side * 3 == len && entries.iter().all(|(_, at)| at.len() == len);
        let raw = (square && !entries.iter().all(|(_, at)| encoded(at))).then_some(side);
        Ok(Self { path, map, entries, raw })
    }
}

fn entries(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let mut pages = Pages { bytes, size: 0, left: 0 };
    let [size, transaction, root] = pages.meta(0)?;
    pages.size = usize::try_from(size)
        .ok()
        .filter(|s| s.is_power_of_two() && (512..=65_536).contains(s))
        .ok_or_else(|| format!("a page size of {size} bytes"))?;
    // The newer of the two meta pages counts.
    let root = match pages.meta(pages.size) {
        Ok([_, newer, other]) if newer > transaction => other,
        _ => root,
    };
    pages.left = bytes.len() / pages.size + 1;
    let mut entries = Vec::new();
    // All ones: an empty database.
    if root != u64::MAX {
        pages.walk(root, 0, &mut |key, value| entries.push((key.to_vec(), value)))?;
    }
    Ok(entries)
}

impl Source for Lmdb {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn labels(&self) -> Result<Option<Labels>> {
        Ok(None)
    }

    fn describe(&self, index: usize) -> String {
        let key = self.entries.get(index).map(|(key, _)| String::from_utf8_lossy(key).into_owned());
        format!("{}: key {}", name_of(&self.path), key.unwrap_or_default())
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_> {
        in_chunks(indices, size, |chunk| {
            let room = Room::default();
            let one = |&i: &usize| {
                let value = &self.map[self.entries[i].1.clone()];
                if let Some(side) = self.raw {
                    return Ok(Picture::rgb(value.to_vec(), [side; 2]));
                }
                decode(value, &room, &|m| Error::invalid(format!("{}: {m}", self.describe(i))))
            };
            chunk.par_iter().map(one).collect()
        })
    }
}
