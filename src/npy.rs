//! Arrays of numpy, alone (`.npy`) and in archives (`.npz`). What a file claims is checked before anything is allocated, and
//! nothing in it is ever executed: a pickled object is an array of [`Kind::Other`].
//!
//! The format is that of numpy's documentation (`numpy.lib.format`): a magic word, a version, the length of the header, and a
//! Python dictionary of element type, order and shape.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use half::f16;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Data begin at a multiple of it.
const ALIGNMENT: usize = 64;
const LONGEST_HEADER: usize = 1 << 16;
/// Characters of a header that a message quotes.
const QUOTED: usize = 100;
/// More than deflate can shrink anything.
const SHRINK: u64 = 1100;
/// Bytes of one character of a text.
const CHARACTER: usize = 4;

/// What the elements of an array are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Floating point, of 2, 4 or 8 bytes.
    Float,
    /// Integers with a sign, of 1 to 8 bytes.
    Signed,
    /// Integers without a sign, of 1 to 8 bytes.
    Unsigned,
    /// Truth values of one byte.
    Bool,
    /// Texts of a fixed number of characters.
    Text,
    /// Anything else: complex numbers, dates, bytes, pickled objects.
    Other,
}

/// What the head of an array says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The element type in numpy's words, `<f8` say.
    pub descr: String,
    /// What it means.
    pub kind: Kind,
    /// Bytes of an element.
    pub width: usize,
    /// Whether the most significant byte comes first.
    pub big_endian: bool,
    /// Whether the first axis is the fastest, not the last one.
    pub fortran: bool,
    /// Lengths of the axes; none for a scalar.
    pub shape: Vec<u64>,
    /// Bytes before the first element.
    pub start: u64,
    /// Bytes of all elements.
    pub bytes: u64,
}

/// Reads the head of an array, and leaves `read` at its first element.
///
/// # Errors
/// In words to follow the array's name: when it is no array, or claims what cannot be.
pub fn header(read: &mut impl Read) -> Result<Header, String> {
    let mut exact = |length: usize| -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; length];
        read.read_exact(&mut bytes).map_err(|e| format!("ends within its header ({e})"))?;
        Ok(bytes)
    };
    let start = exact(MAGIC.len() + 2)?;
    if !start.starts_with(MAGIC) {
        return Err("is not an array of numpy".to_owned());
    }
    // The header's length has two bytes in version 1, then four.
    let words = exact(if start[MAGIC.len()] > 1 { 4 } else { 2 })?;
    let length = words.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
    if length > LONGEST_HEADER {
        return Err(format!("claims a header of {length} bytes"));
    }
    let text = String::from_utf8_lossy(&exact(length)?).into_owned();
    let quoted = || text.trim().chars().take(QUOTED).collect::<String>();
    let (descr, fortran, shape) =
        Words(&text).dictionary().ok_or_else(|| format!("is not a plain array: its header says {}", quoted()))?;
    let (kind, width) = element(&descr);
    let elements = shape.iter().try_fold(1, |elements: u64, &length| elements.checked_mul(length));
    let bytes = elements
        .and_then(|elements| elements.checked_mul(width as u64))
        .ok_or_else(|| format!("claims more than can be: its header says {}", quoted()))?;
    let start = (start.len() + words.len() + length) as u64;
    Ok(Header { big_endian: descr.starts_with('>'), descr, kind, width, fortran, shape, start, bytes })
}

/// Kind and width of an element type: a byte order, a letter and a number.
fn element(descr: &str) -> (Kind, usize) {
    let name = descr.trim_start_matches(['<', '>', '|', '=']);
    let width = name.get(1..).and_then(|width| width.parse().ok()).unwrap_or(0);
    match (name.chars().next(), width) {
        (Some('f'), 2 | 4 | 8) => (Kind::Float, width),
        (Some('i'), 1 | 2 | 4 | 8) => (Kind::Signed, width),
        (Some('u'), 1 | 2 | 4 | 8) => (Kind::Unsigned, width),
        (Some('b'), 1) => (Kind::Bool, width),
        (Some('U'), 0..=LONGEST_HEADER) => (Kind::Text, width * CHARACTER),
        _ => (Kind::Other, width),
    }
}

