//! Data sets decoded and resized once, into a memory-mapped file in the user's cache: a safetensors file with `pixels` U8
//! `[N, side, side, 3]` and `labels` U16 `[N]`. Sets larger than memory stay on disk and are paged in as they are read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use serde_json::json;

use super::resize::bilinear;
use super::source::{Labels, Mode, Picture, Source, all};
use super::{Images, Pixels};
use crate::error::{AtPath, Error, Result};
use crate::files::{Turn, cache_folder, sha256, write_atomic};

const BATCH: usize = 250;
/// Of decoding and resizing: another one makes other files.
const VERSION: u32 = 2;
/// Names in the header.
const CLASSES: &str = "classes";
const FAULT: &str = "label_fault";
const CONVERTED: &str = "converted";
/// What is padded with blanks for what is known at the end only.
const COUNTS: usize = 128;

/// The images that `open` gives, at `side`×`side` pixels, from the cache if they are there. `files` hold them: when one has
/// changed, the images are decoded anew. `progress` hears of the images done and of how many there are.
///
/// # Errors
/// When the cache cannot be used, an image cannot be decoded, or not all are square and of one size.
pub(super) fn images(
    name: &str,
    side: usize,
    files: &[PathBuf],
    open: impl FnOnce() -> Result<Box<dyn Source>>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Images> {
    let folder = cache_folder()?.join("images");
    let file_name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = folder.join(format!("{file_name}-{side}px-{}-v{VERSION}.safetensors", &stamp(files)?[..12]));
    if !path.is_file() {
        let _turn = Turn::take(&path)?;
        if !path.is_file() {
            build(&path, open()?.as_ref(), side, progress)?;
        }
    }
    read(&path, name, side)
}

/// Which files they are, and that they are unchanged.
fn stamp(files: &[PathBuf]) -> Result<String> {
    let mut text = String::new();
    for path in files {
        let full = std::fs::canonicalize(path).at("find", path)?;
        let metadata = std::fs::metadata(&full).at("read", &full)?;
        let changed = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        text.push_str(&format!("{} {} {:?}\n", full.display(), metadata.len(), changed));
    }
    Ok(sha256(text.as_bytes()))
}

fn build(path: &Path, source: &dyn Source, side: usize, progress: &mut dyn FnMut(usize, usize)) -> Result<()> {
    let n = source.len();
    let size = n.checked_mul(side * side * 3).filter(|size| size.checked_add(2 * n).is_some());
    let size = size.ok_or_else(|| Error::invalid(format!("{n} images are announced, more than any file holds")))?;
    // Whoever trains without labels does not care what is wrong with them.
    let (labels, fault) = match source.labels() {
        Ok(labels) => (labels.unwrap_or_else(|| Labels { of: vec![0; n], classes: 1 }), String::new()),
        Err(fault) => (Labels { of: vec![0; n], classes: 1 }, fault.to_string()),
    };
    let header = |converted: &str| {
        let mut header = json!({
            "__metadata__": {CLASSES: labels.classes.to_string(), FAULT: fault, CONVERTED: format!("{converted:COUNTS$}")},
            "pixels": {"dtype": "U8", "shape": [n, side, side, 3], "data_offsets": [0, size]},
            "labels": {"dtype": "U16", "shape": [n], "data_offsets": [size, size + 2 * n]},
        })
        .to_string();
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        header
    };
    write_atomic(path, |file| {
        let length = header("").len();
        let mut out = BufWriter::new(file);
        out.seek(SeekFrom::Start((size_of::<u64>() + length) as u64)).at("write", path)?;
        let (mut done, mut first, mut modes) = (0, None, BTreeMap::new());
        for batch in source.batches(all(source), BATCH) {
            let batch = batch?;
            check_sizes(source, &batch, done, &mut first)?;
            let resized: Vec<Vec<u8>> =
                batch.par_iter().map(|picture| bilinear(&picture.pixels, picture.size, side)).collect();
            resized.iter().try_for_each(|pixels| out.write_all(pixels).at("write", path))?;
            batch.iter().for_each(|picture| *modes.entry(picture.mode).or_default() += 1);
            done += batch.len();
            progress(done, n);
        }
        if done != n || labels.of.len() != n {
            return Err(Error::invalid(format!("{n} images were announced, and {done} came")));
        }
        let bytes: Vec<u8> = labels.of.iter().flat_map(|label| label.to_le_bytes()).collect();
        out.write_all(&bytes).at("write", path)?;
        let header = header(&converted(&modes));
        out.seek(SeekFrom::Start(0)).at("write", path)?;
        out.write_all(&(header.len() as u64).to_le_bytes()).at("write", path)?;
        out.write_all(header.as_bytes()).at("write", path)?;
        out.flush().at("write", path)
    })
}

/// How many images were not RGB.
fn converted(modes: &BTreeMap<Mode, usize>) -> String {
    let others = modes.iter().filter(|(mode, _)| **mode != Mode::Rgb);
    others.map(|(mode, n)| format!("{n} {}", mode.id())).collect::<Vec<_>>().join(", ")
}

/// Every image is square and as large as the first.
fn check_sizes(source: &dyn Source, batch: &[Picture], at: usize, first: &mut Option<[usize; 2]>) -> Result<()> {
    for (k, picture) in batch.iter().enumerate() {
        let size = picture.size;
        let expected = *first.get_or_insert(size);
        if size != expected || size[0] != size[1] {
            let [h, w] = size;
            let want = if size == expected {
                "square images".to_owned()
            } else {
                format!("{0}×{0} as the first", expected[0])
            };
            return Err(Error::invalid(format!(
                "{} has {w}×{h} pixels, expected {want}: the images of a data set are square and of one size",
                source.describe(at + k)
            )));
        }
    }
    Ok(())
}

fn read(path: &Path, name: &str, side: usize) -> Result<Images> {
    let file = File::open(path).at("open", path)?;
    // SAFETY: the map is only read, and files in the cache are replaced, never changed.
    let map = Arc::new(unsafe { Mmap::map(&file) }.at("map", path)?);
    let bad = |what: String| Error::content(path, format!("damaged ({what}): remove it, and it will be made again"));
    let tensors = SafeTensors::deserialize(&map).map_err(|e| bad(e.to_string()))?;
    let pixels = tensors.tensor("pixels").map_err(|e| bad(e.to_string()))?;
    let labels = tensors.tensor("labels").map_err(|e| bad(e.to_string()))?;
    let labels: Vec<u16> = labels.data().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
    if pixels.shape() != [labels.len(), side, side, 3] {
        return Err(bad(format!("its pixels have shape {:?}", pixels.shape())));
    }
    let start = pixels.data().as_ptr() as usize - map.as_ptr() as usize;
    let range = start..start + pixels.data().len();
    let (_, header) = SafeTensors::read_metadata(&map).map_err(|e| bad(e.to_string()))?;
    let said = |name: &str| header.metadata().as_ref().and_then(|m| m.get(name)).map(|text| text.trim().to_owned());
    let classes: Option<usize> = said(CLASSES).and_then(|classes| classes.parse().ok());
    let (Some(classes), Some(fault), Some(converted)) = (classes, said(FAULT), said(CONVERTED)) else {
        return Err(bad("it does not say what it holds".to_owned()));
    };
    if labels.iter().any(|&l| usize::from(l) >= classes) {
        return Err(bad(format!("a label is not below {classes}")));
    }
    let label_fault = Some(fault).filter(|fault| !fault.is_empty());
    let pixels = Pixels::Mapped { map: map.clone(), range };
    Ok(Images { label_fault, converted, ..Images::new(name, side, pixels, labels, classes) })
}
