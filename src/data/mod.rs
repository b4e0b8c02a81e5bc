//! Data sets: decoded once into bytes, labelled, split.

mod archive;
mod cache;
mod celebahq;
pub mod cifar10;
pub mod hub;
pub mod loader;
mod locate;
mod pickle;
pub mod place;
pub mod resize;
pub mod rounded;
mod shapes;
pub mod source;
pub mod stl10;

use std::fmt;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{Device, Tensor};
use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::sha256;
use source::Source;

/// Every data set known by name.
pub const IDS: [&str; 4] = ["shapes", "cifar10", "stl10", "celebahq"];

/// A data set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dataset {
    /// One of [`IDS`].
    Known(String),
    /// Whatever [`source::part`] opens.
    #[allow(missing_docs)]
    Elsewhere { path: PathBuf },
}

/// Part of a data set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Labelled images, or simply those to train on.
    Train,
    /// Held out.
    Test,
    /// Held out, where there are two such parts.
    Validation,
    /// Without labels (STL-10).
    Unlabeled,
    /// Everything (CelebA-HQ).
    All,
}

impl Split {
    /// All of them by name.
    pub const ALL: [(&str, Self); 5] = [
        ("train", Self::Train),
        ("test", Self::Test),
        ("validation", Self::Validation),
        ("unlabeled", Self::Unlabeled),
        ("all", Self::All),
    ];

    /// The split that a folder or file of this name holds, in small letters or capitals.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_lowercase().as_str() {
            "train" => Some(Self::Train),
            "val" | "valid" | "validation" => Some(Self::Validation),
            "test" => Some(Self::Test),
            "unlabeled" => Some(Self::Unlabeled),
            _ => None,
        }
    }

    /// The split of a name.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|(n, _)| *n == name).map(|(_, split)| split);
        found.or_else(|| Self::named(name)).ok_or_else(|| {
            Error::invalid(format!("unknown split `{name}`; known: {}", Self::ALL.map(|(n, _)| n).join(", ")))
        })
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(Self::ALL.into_iter().find(|(_, s)| s == self).map_or("", |(name, _)| name))
    }
}

impl Dataset {
    /// Name in result rows.
    pub fn name(&self) -> String {
        match self {
            Self::Known(id) => id.clone(),
            Self::Elsewhere { path } => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// The splits there may be.
    pub fn splits(&self) -> &'static [Split] {
        match self {
            Self::Known(id) if id == "stl10" => &[Split::Unlabeled, Split::Train, Split::Test],
            Self::Known(id) if id == "celebahq" => &[Split::Train, Split::Test, Split::All],
            Self::Known(_) => &[Split::Train, Split::Test],
            Self::Elsewhere { .. } => &[Split::Train, Split::Test, Split::Validation, Split::Unlabeled, Split::All],
        }
    }
}

/// Bytes of images, in memory or mapped from a file.
pub enum Pixels {
    /// In memory.
    Memory(Vec<u8>),
    /// A part of a mapped file.
    #[allow(missing_docs)]
    Mapped { map: Arc<Mmap>, range: Range<usize> },
}

impl Deref for Pixels {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped { map, range } => &map[range.clone()],
        }
    }
}

/// Decoded images of one size with a label each.
pub struct Images {
    /// Rows and columns in pixels.
    pub side: usize,
    /// `[N, side, side, 3]`, red, green, blue.
    pub pixels: Pixels,
    /// Class of each image; zero where images have no labels, or such as are no classes.
    pub labels: Vec<u16>,
    /// Number of classes; one where images have no labels.
    pub classes: usize,
    /// Data set and split, such as `cifar10:train`.
    pub name: String,
    /// Images that were not RGB, such as `12 greyscale, 3 RGBA`.
    pub converted: String,
    /// Why labels are of no use.
    label_fault: Option<String>,
    fingerprint: OnceLock<String>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} images of {} at {} pixels", self.len(), self.name, self.side)
    }
}

impl Images {
    /// Images of a data set's split.
    pub fn new(name: &str, side: usize, pixels: Pixels, labels: Vec<u16>, classes: usize) -> Self {
        let (converted, fingerprint) = (String::new(), OnceLock::new());
        Self { side, pixels, labels, classes, name: name.to_owned(), converted, label_fault: None, fingerprint }
    }