/// What is left of a header's text. Lists within lists, which only structured arrays have, are not followed.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    /// Element type, whether the order is Fortran's, and shape.
    fn dictionary(&mut self) -> Option<(String, bool, Vec<u64>)> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.symbol('{')?;
        while self.symbol('}').is_none() {
            let key = self.text()?;
            self.symbol(':')?;
            match key {
                "descr" => descr = Some(self.text()?.to_owned()),
                "fortran_order" => fortran = Some(self.truth()?),
                "shape" => shape = Some(self.numbers()?),
                _ => return None,
            }
            self.comma('}')?;
        }
        Some((descr?, fortran?, shape?))
    }

    fn symbol(&mut self, symbol: char) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(symbol)?;
        Some(())
    }

    /// A comma, or the end of a list that is to come.
    fn comma(&mut self, end: char) -> Option<()> {
        self.symbol(',').or_else(|| self.0.trim_start().starts_with(end).then_some(()))
    }

    fn text(&mut self) -> Option<&'a str> {
        let quote = if self.symbol('\'').is_some() { '\'' } else { self.symbol('"').map(|()| '"')? };
        let (text, rest) = self.0.split_once(quote)?;
        self.0 = rest;
        Some(text)
    }

    fn word(&mut self) -> &'a str {
        let text = self.0.trim_start();
        let (word, rest) = text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len()));
        self.0 = rest;
        word
    }

    fn truth(&mut self) -> Option<bool> {
        match self.word() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        }
    }

    fn numbers(&mut self) -> Option<Vec<u64>> {
        let mut numbers = Vec::new();
        self.symbol('(')?;
        while self.symbol(')').is_none() {
            // Python 2 wrote `3L`.
            numbers.push(self.word().trim_end_matches('L').parse().ok()?);
            self.comma(')')?;
        }
        Some(numbers)
    }
}

impl Header {
    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// All elements as f64, the last axis fastest; `read` is at the first of them, and its end is looked at, for an archive's
    /// checksum is there.
    ///
    /// # Errors
    /// In words to follow the array's name: when they are not numbers, or fewer than claimed, or damaged, or in Fortran's order
    /// along more than two axes.
    pub fn numbers(&self, read: impl Read) -> Result<Vec<f64>, String> {
        if matches!(self.kind, Kind::Text | Kind::Other) {
            return Err(format!("holds {}, not numbers", self.descr));
        }
        let values: Vec<f64> = self.read(read)?.chunks_exact(self.width).map(|bytes| self.number(bytes)).collect();
        match (self.fortran, &self.shape[..]) {
            (true, &[rows, columns]) => {
                let [rows, columns] = [rows, columns].map(|n| n as usize);
                Ok((0..rows * columns).map(|at| values[at % columns * rows + at / columns]).collect())
            }
            (true, [_, _, _, ..]) => Err(format!("is in Fortran's order, with shape {:?}", self.shape)),
            _ => Ok(values),
        }
    }

    /// A single text.
    ///
    /// # Errors
    /// In words to follow the array's name: when it is no such array, or damaged.
    pub fn text(&self, read: impl Read) -> Result<String, String> {
        if self.kind != Kind::Text || !self.shape.is_empty() || self.width > LONGEST_HEADER {
            return Err(format!("holds {} of shape {:?}, not a text", self.descr, self.shape));
        }
        let bytes = self.read(read)?;
        let text: Option<String> = bytes.chunks_exact(CHARACTER).map(|c| char::from_u32(self.word(c) as u32)).collect();
        let text = text.ok_or_else(|| "holds what is no text".to_owned())?;
        Ok(text.trim_end_matches('\0').to_owned())
    }

    fn read(&self, mut read: impl Read) -> Result<Vec<u8>, String> {
        let damaged = |e: io::Error| format!("is damaged: {e}");
        let mut bytes = Vec::new();
        read.by_ref().take(self.bytes).read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 != self.bytes {
            return Err(format!("has {} of the {} bytes of its shape {:?}", bytes.len(), self.bytes, self.shape));
        }
        read.read(&mut [0]).map_err(damaged)?;
        Ok(bytes)
    }

    /// An element's bytes as one word.
    fn word(&self, bytes: &[u8]) -> u64 {
        let join = |word: u64, byte: &u8| word << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
    }

    fn number(&self, bytes: &[u8]) -> f64 {
        let word = self.word(bytes);
        match (self.kind, self.width) {
            (Kind::Float, 2) => f16::from_bits(word as u16).to_f64(),
            (Kind::Float, 4) => f64::from(f32::from_bits(word as u32)),
            (Kind::Float, _) => f64::from_bits(word),
            (Kind::Signed, width) => {
                let unused = 64 - 8 * width;
                ((word << unused) as i64 >> unused) as f64
            }
            _ => word as f64,
        }
    }
}

/// An archive of arrays, `.npz`.
pub struct Archive {
    zip: ZipArchive<BufReader<File>>,
    length: u64,
}

/// An array in an archive, which reads its elements.
pub struct Member<'a> {
    /// What it says of itself.
    pub header: Header,
    /// Where in the file its elements are, if they are there as they are, not compressed.
    pub at: Option<u64>,
    elements: Box<dyn Read + 'a>,
}

