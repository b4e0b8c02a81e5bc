//! DINOv2 (Oquab et al., arXiv 2304.07193) without registers: facebook/dinov2-small, -base and -large (`model.safetensors`). The features
//! are the class token after the last layer normalisation.

use std::path::Path;

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use super::network::{Ends, Family, Network, norm};
use super::{Read, Vit, check, grid, size};
use crate::data::hub::{Kind, Pinned};
use crate::data::resize::{Taps, antialiased, cubic};
use crate::error;
use crate::machine::compute::Compute;
use crate::metrics::metric;
use crate::metrics::resize::{Levels, Protocol, Sums, tensorflow_bilinear};
use crate::metrics::weights::Weights;
use crate::nn::activation::Gelu;

/// Side of the network's input.
const SIDE: usize = 224;
/// Of ImageNet.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

const fn official(repo: &'static str, revision: &'static str, sha256: &'static str) -> Pinned {
    Pinned { repo, kind: Kind::Model, revision, file: "model.safetensors", sha256 }
}

/// The published weights by size, that of FD-DINOv2 first. The SHA-256 is what the Hub keeps the file under.
pub const OFFICIAL: [(&str, Pinned); 3] = [
    (
        "large",
        official(
            "facebook/dinov2-large",
            "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
            "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
        ),
    ),
    (
        "base",
        official(
            "facebook/dinov2-base",
            "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
            "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
        ),
    ),
    (
        "small",
        official(
            "facebook/dinov2-small",
            "ed25f3a31f01632728cabb09d1542f84ab7b0056",
            "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
        ),
    ),
];

const FAMILY: Family = Family {
    blocks: "encoder.layer.",
    norms: ["norm1", "norm2"],
    attention: [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
    ],
    scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
    activation: Gelu::Normal,
    epsilon: 1e-6,
};

/// How 8-bit images come to the 224×224 pixels of the network, whatever their shape, and to ImageNet's mean and deviation: three
/// protocols of the same name FD-DINOv2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Resize {
    /// Pillow's antialiased bicubic, rounded to bytes after each pass: dgm-eval (Stein et al., arXiv 2306.04675) and EDM2's slow mode.
    #[serde(rename = "dinov2-pil")]
    Pil,
    /// PyTorch's antialiased bicubic in single precision, not clipped: EDM2 (Karras et al., arXiv 2312.02696).
    #[serde(rename = "dinov2-float")]
    Float,
    /// TensorFlow 1's bilinear: torch-fidelity.
    #[serde(rename = "dinov2-tf")]
    Tf,
}

/// Pillow's bicubic.
pub(super) fn pil_bicubic(input: usize, side: usize) -> Vec<Taps> {
    antialiased(input, side, cubic, 2.0)
}

/// PyTorch's antialiased bicubic: the same in single precision, in the order of its sums.
fn torch_bicubic(input: usize, side: usize) -> Vec<Taps> {
    let scale = input as f32 / side as f32;
    let (reach, shrink) = if scale >= 1.0 { (2.0 * scale, 1.0 / scale) } else { (2.0, 1.0) };
    (0..side)
        .map(|o| {
            let centre = (f64::from(scale) * (o as f64 + 0.5)) as f32;
            let first = (f64::from(centre - reach) + 0.5).max(0.0) as usize;
            let end = ((f64::from(centre + reach) + 0.5) as usize).min(input);
            let at = |i: usize| ((f64::from(i as f32 - centre) + 0.5) * f64::from(shrink)) as f32;
            let weights: Vec<f32> = (first..end).map(|i| keys(at(i), -0.5)).collect();
            let sum: f32 = weights.iter().sum();
            Taps { first, weights: weights.iter().map(|w| f64::from(w / sum)).collect() }
        })
        .collect()
}

/// The cubic convolution kernel of Keys (1981) in single precision; products and sums are rounded together, as PyTorch's are.
fn keys(x: f32, a: f32) -> f32 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0).mul_add(x, -(a + 3.0)) * x).mul_add(x, 1.0)
    } else if x < 2.0 {
        a.mul_add(x, -5.0 * a).mul_add(x, 8.0 * a).mul_add(x, -4.0 * a)
    } else {
        0.0
    }
}

impl Resize {
    /// All of them by name.
    pub const ALL: [(&str, Self); 3] =
        [("dinov2-pil", Self::Pil), ("dinov2-float", Self::Float), ("dinov2-tf", Self::Tf)];

    /// The name in result rows and on the command line.
    pub fn id(self) -> &'static str {
        self.protocol().id
    }

    pub(super) fn protocol(self) -> Protocol {
        let levels = |over: f32, unit: f64| Levels {
            over,
            mean: MEAN.map(|m| (unit * m) as f32),
            deviation: DEVIATION.map(|d| (unit * d) as f32),
        };
        let pil = Protocol {
            id: "dinov2-pil",
            side: SIDE,
            taps: pil_bicubic,
            square: false,
            sums: Sums::Bytes,
            levels: levels(255.0, 1.0),
        };
        match self {
            Self::Pil => pil,
            Self::Float => Protocol { id: "dinov2-float", taps: torch_bicubic, sums: Sums::Free, ..pil },
            Self::Tf => Protocol {
                id: "dinov2-tf",
                taps: tensorflow_bilinear,
                sums: Sums::Free,
                levels: levels(1.0, 255.0),
                ..pil
            },
        }
    }
}