    /// Number of classes, for who uses labels.
    ///
    /// # Errors
    /// When there are fewer than two, or the labels cannot be used.
    pub fn labelled(&self) -> Result<usize> {
        match &self.label_fault {
            None => distinct(&self.name, self.classes),
            Some(fault) => Err(Error::invalid(format!("{} has labels that are no classes: {fault}", self.name))),
        }
    }

    /// The same, of one class.
    fn unlabelled(self) -> Self {
        Self { labels: vec![0; self.len()], classes: 1, label_fault: None, ..self }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one image.
    pub fn stride(&self) -> usize {
        self.side * self.side * 3
    }

    /// The bytes of image `index`.
    pub fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.stride()..][..self.stride()]
    }

    /// SHA-256 over the decoded pixels, and what they were made from where that was not RGB.
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| match self.converted.as_str() {
            "" => sha256(&self.pixels),
            converted => format!("{} from {converted}", sha256(&self.pixels)),
        })
    }

    /// Some of the images under a name of their own.
    fn part(self, name: &str, images: Range<usize>) -> Self {
        let stride = self.stride();
        let pixels = match &self.pixels {
            Pixels::Memory(bytes) => Pixels::Memory(bytes[images.start * stride..images.end * stride].to_vec()),
            Pixels::Mapped { map, range } => {
                let range = range.start + images.start * stride..range.start + images.end * stride;
                Pixels::Mapped { map: map.clone(), range }
            }
        };
        let labels = self.labels[images].to_vec();
        Self { pixels, labels, name: name.to_owned(), fingerprint: OnceLock::new(), ..self }
    }
}

/// Files that hold a split, and how to open them.
struct ImagesOf {
    files: Vec<PathBuf>,
    open: Box<dyn FnOnce() -> Result<Box<dyn Source>>>,
}

impl From<Box<dyn Source>> for ImagesOf {
    fn from(source: Box<dyn Source>) -> Self {
        Self { files: source.files(), open: Box::new(|| Ok(source)) }
    }
}

/// A path as messages show it.
pub(crate) fn name_of(path: &Path) -> String {
    path.display().to_string()
}

/// A byte as the networks see it: 0..255 to [−1, 1].
pub fn to_unit(byte: u8) -> f32 {
    f32::from(byte) / 127.5 - 1.0
}

/// A network's output in [−1, 1] rounded to the nearest of 256 levels, as an 8-bit file would hold it.
pub fn to_byte(unit: f32) -> u8 {
    // A cast from float saturates.
    ((unit + 1.0) * 127.5).round() as u8
}

/// Bytes `[N, side, side, 3]` as a tensor of the same shape in [−1, 1].
///
/// # Errors
/// When the device refuses the memory.
pub fn to_tensor(bytes: &[u8], side: usize, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = bytes.iter().map(|&b| to_unit(b)).collect();
    Ok(Tensor::from_vec(values, (bytes.len() / (side * side * 3), side, side, 3), device)?)
}

/// Images `[N, H, W, 3]` in [−1, 1] rounded to bytes.
///
/// # Errors
/// When the tensor cannot be read, or has values that are not finite.
pub fn to_bytes(images: &Tensor) -> Result<Vec<u8>> {
    let values: Vec<f32> = images.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Error::NotFinite("generated images"));
    }
    Ok(values.into_iter().map(to_byte).collect())
}

/// The `k` images of a data set nearest to one of the same size, by the squared distance of their pixels, nearest first. Training
/// mirrors images, so the nearer of an image and its mirror counts.
pub fn nearest(image: &[u8], images: &Images, k: usize) -> Vec<usize> {
    let mirror: Vec<u8> =
        image.chunks_exact(images.side * 3).flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
    let squared = |a: &[u8], b: &[u8]| -> u64 { a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2)).sum() };
    let mut distances: Vec<(u64, usize)> = (0..images.len())
        .into_par_iter()
        .map(|i| (squared(image, images.image(i)).min(squared(&mirror, images.image(i))), i))
        .collect();
    distances.sort_unstable();
    distances.into_iter().take(k).map(|(_, i)| i).collect()
}

/// Size in pixels that a data set is trained at where nothing else is said.
fn native_side(id: &str) -> usize {
    match id {
        "stl10" => 48,
        "celebahq" => 128,
        _ => 32,
    }
}