impl Archive {
    /// Reads what members there are.
    ///
    /// # Errors
    /// When it is no archive.
    pub fn new(file: File) -> Result<Self, String> {
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        Ok(Self { zip: ZipArchive::new(BufReader::new(file)).map_err(|e| e.to_string())?, length })
    }

    /// Names of the arrays, in the archive's order.
    pub fn names(&self) -> Vec<String> {
        let members = self.zip.file_names().flatten();
        members.filter_map(|name| Some(name.strip_suffix(".npy")?.to_owned())).collect()
    }

    /// The array of a name.
    ///
    /// # Errors
    /// A sentence with the name: when it is not there, is no array, or claims more bytes than the file can hold.
    pub fn member(&mut self, name: &str) -> Result<Member<'_>, String> {
        let length = self.length;
        let mut entry = self.zip.by_name(&format!("{name}.npy")).map_err(|e| match e {
            zip::result::ZipError::FileNotFound => format!("no array `{name}`"),
            e => format!("`{name}`: {e}"),
        })?;
        let header = header(&mut entry).map_err(|what| format!("`{name}` {what}"))?;
        let stored = entry.compression() == CompressionMethod::Stored;
        let at = entry.data_start().filter(|_| stored).map(|at| at + header.start);
        let holds = if stored { length } else { length.saturating_mul(SHRINK) };
        if at.unwrap_or(0).saturating_add(header.bytes) > holds {
            return Err(format!("`{name}` claims shape {:?} in a file of {length} bytes", header.shape));
        }
        Ok(Member { header, at, elements: Box::new(entry) })
    }
}

impl Read for Member<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.elements.read(buffer)
    }
}

/// Writes an archive of arrays, not compressed, as `numpy.savez` does.
pub struct Writer<W: Write + Seek>(ZipWriter<W>);

impl<W: Write + Seek> Writer<W> {
    /// No array yet.
    pub fn new(out: W) -> Self {
        Self(ZipWriter::new(out))
    }