/// Four taps of each of `to` cells in a row of `from`, which end at its borders, and their weights: PyTorch's bicubic without
/// antialiasing and with a scale of its own, here that of the original code: (to + 0.1)/from.
fn cells(from: usize, to: usize) -> Vec<[(usize, f32); 4]> {
    let scale = (1.0 / ((to as f64 + 0.1) / from as f64)) as f32;
    (0..to)
        .map(|o| {
            let at = scale.mul_add(o as f32 + 0.5, -0.5);
            let share = at - at.floor();
            let tap = |k: i64| (at.floor() as i64 + k - 1).clamp(0, from as i64 - 1) as usize;
            let distance = [share + 1.0, share, 1.0 - share, 2.0 - share];
            [0, 1, 2, 3].map(|k| (tap(k as i64), keys(distance[k], -0.75)))
        })
        .collect()
}

/// Positions `[1 + from², C]` for a grid of `to`×`to` patches, `[1 + to², C]`: the class's is kept, and a grid of the same size.
fn interpolated(positions: &Tensor, from: usize, to: usize) -> Result<Tensor> {
    if from == to {
        return Ok(positions.clone());
    }
    let (width, cells) = (positions.dim(1)?, cells(from, to));
    let values: Vec<f32> = positions.flatten_all()?.to_vec1()?;
    let (class, grid) = values.split_at(width);
    let mut out = class.to_vec();
    for rows in &cells {
        for columns in &cells {
            out.extend((0..width).map(|c| {
                let line = |y: usize| columns.iter().map(|&(x, w)| grid[(y * from + x) * width + c] * w).sum::<f32>();
                rows.iter().map(|&(y, w)| line(y) * w).sum::<f32>()
            }));
        }
    }
    Tensor::from_vec(out, (1 + to * to, width), positions.device())
}

/// Reads the network from a file with transformers' names (see [`crate::weights`]); it computes where and as precisely as `compute` says.
///
/// # Errors
/// When the file cannot be read, or a tensor is missing, misshapen or of no use.
pub fn from_file(path: &Path, resize: Resize, compute: Compute) -> error::Result<Vit> {
    let unused = |name: &str| name == "embeddings.mask_token";
    Vit::from_file((metric::Family::Dinov2, path), compute, unused, |weights| read(weights, resize.protocol()))
}

fn read(weights: &mut Weights, protocol: Protocol) -> Result<Read> {
    let (projection, positions) = ("embeddings.patch_embeddings.projection", "embeddings.position_embeddings");
    let [width, _, patch, _] = weights.shape(&format!("{projection}.weight"))?;
    if patch == 0 || !SIDE.is_multiple_of(patch) {
        bail!("patches of {patch} pixels do not fit into {SIDE}")
    }
    check(width, patch, SIDE / patch)?;
    let [_, tokens, _] = weights.shape(positions)?;
    let known = grid(positions, tokens.saturating_sub(1))?;
    let [patches, patch_bias] = [("weight", &[width, 3, patch, patch][..]), ("bias", &[width])]
        .map(|(part, shape)| weights.take(&format!("{projection}.{part}"), shape));
    let positions = weights.take(positions, &[1, tokens, width])?.squeeze(0)?;
    let ends = Ends {
        patches: patches?,
        patch_bias: Some(patch_bias?),
        class: weights.take("embeddings.cls_token", &[1, 1, width])?.flatten_all()?,
        positions: interpolated(&positions, known, SIDE / patch)?,
        before: None,
        after: norm("layernorm", width, FAMILY.epsilon, weights)?,
        projection: None,
    };
    let network = Network::new(&FAMILY, ends, weights)?;
    let id = format!("dinov2-vit{}{patch}", size(width, network.depth()));
    Ok(Read { network, protocol, id, dim: width })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn positions_are_interpolated_as_torch_does() {
        let file = crate::metrics::vit::tests::golden("vit_dinov2.safetensors");
        let golden = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        let positions =
            golden["weights.embeddings.position_embeddings"].to_dtype(DType::F32).unwrap().squeeze(0).unwrap();
        let made: Vec<Vec<f32>> = interpolated(&positions, 37, 16).unwrap().to_vec2().unwrap();
        let want: Vec<Vec<f32>> = golden["positions"].squeeze(0).unwrap().to_vec2().unwrap();
        assert_eq!(made.iter().step_by(16).len(), want.len());
        let worst = made.iter().step_by(16).flatten().zip(want.iter().flatten()).map(|(a, b)| (a - b).abs());
        let worst = worst.fold(0.0, f32::max);
        println!("positions: at most {worst:.1e} from torch's");
        assert!(worst <= 2e-6, "{worst}");
    }
}
