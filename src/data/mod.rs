//! Data sets: decoded once into bytes, labelled, split.

mod cifar10;
pub mod hub;
pub mod loader;
mod shapes;
pub mod source;

use std::fmt;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::files::sha256;

/// Every data set that [`load`] knows.
pub const IDS: [&str; 2] = ["shapes", "cifar10"];

/// Part of a data set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split {
    /// What models are trained on.
    Train,
    /// What they never see.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Test => "test",
        })
    }
}

/// Decoded images of one size with a label each.
#[derive(Debug)]
pub struct Images {
    /// Rows and columns in pixels.
    pub side: usize,
    /// `[N, side, side, 3]`, red, green, blue.
    pub pixels: Vec<u8>,
    /// Class of each image.
    pub labels: Vec<u8>,
    /// Number of classes.
    pub classes: usize,
    /// Data set and split, such as `cifar10:train`.
    pub name: String,
}

impl Images {
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

    /// SHA-256 over the decoded pixels.
    pub fn fingerprint(&self) -> String {
        sha256(&self.pixels)
    }
}

/// A byte as the networks see it: 0..255 to [−1, 1].
pub fn to_unit(byte: u8) -> f32 {
    f32::from(byte) / 127.5 - 1.0
}

/// A network's output in [−1, 1] rounded to the nearest of 256 levels, as an 8-bit file would hold it.
pub fn to_byte(unit: f32) -> u8 {
    // A cast from float saturates, and turns NaN into 0.
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
/// When the tensor cannot be read.
pub fn to_bytes(images: &Tensor) -> Result<Vec<u8>> {
    let values: Vec<f32> = images.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(values.into_iter().map(to_byte).collect())
}

/// Loads a split of the data set `id` at `side`×`side` pixels.
///
/// # Errors
/// When the data set is unknown, not to be found, damaged, or of another size.
pub fn load(id: &str, split: Split, side: usize) -> Result<Arc<Images>> {
    let images = match id {
        "shapes" => shapes::draw(split, side),
        "cifar10" if side == 32 => cifar10::read(&cifar10::locate(split)?, split)?,
        "cifar10" => return Err(Error::invalid(format!("cifar10 has 32×32 pixels; image_size {side} is not offered"))),
        other => return Err(Error::invalid(format!("unknown data set `{other}`; known: {}", IDS.join(", ")))),
    };
    Ok(Arc::new(images))
}

/// Number of classes of the data set `id`.
pub fn classes(id: &str) -> usize {
    match id {
        "shapes" | "cifar10" => 10,
        _ => 1,
    }
}

/// Downloads a data set into the cache, checking every file.
///
/// # Errors
/// When it is unknown, the network fails, or a file is not the expected one.
pub fn fetch(id: &str) -> Result<Vec<std::path::PathBuf>> {
    match id {
        "cifar10" => [Split::Train, Split::Test].into_iter().map(cifar10::fetch).collect(),
        "shapes" => Err(Error::invalid("shapes is drawn by the program: there is nothing to fetch")),
        other => Err(Error::invalid(format!("nothing to fetch under `{other}`; known: cifar10, inception"))),
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
        assert_eq!((to_byte(-7.0), to_byte(7.0), to_byte(f32::NAN)), (0, 255, 0));
    }
}
