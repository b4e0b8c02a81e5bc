//! Generators: latents to images `[N, H, W, 3]` in [−1, 1] (R3GAN's may leave it), with an explicit backward pass.

mod biggan;
mod cnn;
pub mod layer;
pub mod onnx;
mod passes;
mod r3gan;
mod resnet;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

pub use crate::critic::is_conditional;
use crate::critic::r3gan::{R3GAN32, R3GAN48, R3GAN64};
use crate::nn::conv::transposed_size;
use crate::nn::image::one_hot;
use crate::nn::spectral::Spectra;
use crate::nn::store::Store;
use crate::nn::weight::{Stored, spectra};
use crate::rng::Stream;
use layer::{Layer, NetBuilder};
pub use passes::Forward;

/// The generators of the paper, and R3GAN's.
pub const ARCHITECTURES: [&str; 10] = crate::critic::ARCHITECTURES;

/// Width of a latent of the paper's.
const LATENT: usize = 128;

/// Which statistics batch normalisation uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Those of the batch; the running ones move.
    Train,
    /// Those of the batch; the running ones stay. The released code evaluates like this (up to moving them).
    Batch,
    /// The running ones.
    Running,
}

impl Mode {
    /// The name in result rows.
    pub fn id(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Batch => "batch",
            Self::Running => "running",
        }
    }
}

/// A generator: layers, parameters, running statistics.
pub struct Generator {
    layers: Vec<Layer>,
    slots: usize,
    weights: Vec<Stored>,
    spectra: Option<Spectra>,
    /// Side of the images in pixels.
    pub side: usize,
    /// Width of a latent.
    pub latent: usize,
    /// Number of classes, of a conditional generator.
    pub classes: Option<usize>,
    /// Trained parameters, under the names of the released code.
    pub params: Store,
    /// Running statistics of batch normalisation.
    pub buffers: Store,
}

/// What a generator makes images of.
#[derive(Clone, Debug)]
pub struct Latents {
    /// `[N, latent]`, standard normal.
    pub z: Tensor,
    /// Classes `[N, classes]` as ones among zeros, for a conditional generator.
    pub labels: Option<Tensor>,
}

/// What latents are restricted to; by default nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct Restriction {
    /// The class of all images.
    pub class: Option<u16>,
    /// Largest absolute value of a number of a latent; larger ones are drawn anew (the truncation trick of Brock et al. 2019, arXiv
    /// 1809.11096).
    pub truncation: Option<f32>,
}

impl Generator {
    /// The architecture `id` at a width multiplier, freshly initialised from the stream; a conditional one knows `classes`
    /// classes.
    ///
    /// # Errors
    /// When the architecture is unknown.
    pub fn new(
        id: &str,
        width: f64,
        classes: usize,
        stream: &mut Stream,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let (layers, side, b) = Self::plan(id, width, classes)?;
        let (params, buffers) = (b.params.build(stream, dtype, device)?, b.buffers.build(stream, dtype, device)?);
        let classes = is_conditional(id).then_some(classes);
        let spectra = spectra(b.weights.iter(), &params, &buffers)?;
        let latent = if id.starts_with("r3gan") { r3gan::LATENT } else { LATENT };
        Ok(Self { layers, slots: b.slots, weights: b.weights, spectra, side, latent, classes, params, buffers })
    }

    /// Trained parameters of an architecture.
    ///
    /// # Errors
    /// When it is unknown.
    pub fn parameters(id: &str, width: f64, classes: usize) -> Result<usize> {
        Ok(Self::plan(id, width, classes)?.2.params.len())
    }

    fn plan(id: &str, width: f64, classes: usize) -> Result<(Vec<Layer>, usize, NetBuilder)> {
        let mut b = NetBuilder::default();
        let (layers, side) = match id {
            "cnn32" => (cnn::layers(4, width, &mut b), 32),
            "cnn48" => (cnn::layers(6, width, &mut b), 48),
            "resnet32" => (resnet::layers(&resnet::RESNET32, width, &mut b), 32),
            "resnet48" => (resnet::layers(&resnet::RESNET48, width, &mut b), 48),
            "resnet128" => (resnet::layers(&resnet::RESNET128, width, &mut b), 128),
            "resnet256" => (resnet::layers(&resnet::RESNET256, width, &mut b), 256),
            "biggan32" => (biggan::layers(classes, width, &mut b), 32),
            "r3gan32" => (r3gan::layers(&R3GAN32, Some(classes), width, &mut b), 32),
            "r3gan48" => (r3gan::layers(&R3GAN48, None, width, &mut b), 48),
            "r3gan64" => (r3gan::layers(&R3GAN64, None, width, &mut b), 64),
            other => bail!("unknown generator `{other}`; known: {}", ARCHITECTURES.join(", ")),
        };
        Ok((layers, side, b))
    }