/// Loads a split of a data set at `side`×`side` pixels, through the cache of decoded images. `progress` hears of the images
/// decoded and of how many there are.
///
/// # Errors
/// When the data set is unknown, has no such split, is not to be found, or is damaged.
pub fn load(
    dataset: &Dataset,
    split: Split,
    side: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Arc<Images>> {
    let name = format!("{}:{split}", dataset.name());
    let images = match locate(dataset, split, side)? {
        None => shapes::draw(split, side),
        Some(of) => {
            // Files of all splits together are decoded once.
            let of_all = *dataset == Dataset::Known("celebahq".to_owned());
            let cached_as = if of_all { "celebahq:all" } else { &name };
            let all = cache::images(cached_as, side, &of.files, of.open, progress)?;
            let all = if of_all { all.unlabelled() } else { all };
            let (n, held_out) = (all.len(), all.len() / 10);
            match split {
                Split::Train if of_all => all.part(&name, 0..n - held_out),
                Split::Test if of_all => all.part(&name, n - held_out..n),
                _ => all,
            }
        }
    };
    if images.is_empty() {
        return Err(Error::invalid(format!("{name} holds no image")));
    }
    Ok(Arc::new(images))
}

/// Finds the files of a split without decoding them.
///
/// # Errors
/// As for [`load`], but for what only decoding shows.
pub fn check(dataset: &Dataset, split: Split, side: usize) -> Result<()> {
    locate(dataset, split, side).map(drop)
}

/// The files of a split; none where the program draws the images.
fn locate(dataset: &Dataset, split: Split, side: usize) -> Result<Option<ImagesOf>> {
    let id = match dataset {
        Dataset::Known(id) => id.as_str(),
        Dataset::Elsewhere { path } => return source::part(path, split).map(ImagesOf::from).map(Some),
    };
    if !dataset.splits().contains(&split) {
        let known: Vec<String> = dataset.splits().iter().map(Split::to_string).collect();
        return Err(Error::invalid(format!("{id}:{split}: no such split; {id} has: {}", known.join(", "))));
    }
    match id {
        "shapes" => Ok(None),
        "cifar10" => cifar10::locate(split).map(Some),
        "stl10" => stl10::locate(split).map(Some),
        "celebahq" => celebahq::locate(side).map(Some),
        other => Err(Error::invalid(format!("unknown data set `{other}`; known: {}", IDS.join(", ")))),
    }
}

/// Number of classes of a split, where labels are `used`; else one.
///
/// # Errors
/// When images elsewhere cannot be opened, or have no classes that are used.
pub fn classes(dataset: &Dataset, split: Split, used: bool) -> Result<usize> {
    let name = || format!("{}:{split}", dataset.name());
    let classes = match dataset {
        Dataset::Known(id) if id == "celebahq" || split == Split::Unlabeled => 1,
        Dataset::Known(_) => 10,
        Dataset::Elsewhere { path } => {
            let source = source::part(path, split)?;
            if used { source.labels()?.map_or(1, |labels| labels.classes) } else { 1 }
        }
    };
    if used { distinct(&name(), classes) } else { Ok(1) }
}

/// Whoever uses labels needs two classes.
fn distinct(name: &str, classes: usize) -> Result<usize> {
    if classes < 2 {
        return Err(Error::invalid(format!(
            "{name} has no labels of two classes or more, which conditional networks and `extractor: classifier` are trained on: \
             docs/data.md says where they are looked for"
        )));
    }
    Ok(classes)
}

/// Downloads a data set into the Hugging Face cache, checking every file.
///
/// # Errors
/// When it is unknown, the network fails, or a file is not the expected one.
pub fn fetch(id: &str) -> Result<Vec<PathBuf>> {
    match id {
        "cifar10" => cifar10::fetch(),
        "stl10" => stl10::fetch(),
        "celebahq" => celebahq::fetch(),
        "shapes" => Err(Error::invalid("shapes is drawn by the program: there is nothing to fetch")),
        other => {
            let known = "cifar10, stl10, celebahq, inception, dinov2, clip";
            Err(Error::invalid(format!("nothing to fetch under `{other}`; known: {known}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_round_trip() {
        for b in 0..=255 {
            assert_eq!(to_byte(to_unit(b)), b);
        }
        assert_eq!((to_byte(-7.0), to_byte(7.0)), (0, 255));
        let refused = to_bytes(&Tensor::new(&[0.5, f32::NAN], &Device::Cpu).unwrap()).unwrap_err().to_string();
        assert_eq!(refused, "generated images are not finite");
    }
}
