//! How 8-bit images come to the 299×299 pixels of the network, by the three protocols in use.
//!
//! * `tf`: bilinear, corners not aligned, no half-pixel centres (source = target · in/out), then (x − 128)/128: the
//!   original FID and Inception Score code.
//! * `torch`: bilinear with half-pixel centres, then 2x/255 − 1: pytorch-fid.
//! * `clean`: bicubic with antialiasing as PIL does it, clipped to 0..255, then (x − 128)/128 (Parmar et al. 2022).
//!
//! Each is two passes of weighted sums, columns first.

use serde::{Deserialize, Serialize};

use crate::data::resize::{Taps, antialiased};

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

    /// `[height, width, 3]` bytes to `[299, 299, 3]` as the network gets them.
    pub fn apply(self, pixels: &[u8], [height, width]: [usize; 2]) -> Vec<f32> {
        let source: Vec<f32> = pixels.iter().map(|&b| f32::from(b)).collect();
        let resized = resample(&source, [height, width], &self.taps(height), &self.taps(width));
        match self {
            Self::Tf => resized.iter().map(|x| (x - 128.0) / 128.0).collect(),
            Self::Torch => resized.iter().map(|x| x / 255.0 * 2.0 - 1.0).collect(),
            Self::Clean => resized.iter().map(|x| (x.clamp(0.0, 255.0) - 128.0) / 128.0).collect(),
        }
    }
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
