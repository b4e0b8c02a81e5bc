//! Images that another program writes: raw bytes, or a tar archive of image files. A measure looks at images in an order of its own, so
//! they are kept in a temporary file that has no name, and goes with the process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::decode::decode;
use super::room::Room;
use super::tree::{self, Holds, Tree};
use super::{Batches, Labels, Picture, Source, in_chunks};
use crate::data::{Split, name_of};
use crate::error::{AtPath, Error, Result};

/// What the stream is called in messages and rows.
pub const NAME: &str = "stdin";
/// A record of a tar archive, in bytes.
const RECORD: usize = 512;
/// Where the first one says that it is one, and how.
const MAGIC: (usize, &[u8]) = (257, b"ustar");
/// Programs that unpack a stream, and how one begins that they have packed.
const PACKED: [(&str, &[u8]); 4] = [
    ("gzip", &[0x1f, 0x8b]),
    ("bzip2", b"BZh"),
    ("xz", &[0xfd, b'7', b'z', b'X', b'Z']),
    ("zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
];
/// Most bytes of an image file.
const LONGEST: u64 = 1 << 30;

fn bad(what: impl Into<String>) -> Error {
    Error::content(NAME, what)
}

/// Reads a stream to its end: a tar archive of image files, by the rules of folders; or raw bytes `[N, height, width, 3]`, red, green,
/// blue, whose height and width are given.
///
/// # Errors
/// When the stream holds no image, a part of one, or raw bytes of unknown size; when it cannot be read or kept.
pub fn read(mut from: impl Read, size: Option<[usize; 2]>) -> Result<Box<dyn Source>> {
    let mut head = Vec::new();
    from.by_ref().take(RECORD as u64).read_to_end(&mut head).at("read", NAME)?;
    let is_archive = head.get(MAGIC.0..).is_some_and(|rest| rest.starts_with(MAGIC.1));
    match size {
        _ if head.is_empty() => Err(bad("nothing came: it holds no image")),
        Some(_) if is_archive => {
            Err(bad("a tar archive came, whose images have sizes of their own: leave --image-size out"))
        }
        Some(size) => Ok(Box::new(Raw::new(kept(Cursor::new(head).chain(from))?, size)?)),
        None if is_archive => Ok(Box::new(Packed::new(kept(Cursor::new(head).chain(from))?)?)),
        None => Err(match PACKED.iter().find(|(_, start)| head.starts_with(start)) {
            Some((program, _)) => bad(format!(
                "what came is packed by {program}: unpack it on the way, as `{program} -dc FILE | pgn-bench …`"
            )),
            None => bad(
                "what came is no tar archive; raw images need --image-size HEIGHTxWIDTH, and are 3·height·width bytes each: red, green, \
                 blue, row by row",
            ),
        }),
    }
}

/// A file without a name that holds the stream, and its length.
fn kept(mut from: impl Read) -> Result<(File, u64)> {
    static KEPT: AtomicUsize = AtomicUsize::new(0);
    let number = KEPT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("pgn-bench-{}-{number}.images", std::process::id()));
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).at("create", &path)?;
    std::fs::remove_file(&path).at("remove", &path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((file, length)),
            Ok(n) => {
                file.write_all(&buffer[..n]).at("fill (TMPDIR says where it lies)", &path)?;
                length += n as u64;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).at("read", NAME),
        }
    }
}

/// Raw images of one size.
struct Raw {
    file: File,
    size: [usize; 2],
    len: usize,
}

impl Raw {
    fn new((file, length): (File, u64), size: [usize; 2]) -> Result<Self> {
        let [height, width] = size;
        Room::default().take(width, height).map_err(|what| bad(format!("--image-size: {what}")))?;
        let stride = (3 * height * width) as u64;
        let (len, rest) = (length / stride, length % stride);
        if rest > 0 {
            return Err(bad(format!(
                "{len} images of {height}×{width}×3 = {stride} bytes came, and {rest} bytes more: the last image is cut, or --image-size \
                 is not theirs"
            )));
        }
        Ok(Self { file, size, len: usize::try_from(len).unwrap_or(usize::MAX) })
    }
}

impl Source for Raw {
    fn len(&self) -> usize {
        self.len
    }

    fn labels(&self) -> Result<Option<Labels>> {
        Ok(None)
    }

    fn describe(&self, index: usize) -> String {
        format!("image {index} of {NAME}")
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_> {
        let stride = 3 * self.size[0] * self.size[1];
        in_chunks(indices, size, move |chunk| {
            let one = |&i: &usize| {
                let mut pixels = vec![0; stride];
                self.file.read_exact_at(&mut pixels, (i * stride) as u64).at("read", NAME)?;
                Ok(Picture::rgb(pixels, self.size))
            };
            chunk.iter().map(one).collect()
        })
    }
}

/// Image files of a tar archive, in order.
struct Packed {
    file: File,
    /// Folder that the images are below.
    root: PathBuf,
    images: Vec<PathBuf>,
    /// Where the content of a member begins, and its length.
    places: BTreeMap<PathBuf, (u64, usize)>,
}

impl Packed {
    fn new((file, length): (File, u64)) -> Result<Self> {
        let unreadable = |e: std::io::Error| bad(format!("not a readable tar archive: {e}"));
        let (mut tree, mut places, mut end) = (Tree::default(), BTreeMap::new(), 0);
        let mut archive = tar::Archive::new(BufReader::new(&file));
        std::io::Seek::seek(&mut &file, std::io::SeekFrom::Start(0)).at("read", NAME)?;
        for entry in archive.entries_with_seek().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (at, size) = (entry.raw_file_position(), entry.size());
            end = at.saturating_add(size);
            let path = entry.path().map_err(unreadable)?;
            let path: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
            let kind = entry.header().entry_type();
            if !kind.is_file() {
                if !kind.is_dir() && tree::is_image(&path) {
                    return Err(bad(format!(
                        "{} is no plain file, but a {kind:?}: pack images themselves",
                        name_of(&path)
                    )));
                }
                continue;
            }
            if size > LONGEST || end > length {
                return Err(bad(format!("{} claims {size} bytes, which are not there or too many", name_of(&path))));
            }
            let size = size as usize;
            tree.add(path.clone(), || {
                let mut head = vec![0; size.min(RECORD)];
                file.read_exact_at(&mut head, at).is_ok() && tree::begins_image(&head[..])
            });
            if places.insert(path.clone(), (at, size)).is_some() {
                return Err(bad(format!("{} comes twice: each image needs a name of its own", name_of(&path))));
            }
        }
        // An archive ends in records of zeros, which one that was cut between two files lacks.
        if length < end.next_multiple_of(RECORD as u64) + RECORD as u64 {
            return Err(bad(
                "the tar archive ends without its last records: it was cut, or its writer did not close it",
            ));
        }
        let root = Path::new("");
        let Holds::Images(images) = tree.holds(Path::new(NAME))? else {
            return Err(bad("holds no image files: only those are read from an archive"));
        };
        let (below, images) = tree::images_of(root, images, Split::All)?;
        Ok(Self { file, root: below, images, places })
    }

