//! How 8-bit images come to the 299×299 pixels of the network, by the three protocols in use.
//!
//! * `tf`: bilinear, corners not aligned, no half-pixel centres (source = target · in/out), then (x − 128)/128: the
//!   original FID and Inception Score code.
//! * `torch`: bilinear with half-pixel centres, then 2x/255 − 1: pytorch-fid.
//! * `clean`: bicubic with antialiasing as PIL does it, clipped to 0..255, then (x − 128)/128 (Parmar et al. 2022).
//!
//! Each is two passes of weighted sums, columns first, in single precision; nothing is rounded to bytes between them. A device makes
//! both passes in one kernel, where the bytes are.

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::resize::{Taps, antialiased};
use crate::nn::op::either;
use crate::words;

/// Side of the network's input.
pub const SIDE: usize = 299;

/// A resize protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// The original code's.
    Tf,
    /// pytorch-fid's.
    Torch,
    /// clean-fid's.
    Clean,
}

/// Bicubic kernel with a = −1/2 (Keys 1981).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Two taps around a source position in single precision, as the frameworks compute it.
fn bilinear(input: usize, position: impl Fn(usize) -> f32) -> Vec<Taps> {
    (0..SIDE)
        .map(|o| {
            let at = position(o);
            let first = (at as usize).min(input - 1);
            let share = at - first as f32;
            if first + 1 < input {
                Taps { first, weights: vec![f64::from(1.0 - share), f64::from(share)] }
            } else {
                Taps { first, weights: vec![1.0] }
            }
        })
        .collect()
}

impl Resize {
    /// All of them by name.
    pub const ALL: [(&str, Self); 3] = [("tf", Self::Tf), ("torch", Self::Torch), ("clean", Self::Clean)];

    /// The name in result rows and on the command line.
    pub fn id(self) -> &'static str {
        match self {
            Self::Tf => "tf",
            Self::Torch => "torch",
            Self::Clean => "clean",
        }
    }

    fn taps(self, input: usize) -> Vec<Taps> {
        let scale = input as f32 / SIDE as f32;
        match self {
            Self::Tf => bilinear(input, |o| o as f32 * scale),
            Self::Torch => bilinear(input, |o| ((o as f32 + 0.5) * scale - 0.5).max(0.0)),
            Self::Clean => antialiased(input, SIDE, cubic, 2.0),
        }
    }

    /// Whether sums are clipped to 0..255; and p, q, r, s, so that (sum − p)/q·r − s is what the network gets.
    fn levels(self) -> (bool, [f32; 4]) {
        match self {
            Self::Tf => (false, [128.0, 128.0, 1.0, 0.0]),
            Self::Torch => (false, [0.0, 255.0, 2.0, 1.0]),
            Self::Clean => (true, [128.0, 128.0, 1.0, 0.0]),
        }
    }

    /// `[height, width, 3]` bytes to `[299, 299, 3]` as the network gets them.
    pub fn apply(self, pixels: &[u8], [height, width]: [usize; 2]) -> Vec<f32> {
        let source: Vec<f32> = pixels.iter().map(|&b| f32::from(b)).collect();
        let mut resized = resample(&source, [height, width], &self.taps(height), &self.taps(width));
        let (clip, [p, q, r, s]) = self.levels();
        for x in &mut resized {
            let sum = if clip { x.clamp(0.0, 255.0) } else { *x };
            *x = (sum - p) / q * r - s;
        }
        resized
    }

    /// Bytes `[N, height, width, 3]` to `[N, 299, 299, 3]` as the network gets them, where the bytes are.
    ///
    /// # Errors
    /// On tensors of another shape or type, or when the device fails.
    pub fn images(self, bytes: &Tensor) -> Result<Tensor> {
        let (n, height, width, channels) = bytes.dims4()?;
        if channels != 3 || height * width == 0 {
            bail!("expected images [N, height, width, 3], got {:?}", bytes.dims())
        }
        let dims = [n, SIDE, SIDE, 3];
        let cpu = || {
            let pixels = bytes.flatten_all()?.to_vec1::<u8>()?;
            let images = pixels.par_chunks(height * width * 3).map(|image| self.apply(image, [height, width]));
            Tensor::from_vec(images.collect::<Vec<_>>().concat(), &dims, bytes.device())
        };
        // A few kilobytes, made and sent in some microseconds: no cache is worth its keeping.
        let [rows, columns] = [height, width].map(|extent| table(&self.taps(extent), bytes.device()));
        let (clip, [p, q, r, s]) = self.levels();
        either([&rows?, &columns?, bytes], cpu, |tape, [rows, columns, bytes]| {
            let [p, q, r, s] = [p, q, r, s].map(f64::from);
            let [of_rows, of_columns] = [rows.dims[1], columns.dims[1]];
            let words = words![bytes, height, width, SIDE, rows, of_rows, columns, of_columns, clip, p, q, r, s];
            tape.made("resize_images", &dims, words)
        })
    }
}