    /// Adds an array: its element type in numpy's words, its shape, and the bytes of its elements, the last axis fastest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add<const WIDTH: usize>(
        &mut self,
        name: &str,
        descr: &str,
        shape: &[u64],
        elements: impl Iterator<Item = [u8; WIDTH]>,
    ) -> io::Result<()> {
        let axes: String = shape.iter().map(|length| format!("{length}, ")).collect();
        let mut head = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", axes.trim_end());
        let before = MAGIC.len() + 4;
        let padded = (before + head.len() + 1).next_multiple_of(ALIGNMENT) - before;
        head.extend(std::iter::repeat_n(' ', padded - head.len() - 1));
        head.push('\n');
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        self.0.start_file(format!("{name}.npy"), options)?;
        let mut out = BufWriter::new(&mut self.0);
        out.write_all(MAGIC)?;
        out.write_all(&[1, 0])?;
        out.write_all(&(padded as u16).to_le_bytes())?;
        out.write_all(head.as_bytes())?;
        for element in elements {
            out.write_all(&element)?;
        }
        out.flush()
    }

    /// Adds a text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_text(&mut self, name: &str, text: &str) -> io::Result<()> {
        // Numpy has no text of no character.
        let characters = text.chars().count().max(1);
        let elements = text.chars().chain(text.is_empty().then_some('\0'));
        let descr = format!("<U{characters}");
        self.add(name, &descr, &[], elements.map(|c| u32::from(c).to_le_bytes()))
    }

    /// The end. Left to its end of life, the archive would hide a full disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> io::Result<W> {
        Ok(self.0.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An array as numpy writes it: header of version 1, data.
    fn array(head: &str, data: &[u8]) -> Vec<u8> {
        [MAGIC, &[1, 0], &(head.len() as u16).to_le_bytes(), head.as_bytes(), data].concat()
    }

    fn plain(descr: &str, order: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n")
    }

    fn numbers(descr: &str, order: &str, shape: &str, data: &[u8]) -> Result<Vec<f64>, String> {
        let bytes = array(&plain(descr, order, shape), data);
        let mut read = &bytes[..];
        header(&mut read)?.numbers(read)
    }

    #[test]
    fn every_element_type_is_what_numpy_means() {
        // numpy.array([1.5, -2], descr).tobytes() and the like.
        for (descr, data, want) in [
            ("<f2", &[0, 0x3e, 0, 0xc0][..], [1.5, -2.0]),
            (">f2", &[0x3e, 0, 0xc0, 0], [1.5, -2.0]),
            ("<f4", &[0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0], [1.5, -2.0]),
            (">f8", &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0], [1.5, -2.0]),
            ("|i1", &[7, 0xfe], [7.0, -2.0]),
            (">i2", &[0, 7, 0xff, 0xfe], [7.0, -2.0]),
            ("<i4", &[7, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff], [7.0, -2.0]),
            ("|u1", &[7, 0xfe], [7.0, 254.0]),
            ("<u8", &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], [7.0, 4294967296.0]),
            ("|b1", &[0, 1], [0.0, 1.0]),
        ] {
            assert_eq!(numbers(descr, "False", "(2,)", data).unwrap(), want, "{descr}");
        }
    }

    #[test]
    fn orders_shapes_and_words() {
        let data = [1, 2, 3, 4, 5, 6];
        assert_eq!(numbers("|u1", "False", "(2, 3)", &data).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        // numpy.asfortranarray([[1, 3, 5], [2, 4, 6]])
        assert_eq!(numbers("|u1", "True", "(2, 3)", &data).unwrap(), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        assert!(numbers("|u1", "True", "(1, 2, 3)", &data).unwrap_err().contains("Fortran's order"));
        assert_eq!(numbers("|u1", "False", "()", &data[..1]).unwrap(), [1.0]);
        assert_eq!(numbers("|u1", "False", "(0, 7)", &[]).unwrap(), [0.0; 0]);
        let loose = array("{\"shape\":(3L,),\"fortran_order\":False,\"descr\":\"|u1\"}", &data);
        let head = header(&mut &loose[..]).unwrap();
        assert_eq!((head.shape, head.start as usize), (vec![3], loose.len() - data.len()));
    }

    #[test]
    fn what_is_no_plain_array_is_refused() {
        let refused = |bytes: &[u8]| header(&mut { bytes }).unwrap_err();
        assert!(refused(b"PK\x03\x04......").contains("is not an array of numpy"));
        assert!(refused(b"\x93NUMPY\x01").contains("ends within its header"));
        assert!(refused(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("claims a header of 4294967295 bytes"));
        for head in ["[[[[", "", "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}", "{'descr': '<f4'}"]
        {
            assert!(refused(&array(head, &[])).contains("is not a plain array"), "{head}");
        }
        assert!(refused(&array(&"(".repeat(60_000), &[])).len() < 200);
        let wide = plain("<f8", "False", "(4294967296, 4294967296)");
        assert!(refused(&array(&wide, &[])).contains("claims more than can be"));
        assert!(numbers("|O", "False", "()", b"pickle").unwrap_err().contains("holds |O, not numbers"));
        assert!(numbers("<f4", "False", "(2,)", &[0; 7]).unwrap_err().contains("has 7 of the 8 bytes"));
    }

    #[test]
    fn archives_survive_and_say_where_their_elements_are() {
        let path = std::env::temp_dir().join(format!("pgn-bench-npy-{}.npz", std::process::id()));
        let mut writer = Writer::new(File::create(&path).unwrap());
        writer.add("a", "<f8", &[2, 1], [0.5f64, -3.0].map(f64::to_le_bytes).into_iter()).unwrap();
        writer.add_text("said", "größer").unwrap();
        writer.add_text("nothing", "").unwrap();
        writer.finish().unwrap();
        let mut archive = Archive::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(archive.names(), ["a", "said", "nothing"]);
        let member = archive.member("a").unwrap();
        let (head, at) = (member.header.clone(), member.at.unwrap() as usize);
        assert_eq!((head.numbers(member).unwrap(), &head.shape[..]), (vec![0.5, -3.0], &[2, 1][..]));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[at..at + 8], 0.5f64.to_le_bytes());
        let text = |archive: &mut Archive, name: &str| {
            let member = archive.member(name).unwrap();
            member.header.clone().text(member)
        };
        assert_eq!(text(&mut archive, "said").unwrap(), "größer");
        assert_eq!(text(&mut archive, "nothing").unwrap(), "");
        assert!(text(&mut archive, "a").unwrap_err().contains("not a text"));
        assert!(archive.member("b").err().unwrap().contains("no array `b`"));

        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let mut archive = Archive::new(File::open(&path).unwrap()).unwrap();
        let member = archive.member("a").unwrap();
        assert!(member.header.clone().numbers(member).unwrap_err().contains("is damaged"));
        let mut wide = bytes;
        let shape = wide.windows(5).position(|w| w == b"(2, 1").unwrap();
        wide[shape + 1..shape + 5].copy_from_slice(b"9999");
        std::fs::write(&path, wide).unwrap();
        let mut archive = Archive::new(File::open(&path).unwrap()).unwrap();
        assert!(archive.member("a").err().unwrap().contains("claims shape [9999]"));
        std::fs::remove_file(path).unwrap();
    }
}