    /// A generator of the same layers with parameters and buffers of its own.
    ///
    /// # Errors
    /// When the device refuses the memory.
    pub fn deep_clone(&self) -> Result<Self> {
        let (params, buffers) = (self.params.deep_clone()?, self.buffers.deep_clone()?);
        Ok(Self {
            layers: self.layers.clone(),
            slots: self.slots,
            weights: self.weights.clone(),
            spectra: spectra(self.weights.iter(), &params, &buffers)?,
            side: self.side,
            latent: self.latent,
            classes: self.classes,
            params,
            buffers,
        })
    }

    /// `n` latents of a named stream, with uniformly drawn classes for a conditional generator.
    ///
    /// # Errors
    /// When the device refuses the memory.
    pub fn latents(&self, seed: u64, purpose: &str, step: u64, n: usize) -> Result<Latents> {
        self.latents_within(seed, purpose, (step, n), Restriction::default())
    }

    /// Those of [`Generator::latents`] that a restriction leaves: `n` of step `step`.
    ///
    /// # Errors
    /// When there is no such class, or the device refuses the memory.
    pub fn latents_within(
        &self,
        seed: u64,
        purpose: &str,
        (step, n): (u64, usize),
        within: Restriction,
    ) -> Result<Latents> {
        let (dtype, device) = (self.params.flat().dtype(), self.params.flat().device());
        let (mut z, mut labels) = drawn_latents(seed, purpose, step, [n, self.latent], self.classes);
        if let Some(bound) = within.truncation {
            z = Stream::new(seed, purpose, step).normals_within(z.len(), bound);
        }
        match (within.class, &mut labels) {
            (Some(class), Some(labels)) => labels.fill(class),
            (Some(class), None) => bail!("class {class} of a generator without classes"),
            (None, _) => {}
        }
        let labels = self.classes.zip(labels).map(|(classes, labels)| one_hot(&labels, classes, dtype, device));
        Ok(Latents { z: Tensor::from_vec(z, (n, self.latent), device)?.to_dtype(dtype)?, labels: labels.transpose()? })
    }

    /// Floating-point operations of one forward pass over `n` latents.
    ///
    /// # Errors
    /// Never for a consistent generator.
    pub fn flops(&self, n: usize) -> Result<u64> {
        Ok(self.flops_of(&self.layers, 1)?.0 * n as u64)
    }

    /// Operations of one image, and the side of the images after the layers.
    fn flops_of(&self, layers: &[Layer], mut side: usize) -> Result<(u64, usize)> {
        let mut total = 0;
        for layer in layers {
            match layer {
                Layer::Linear { affine, side: bottom } => {
                    total += 2 * self.weights[affine.index].shape.iter().product::<usize>();
                    side = *bottom;
                }
                Layer::Conv { affine, .. } => {
                    total += 2 * self.weights[affine.index].shape.iter().product::<usize>() * side * side;
                }
                Layer::ConvTranspose { affine, spec } => {
                    // Each input pixel meets every weight once.
                    let shape = self.weights[affine.index].shape;
                    total += 2 * shape.iter().product::<usize>() * side * side;
                    [side, _] = transposed_size([side; 2], [shape[2], shape[3]], *spec);
                }
                Layer::UpsampleConv { affine } => {
                    // 16 taps in place of 9, each at an input pixel.
                    total += 2 * self.weights[affine.index].shape.iter().product::<usize>() / 9 * 16 * side * side;
                    side *= 2;
                }
                Layer::Upsample2 | Layer::FirUp2 => side *= 2,
                Layer::Residual { main, shortcut } => {
                    let (a, after) = self.flops_of(main, side)?;
                    total += (a + self.flops_of(shortcut, side)?.0) as usize;
                    side = after;
                }
                Layer::JoinClass { .. } | Layer::Leaky { .. } | Layer::BatchNormRelu(_) | Layer::Tanh { .. } => {}
            }
        }
        Ok((total as u64, side))
    }

    /// What its passes on a device read beside parameters and buffers.
    pub fn table(&self) -> Option<&Tensor> {
        self.spectra.as_ref().map(Spectra::table)
    }

    /// Every tensor of the state by name, as the released code's `state_dict`.
    ///
    /// # Errors
    /// Never for a consistent generator.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = self.params.named()?;
        state.extend(self.buffers.named()?);
        Ok(state)
    }
}

/// The numbers of `n` latents of a named stream, each so wide, and their classes where there are any.
pub fn drawn_latents(
    seed: u64,
    purpose: &str,
    step: u64,
    [n, width]: [usize; 2],
    classes: Option<usize>,
) -> (Vec<f32>, Option<Vec<u16>>) {
    let labels = classes.map(|classes| {
        let mut stream = Stream::new(seed, &format!("{purpose}/classes"), step);
        (0..n).map(|_| stream.below(classes) as u16).collect()
    });
    (Stream::new(seed, purpose, step).normals(n * width), labels)
}
