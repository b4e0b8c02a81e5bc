//! How 8-bit images of any size come to a network: two passes of weighted sums, columns first, in single precision or rounded to
//! bytes after each, then levels. A device makes both passes in one kernel, where the bytes are.

use candle_core::{Device, Result, Tensor, bail};
use rayon::prelude::*;

use crate::data::resize::{Taps, fixed_point, resampled};
use crate::data::source::Picture;
use crate::nn::op::either;
use crate::words;

/// What becomes of the weighted sums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sums {
    /// Nothing.
    Free,
    /// They are clipped to 0..255.
    Clipped,
    /// Those of each pass are rounded to bytes, as PIL does.
    Bytes,
}

/// `(x / over − mean) / deviation`, the last two for red, green and blue.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Levels {
    pub over: f32,
    pub mean: [f32; 3],
    pub deviation: [f32; 3],
}

/// A resize protocol.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Name in result rows.
    pub id: &'static str,
    /// Rows and columns of the network's input.
    pub side: usize,
    /// The source pixels of each of so many (second) target pixels, from so many (first).
    pub taps: fn(usize, usize) -> Vec<Taps>,
    /// Whether only the square in the middle is seen.
    pub square: bool,
    /// What becomes of the sums.
    pub sums: Sums,
    /// What the network gets of them.
    pub levels: Levels,
}

