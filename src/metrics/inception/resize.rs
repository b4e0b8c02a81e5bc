//! How 8-bit images come to the 299×299 pixels of the network, by the three protocols in use.
//!
//! * `tf`: bilinear, corners not aligned, no half-pixel centres (source = target · in/out), then (x − 128)/128: the
//!   original FID and Inception Score code.
//! * `torch`: bilinear with half-pixel centres, then 2x/255 − 1: pytorch-fid.
//! * `clean`: bicubic with antialiasing as PIL does it, clipped to 0..255, then (x − 128)/128 (Parmar et al. 2022).
//!
//! Nothing is rounded to bytes.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::data::resize::{Taps, antialiased, cubic};
use crate::metrics::resize::{Levels, Protocol, Sums, bilinear, tensorflow_bilinear};

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

fn half_pixel_bilinear(input: usize, side: usize) -> Vec<Taps> {
    let scale = input as f32 / side as f32;
    bilinear(input, side, |o| ((o as f32 + 0.5) * scale - 0.5).max(0.0))
}

fn antialiased_bicubic(input: usize, side: usize) -> Vec<Taps> {
    antialiased(input, side, cubic, 2.0)
}

impl Resize {
    /// All of them by name.
    pub const ALL: [(&str, Self); 3] = [("tf", Self::Tf), ("torch", Self::Torch), ("clean", Self::Clean)];

    /// The name in result rows and on the command line.
    pub fn id(self) -> &'static str {
        self.protocol().id
    }

    pub(super) fn protocol(self) -> Protocol {
        let centred = Levels { over: 1.0, mean: [128.0; 3], deviation: [128.0; 3] };
        let free = Protocol {
            id: "tf",
            side: SIDE,
            taps: tensorflow_bilinear,
            square: false,
            sums: Sums::Free,
            levels: centred,
        };
        match self {
            Self::Tf => free,
            // 2x/255 − 1 in other words, which round alike.
            Self::Torch => Protocol {
                id: "torch",
                taps: half_pixel_bilinear,
                levels: Levels { over: 255.0, mean: [0.5; 3], deviation: [0.5; 3] },
                ..free
            },
            Self::Clean => Protocol { id: "clean", taps: antialiased_bicubic, sums: Sums::Clipped, ..free },
        }
    }

    /// `[height, width, 3]` bytes to `[299, 299, 3]` as the network gets them.
    pub fn apply(self, pixels: &[u8], size: [usize; 2]) -> Vec<f32> {
        self.protocol().apply(pixels, size)
    }

    /// Bytes `[N, height, width, 3]` to `[N, 299, 299, 3]` as the network gets them, where the bytes are.
    ///
    /// # Errors
    /// On tensors of another shape or type, or when the device fails.
    pub fn images(self, bytes: &Tensor) -> Result<Tensor> {
        self.protocol().images(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::resize::tests::on_the_device_as_on_the_cpu;

    #[test]
    fn devices_resize_as_the_cpu_does() {
        for (_, resize) in Resize::ALL {
            on_the_device_as_on_the_cpu(&resize.protocol());
        }
    }
}
