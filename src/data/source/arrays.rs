//! Images as one array `[N, height, width, channels]` of bytes, in an `.npz` (such as guided-diffusion's samples, `arr_0`) or an
//! `.npy` file. What is stored as it is, is read where it lies; what is compressed, from its beginning on.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::room::Room;
use super::tree::extension;
use super::{Batches, Labels, Mode, Picture, Source, ahead, in_chunks, records};
use crate::data::name_of;
use crate::error::{AtPath, Error, Result};
use crate::npy::{Archive, Header, Kind, header};

/// Names of the array of images, of which the first is taken; else the only array that could be one.
const IMAGES: [&str; 3] = ["arr_0", "images", "samples"];
/// Names of the array of classes.
const LABELS: [&str; 4] = ["arr_1", "labels", "label", "y"];

/// The images of a file.
pub struct Arrays {
    path: PathBuf,
    /// The array in an archive.
    member: Option<String>,
    /// The array of classes.
    labels: Option<String>,
    /// Height, width, channels.
    size: [usize; 3],
    len: usize,
    /// Where the first image is, if it is not compressed.
    at: Option<u64>,
}

/// Why an array is not one of images.
fn size_of_images(of: &Header) -> Result<[usize; 3], String> {
    let order = if of.fortran { " in Fortran's order" } else { "" };
    let found = format!("holds {} of shape {:?}{order}", of.descr, of.shape);
    match of.shape[..] {
        [_, height, width, channels @ (1 | 3 | 4)] if of.kind == Kind::Unsigned && of.width == 1 && !of.fortran => {
            let whole = |n: u64| usize::try_from(n).map_err(|_| found.clone());
            let size = [whole(height)?, whole(width)?, whole(channels)?];
            Room::default().take(size[1], size[0])?;
            Ok(size)
        }
        _ => Err(format!("{found}, expected images as uint8 [N, height, width, 3], or 1 or 4 channels, in C's order")),
    }
}

/// Whether a file is an archive with an array of images.
pub fn are_in(path: &Path) -> bool {
    extension(path) == "npz" && Arrays::open(path).is_ok()
}

impl Arrays {
    /// Finds the array of images in a file.
    ///
    /// # Errors
    /// When the file cannot be read, or holds no such array.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |what: String| Error::content(path, what);
        let mut file = File::open(path).at("open", path)?;
        if extension(path) == "npy" {
            let of = header(&mut file).map_err(bad)?;
            let length = file.metadata().at("read", path)?.len();
            if of.start.saturating_add(of.bytes) > length {
                return Err(bad(format!("claims shape {:?} in {length} bytes", of.shape)));
            }
            return Self::new(path, &of, Some(of.start), [None, None]);
        }
        let mut archive = Archive::new(file).map_err(|e| bad(format!("not a readable npz: {e}")))?;
        let names = archive.names();
        let usual = IMAGES.iter().map(|n| (*n).to_owned()).find(|name| names.contains(name));
        let name = match usual {
            Some(name) => name,
            None => {
                let able = |name: &&String| archive.member(name).is_ok_and(|m| size_of_images(&m.header).is_ok());
                let able: Vec<&String> = names.iter().filter(able).collect();
                let [one] = able[..] else {
                    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    return Err(bad(format!(
                        "which array is that of images? expected one of {}; it has: {names}",
                        IMAGES.join(", ")
                    )));
                };
                one.clone()
            }
        };
        let labels = LABELS.iter().map(|n| (*n).to_owned()).find(|label| names.contains(label) && *label != name);
        let (of, at) = archive.member(&name).map(|m| (m.header.clone(), m.at)).map_err(bad)?;
        Self::new(path, &of, at, [Some(name), labels])
    }

    fn new(path: &Path, of: &Header, at: Option<u64>, [member, labels]: [Option<String>; 2]) -> Result<Self> {
        let name = member.as_ref().map_or_else(String::new, |name| format!("`{name}` "));
        let size = size_of_images(of).map_err(|what| Error::content(path, format!("{name}{what}")))?;
        let len = usize::try_from(of.shape[0]).unwrap_or(usize::MAX);
        if of.is_empty() {
            return Err(Error::content(path, "holds no image"));
        }
        Ok(Self { path: path.to_path_buf(), member, labels, size, len, at })
    }

    fn stride(&self) -> usize {
        self.size.iter().product()
    }
}

fn picture(bytes: &[u8], [height, width, channels]: [usize; 3]) -> Picture {
    let size = [height, width];
    match channels {
        1 => Picture { pixels: bytes.iter().flat_map(|&grey| [grey; 3]).collect(), size, mode: Mode::Grey },
        3 => Picture::rgb(bytes.to_vec(), size),
        _ => {
            let pixels = bytes.chunks_exact(channels).flat_map(|p| [p[0], p[1], p[2]]).collect();
            Picture { pixels, size, mode: Mode::Rgba }
        }
    }
}

impl Source for Arrays {
    fn len(&self) -> usize {
        self.len
    }