/// Two taps around each source position, in single precision, as the frameworks compute it.
pub fn bilinear(input: usize, side: usize, position: impl Fn(usize) -> f32) -> Vec<Taps> {
    (0..side)
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

/// TensorFlow 1's bilinear: corners not aligned, no half-pixel centres (source = target · in/out).
pub fn tensorflow_bilinear(input: usize, side: usize) -> Vec<Taps> {
    let scale = input as f32 / side as f32;
    bilinear(input, side, |o| o as f32 * scale)
}

impl Protocol {
    /// The taps of rows and columns.
    fn taps(&self, size: [usize; 2]) -> [Vec<Taps>; 2] {
        let seen = if self.square { [size[0].min(size[1]); 2] } else { size };
        [0, 1].map(|axis| {
            let mut taps = (self.taps)(seen[axis], self.side);
            taps.iter_mut().for_each(|taps| taps.first += (size[axis] - seen[axis]) / 2);
            taps
        })
    }

    /// `[height, width, 3]` bytes to `[side, side, 3]` as the network gets them.
    pub fn apply(&self, pixels: &[u8], size: [usize; 2]) -> Vec<f32> {
        let [rows, columns] = self.taps(size);
        let floats = |bytes: &[u8]| bytes.iter().map(|&b| f32::from(b)).collect::<Vec<_>>();
        let mut out = match self.sums {
            Sums::Bytes => floats(&resampled(pixels, size[1], &rows, &columns)),
            Sums::Free | Sums::Clipped => resample(&floats(pixels), size, &rows, &columns),
        };
        let Levels { over, mean, deviation } = self.levels;
        for pixel in out.chunks_exact_mut(3) {
            for (x, (mean, deviation)) in pixel.iter_mut().zip(mean.into_iter().zip(deviation)) {
                let sum = if self.sums == Sums::Clipped { x.clamp(0.0, 255.0) } else { *x };
                *x = (sum / over - mean) / deviation;
            }
        }
        out
    }

    /// Bytes `[N, height, width, 3]` to `[N, side, side, 3]` as the network gets them, where the bytes are.
    ///
    /// # Errors
    /// On tensors of another shape or type, or when the device fails.
    pub fn images(&self, bytes: &Tensor) -> Result<Tensor> {
        let (n, height, width, channels) = bytes.dims4()?;
        if channels != 3 || height * width == 0 {
            bail!("expected images [N, height, width, 3], got {:?}", bytes.dims())
        }
        let dims = [n, self.side, self.side, 3];
        let cpu = || {
            let pixels = bytes.flatten_all()?.to_vec1::<u8>()?;
            let images = pixels.par_chunks(height * width * 3).map(|image| self.apply(image, [height, width]));
            Tensor::from_vec(images.collect::<Vec<_>>().concat(), &dims, bytes.device())
        };
        // A few kilobytes, made and sent in some microseconds: no cache is worth its keeping.
        let weight = |w: f64| if self.sums == Sums::Bytes { fixed_point(w) as f32 } else { w as f32 };
        let [rows, columns] = self.taps([height, width]).map(|taps| table(&taps, weight, bytes.device()));
        let Levels { over, mean, deviation } = self.levels;
        let levels = Tensor::new([&[over][..], &mean, &deviation].concat(), bytes.device())?;
        either([&rows?, &columns?, &levels, bytes], cpu, |tape, [rows, columns, levels, bytes]| {
            let [of_rows, of_columns] = [rows.dims[1], columns.dims[1]];
            let [clipped, rounded] = [Sums::Clipped, Sums::Bytes].map(|sums| self.sums == sums);
            let words =
                words![bytes, height, width, self.side, rows, of_rows, columns, of_columns, levels, clipped, rounded];
            tape.made("resize_images", &dims, words)
        })
    }

    /// Images `[N, side, side, 3]` of pictures, resized where the network is if they are of one size.
    ///
    /// # Errors
    /// As for [`Protocol::images`].
    pub fn pictures(&self, pictures: &[Picture], device: &Device) -> Result<Tensor> {
        let n = pictures.len();
        let [height, width] = pictures.first().map_or([0; 2], |p| p.size);
        if pictures.iter().all(|p| p.size == [height, width]) {
            let bytes: Vec<u8> = pictures.iter().flat_map(|p| p.pixels.iter().copied()).collect();
            return self.images(&Tensor::from_vec(bytes, (n, height, width, 3), device)?);
        }
        let inputs: Vec<Vec<f32>> = pictures.par_iter().map(|p| self.apply(&p.pixels, p.size)).collect();
        Tensor::from_vec(inputs.concat(), (n, self.side, self.side, 3), device)
    }
}

/// For each pixel the first of its source pixels, how many they are, and their weights, filled up with zeros.
fn table(taps: &[Taps], weight: impl Fn(f64) -> f32, device: &Device) -> Result<Tensor> {
    let longest = taps.iter().map(|t| t.weights.len()).max().unwrap_or(0);
    let mut rows = Vec::with_capacity(taps.len() * (2 + longest));
    for Taps { first, weights } in taps {
        let end = rows.len() + 2 + longest;
        rows.extend([*first as f32, weights.len() as f32]);
        rows.extend(weights.iter().map(|&w| weight(w)));
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
pub(super) mod tests {
    use super::*;
    use crate::nn::testing::device;
    use crate::rng::Stream;

    /// Enlarged, shrunk, as they are, a single pixel wide.
    pub fn on_the_device_as_on_the_cpu(protocol: &Protocol) {
        let (mut stream, side) = (Stream::new(0, "bytes", 0), protocol.side);
        for [height, width] in [[32, 32], [48, 20], [320, 400], [side, 7], [5, 1]] {
            let pixels: Vec<u8> = (0..2 * height * width * 3).map(|_| stream.below(256) as u8).collect();
            let bytes = Tensor::from_vec(pixels.clone(), (2, height, width, 3), device()).unwrap();
            let made = protocol.images(&bytes).unwrap();
            assert!(made.device().same_device(device()));
            assert_eq!(made.dims(), [2, side, side, 3]);
            let made: Vec<f32> = made.flatten_all().unwrap().to_vec1().unwrap();
            let want = pixels.chunks(height * width * 3).flat_map(|image| protocol.apply(image, [height, width]));
            let worst = made.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // A GPU rounds products and sums together, an emulated one as the CPU does.
            let tolerance = if device().is_cpu() { 0.0 } else { 1e-6 };
            assert!(worst <= tolerance, "{}, {height}×{width}: {worst}", protocol.id);
        }
        let planes = Tensor::zeros((1, 3, 8, 8), candle_core::DType::U8, device()).unwrap();
        assert!(protocol.images(&planes).is_err());
    }
}