    fn decoded(&self, index: usize, room: &Room) -> Result<Picture> {
        let fault = |what: String| Error::invalid(format!("{}: {what}", self.describe(index)));
        let place = self.images.get(index).and_then(|image| self.places.get(&self.root.join(image)));
        let &(at, size) = place.ok_or_else(|| fault("is gone".to_owned()))?;
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, at).at("read", NAME)?;
        decode(&bytes, room, &fault)
    }
}

impl Source for Packed {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn labels(&self) -> Result<Option<Labels>> {
        tree::classes(&self.root, &self.images)
    }

    fn describe(&self, index: usize) -> String {
        let image = self.images.get(index).map(|image| name_of(&self.root.join(image)));
        format!("{} in {NAME}", image.unwrap_or_default())
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_> {
        in_chunks(indices, size, move |chunk| {
            let room = Room::default();
            chunk.par_iter().map(|&i| self.decoded(i, &room)).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::all;

    fn pixels(source: &dyn Source) -> Vec<u8> {
        source.batches(all(source), 2).flat_map(|batch| batch.unwrap()).flat_map(|p| p.pixels).collect()
    }

    fn refused(bytes: &[u8], size: Option<[usize; 2]>) -> String {
        read(bytes, size).err().unwrap().to_string()
    }

    #[test]
    fn raw_images_are_whole_and_of_a_size_that_was_said() {
        let bytes: Vec<u8> = (0..5 * 2 * 3 * 3).collect();
        let source = read(&bytes[..], Some([2, 3])).unwrap();
        assert_eq!((source.len(), pixels(source.as_ref())), (5, bytes.clone()));
        let some: Vec<Picture> = source.batches(vec![1, 4], 9).flat_map(|b| b.unwrap()).collect();
        assert_eq!((some.len(), some[1].size, &some[1].pixels[..]), (2, [2, 3], &bytes[72..]));
        let cut = refused(&bytes[..73], Some([2, 3]));
        assert!(cut.contains("4 images of 2×3×3 = 18 bytes came, and 1 bytes more"), "{cut}");
        assert!(refused(&bytes, None).contains("--image-size HEIGHTxWIDTH"));
        assert!(refused(PACKED[2].1, None).contains("xz -dc FILE"));
        assert!(refused(&[], Some([2, 3])).contains("nothing came"));
        assert!(refused(&bytes, Some([1 << 14, 1 << 14])).contains("--image-size: it has 16384×16384 pixels"));
    }

    /// As tar(1) lays it out.
    fn packed(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, name, *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn archives_follow_the_rules_of_folders() {
        let png = |value: u8| {
            let mut bytes = Cursor::new(Vec::new());
            let image = image::RgbImage::from_pixel(2, 1, image::Rgb([value; 3]));
            image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            bytes.into_inner()
        };
        let [a, b, c] = [10, 9, 1].map(png);
        let long = format!("{}/1.png", "x".repeat(120));
        let members = [("./set/10.png", &a[..]), ("./set/9.png", &b), (&long, &c), (".hidden/0.png", b"no image")];
        let whole = packed(&members[..2]);
        assert_eq!(pixels(read(&whole[..], None).unwrap().as_ref()), [[9; 6], [10; 6]].concat(), "by number");
        let source = read(&packed(&members)[..], None).unwrap();
        assert_eq!((source.len(), source.labels().unwrap().unwrap().classes), (3, 2));
        assert!(source.describe(0).ends_with("set/9.png in stdin"), "{}", source.describe(0));

        for (bytes, size, said) in [
            (&whole[..], Some([1, 2]), "leave --image-size out"),
            (&whole[..512 + 40], None, "claims"),
            (&whole[..1024], None, "ends without its last records"),
            (&packed(&[("0.png", &a), ("0.png", &b)]), None, "0.png comes twice"),
            (&packed(&[("0.png", &a), ("1.dat", &b)]), None, "1 .dat"),
            (&packed(&[("notes.txt", b"words")]), None, "stdin"),
        ] {
            let error = refused(bytes, size);
            assert!(error.contains(said), "{said}: {error}");
        }
        let damaged = read(&packed(&[("0.png", b"nonsense")])[..], None).unwrap();
        let error = damaged.batches(vec![0], 1).next().unwrap().unwrap_err().to_string();
        assert!(error.contains("0.png in stdin: image cannot be decoded"), "{error}");
    }
}