/// For each pixel the first of its source pixels, how many they are, and their weights, filled up with zeros.
fn table(taps: &[Taps], device: &Device) -> Result<Tensor> {
    let longest = taps.iter().map(|t| t.weights.len()).max().unwrap_or(0);
    let mut rows = Vec::with_capacity(taps.len() * (2 + longest));
    for Taps { first, weights } in taps {
        let end = rows.len() + 2 + longest;
        rows.extend([*first as f32, weights.len() as f32]);
        rows.extend(weights.iter().map(|&w| w as f32));
        rows.resize(end, 0.0);
    }
    Tensor::from_vec(rows, (taps.len(), 2 + longest), device)
}

/// Columns, then rows, of `[height, width, 3]`.
fn resample(source: &[f32], [height, width]: [usize; 2], rows: &[Taps], columns: &[Taps]) -> Vec<f32> {
    let mut wide = vec![0.0; height * columns.len() * 3];
    for y in 0..height {
        let line = &source[y * width * 3..][..width * 3];
        for (x, taps) in columns.iter().enumerate() {
            let out = &mut wide[(y * columns.len() + x) * 3..][..3];
            for (pixel, &w) in line[taps.first * 3..].chunks_exact(3).zip(&taps.weights) {
                let w = w as f32;
                for (o, &v) in out.iter_mut().zip(pixel) {
                    *o += w * v;
                }
            }
        }
    }
    let pitch = columns.len() * 3;
    let mut out = vec![0.0; rows.len() * pitch];
    for (taps, out) in rows.iter().zip(out.chunks_exact_mut(pitch)) {
        for (line, &w) in wide[taps.first * pitch..].chunks_exact(pitch).zip(&taps.weights) {
            let w = w as f32;
            for (o, &v) in out.iter_mut().zip(line) {
                *o += w * v;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::device;
    use crate::rng::Stream;

    #[test]
    fn devices_resize_as_the_cpu_does() {
        let mut stream = Stream::new(0, "bytes", 0);
        // Enlarged, shrunk, as they are, a single pixel wide.
        for [height, width] in [[32, 32], [48, 20], [320, 400], [SIDE, 7], [5, 1]] {
            let pixels: Vec<u8> = (0..2 * height * width * 3).map(|_| stream.below(256) as u8).collect();
            let bytes = Tensor::from_vec(pixels.clone(), (2, height, width, 3), device()).unwrap();
            for (name, resize) in Resize::ALL {
                let made = resize.images(&bytes).unwrap();
                assert!(made.device().same_device(device()));
                assert_eq!(made.dims(), [2, SIDE, SIDE, 3]);
                let made: Vec<f32> = made.flatten_all().unwrap().to_vec1().unwrap();
                let want = pixels.chunks(height * width * 3).flat_map(|image| resize.apply(image, [height, width]));
                let worst = made.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                // A GPU rounds products and sums together, an emulated one as the CPU does.
                let tolerance = if device().is_cpu() { 0.0 } else { 1e-6 };
                assert!(worst <= tolerance, "{name}, {height}×{width}: {worst}");
            }
        }
        let planes = Tensor::zeros((1, 3, 8, 8), candle_core::DType::U8, device()).unwrap();
        assert!(Resize::Tf.images(&planes).is_err());
    }
}