    fn labels(&self) -> Result<Option<Labels>> {
        let Some(name) = &self.labels else { return Ok(None) };
        let bad = |what: String| Error::content(&self.path, what);
        let mut archive = Archive::new(File::open(&self.path).at("open", &self.path)?).map_err(bad)?;
        let member = archive.member(name).map_err(bad)?;
        let of = member.header.clone();
        if of.shape != [self.len as u64] || !matches!(of.kind, Kind::Signed | Kind::Unsigned) {
            return Err(bad(format!("`{name}` holds {} of shape {:?}, no class for each image", of.descr, of.shape)));
        }
        let numbers = of.numbers(member).map_err(|what| bad(format!("`{name}` {what}")))?;
        if let Some(below) = numbers.iter().find(|l| **l < 0.0) {
            return Err(bad(format!("`{name}` holds {below}, which is no class")));
        }
        let most = numbers.iter().fold(0.0, |most: f64, l| most.max(*l));
        Labels::new(numbers.iter().map(|l| *l as u64), (most as usize).saturating_add(1), &bad).map(Some)
    }

    fn describe(&self, index: usize) -> String {
        format!("image {index} of {}", name_of(&self.path))
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_> {
        let (stride, shape) = (self.stride(), self.size);
        if let Some(start) = self.at {
            return in_chunks(indices, size, move |chunk| {
                let file = File::open(&self.path).at("open", &self.path)?;
                let mut bytes = vec![0; stride];
                let mut one = |&i: &usize| {
                    file.read_exact_at(&mut bytes, start + (i * stride) as u64).at("read", &self.path)?;
                    Ok(picture(&bytes, shape))
                };
                chunk.iter().map(&mut one).collect()
            });
        }
        let (path, member) = (self.path.clone(), self.member.clone().unwrap_or_default());
        ahead(move |give| {
            let bad = |what: String| Error::content(&path, what);
            let mut archive = Archive::new(File::open(&path).at("open", &path)?).map_err(bad)?;
            let mut read = BufReader::new(archive.member(&member).map_err(bad)?);
            let mut bytes = vec![0; stride];
            records(&indices, size, give, |wanted| {
                read.read_exact(&mut bytes).map_err(|e| bad(format!("`{member}` cannot be read to its end: {e}")))?;
                Ok(wanted.then(|| picture(&bytes, shape)))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::data::source::{all, elsewhere};
    use crate::npy::Writer;
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    fn pixels(path: &Path) -> Vec<u8> {
        let source = elsewhere(path).unwrap();
        source.batches(all(source.as_ref()), 2).flat_map(|b| b.unwrap()).flat_map(|p| p.pixels).collect()
    }

    #[test]
    fn arrays_are_read_stored_and_compressed() {
        let folder = std::env::temp_dir().join(format!("pgn-bench-arrays-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let bytes: Vec<u8> = (0..5 * 2 * 3 * 3).collect();
        let write = |name: &str, shape: &[u64], descr: &str, bytes: &[u8]| {
            let path = folder.join(name);
            let mut npz = Writer::new(File::create(&path).unwrap());
            npz.add("arr_0", descr, shape, bytes.iter().map(|b| [*b])).unwrap();
            npz.add("arr_1", "<i8", &[5], [4i64, 0, 0, 1, 2].map(i64::to_le_bytes).into_iter()).unwrap();
            npz.finish().unwrap();
            path
        };
        let stored = write("stored.NPZ", &[5, 2, 3, 3], "|u1", &bytes);
        assert_eq!(pixels(&stored), bytes);
        let source = elsewhere(&stored).unwrap();
        assert_eq!(source.labels().unwrap(), Some(Labels { of: vec![4, 0, 0, 1, 2], classes: 5 }));
        let some: Vec<Picture> = source.batches(vec![1, 4], 9).flat_map(|b| b.unwrap()).collect();
        assert_eq!((some.len(), some[1].size, &some[1].pixels[..]), (2, [2, 3], &bytes[72..]));

        // As numpy.savez_compressed writes it.
        let whole = std::fs::read(&stored).unwrap();
        let at = source.batches(vec![0], 1).next().map(|_| whole.windows(6).position(|w| w == b"\x93NUMPY").unwrap());
        let array = &whole[at.unwrap()..][..128 + bytes.len()];
        let compressed = folder.join("compressed.npz");
        let mut zip = ZipWriter::new(File::create(&compressed).unwrap());
        zip.start_file("x.npy", SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)).unwrap();
        zip.write_all(array).unwrap();
        zip.finish().unwrap();
        assert_eq!(pixels(&compressed), bytes);
        let some: Vec<Picture> =
            elsewhere(&compressed).unwrap().batches(vec![1, 4], 1).flat_map(|b| b.unwrap()).collect();
        assert_eq!((some.len(), &some[0].pixels[..]), (2, &bytes[18..36]));
        std::fs::write(folder.join("alone.npy"), array).unwrap();
        assert_eq!(pixels(&folder.join("alone.npy")), bytes);

        let grey = write("grey.npz", &[5, 18, 1, 1], "|u1", &bytes);
        assert_eq!(pixels(&grey)[..6], [0, 0, 0, 1, 1, 1]);
        let refused = |path: &Path| elsewhere(path).err().unwrap().to_string();
        assert!(refused(&write("planes.npz", &[5, 3, 2, 3], "|i1", &bytes)).contains("`arr_0` holds |i1 of shape"));
        std::fs::write(folder.join("cut.npy"), &array[..100]).unwrap();
        assert!(refused(&folder.join("cut.npy")).contains("ends within its header"));
        std::fs::write(folder.join("cut.npy"), &array[..150]).unwrap();
        assert!(refused(&folder.join("cut.npy")).contains("claims shape [5, 2, 3, 3] in 150 bytes"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
