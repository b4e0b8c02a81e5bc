//! Generators: latents `[N, 128]` to images `[N, H, W, 3]` in [−1, 1], with an explicit backward pass.

mod cnn;
pub mod layer;
mod resnet;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::nn::activation::{add, tanh, tanh_grad};
use crate::nn::batch_norm::{Coefficients, batch_norm_relu, batch_norm_relu_grad, channel_moments};
use crate::nn::conv::{
    conv_transpose2d, conv_transpose2d_input_grad, conv_transpose2d_weight_grad, conv2d, conv2d_input_grad,
    conv2d_weight_grad, linear, linear_weight_grad,
};
use crate::nn::image::{channel_sum, channels_first, channels_last};
use crate::nn::resample::{upsample2, upsample2_grad};
use crate::nn::store::Store;
use crate::rng::Stream;
use layer::{BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, BatchNorm, Layer, NetBuilder};

/// The generators of 32×32 images.
pub const ARCHITECTURES: [&str; 2] = ["cnn32", "resnet32"];

/// Width of a latent.
pub const LATENT: usize = 128;

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
    /// Side of the images in pixels.
    pub side: usize,
    /// Trained parameters, under the names of the released code.
    pub params: Store,
    /// Running statistics of batch normalisation.
    pub buffers: Store,
}

enum Kept {
    Input(Tensor),
    Norm(Tensor, Coefficients),
}

/// A forward pass: the images and what the backward pass reads.
pub struct Forward {
    /// `[N, H, W, 3]` in [−1, 1].
    pub images: Tensor,
    kept: Vec<Option<Kept>>,
}

impl Generator {
    /// The architecture `id` at a width multiplier, freshly initialised from the stream.
    ///
    /// # Errors
    /// When the architecture is unknown.
    pub fn new(id: &str, width: f64, stream: &mut Stream, dtype: DType, device: &Device) -> Result<Self> {
        let mut b = NetBuilder::default();
        let (layers, side) = match id {
            "cnn32" => (cnn::layers(4, width, &mut b), 32),
            "resnet32" => (resnet::layers(&resnet::RESNET32, width, &mut b), 32),
            other => bail!("unknown generator `{other}`; known: {}", ARCHITECTURES.join(", ")),
        };
        let (params, buffers) = (b.params.build(stream, dtype, device)?, b.buffers.build(stream, dtype, device)?);
        Ok(Self { layers, slots: b.slots, side, params, buffers })
    }

    /// A generator of the same layers with parameters and buffers of its own.
    ///
    /// # Errors
    /// When the device refuses the memory.
    pub fn deep_clone(&self) -> Result<Self> {
        Ok(Self {
            layers: self.layers.clone(),
            slots: self.slots,
            side: self.side,
            params: self.params.deep_clone()?,
            buffers: self.buffers.deep_clone()?,
        })
    }

    /// Images of latents `[N, 128]`.
    ///
    /// # Errors
    /// On latents of another width or dtype.
    pub fn forward(&self, z: &Tensor, mode: Mode) -> Result<Forward> {
        let mut kept: Vec<Option<Kept>> = (0..self.slots).map(|_| None).collect();
        let images = self.run(&self.layers, z.clone(), mode, &mut kept)?;
        Ok(Forward { images, kept })
    }

    /// Images of latents `[N, 128]`, keeping nothing.
    ///
    /// # Errors
    /// As for [`Generator::forward`].
    pub fn images(&self, z: &Tensor, mode: Mode) -> Result<Tensor> {
        self.run(&self.layers, z.clone(), mode, &mut [])
    }

    fn run(&self, layers: &[Layer], mut x: Tensor, mode: Mode, kept: &mut [Option<Kept>]) -> Result<Tensor> {
        // An empty `kept` is a pass that nothing follows.
        let keep = |kept: &mut [Option<Kept>], slot: usize, value: Kept| {
            if let Some(place) = kept.get_mut(slot) {
                *place = Some(value);
            }
        };
        for layer in layers {
            x = match layer {
                Layer::Linear { weight, bias, side, slot } => {
                    let y = linear(&x, &self.params.get(*weight)?, Some(&self.params.get(*bias)?))?;
                    keep(kept, *slot, Kept::Input(x.clone()));
                    channels_last(&y.reshape((x.dim(0)?, (), *side, *side))?)?
                }
                Layer::BatchNormRelu(norm) => {
                    let (y, coefficients) = self.normalise(norm, &x, mode)?;
                    keep(kept, norm.slot, Kept::Norm(x, coefficients));
                    y
                }
                Layer::Conv { weight, bias, spec, slot } => {
                    let y = conv2d(&x, &self.params.get(*weight)?, Some(&self.params.get(*bias)?), *spec)?;
                    keep(kept, *slot, Kept::Input(x));
                    y
                }
                Layer::ConvTranspose { weight, bias, spec, slot } => {
                    let y = conv_transpose2d(&x, &self.params.get(*weight)?, Some(&self.params.get(*bias)?), *spec)?;
                    keep(kept, *slot, Kept::Input(x));
                    y
                }
                Layer::Upsample2 => upsample2(&x)?,
                Layer::Tanh { slot } => {
                    let y = tanh(&x)?;
                    keep(kept, *slot, Kept::Input(y.clone()));
                    y
                }
                Layer::Residual { main, shortcut } => {
                    let side = self.run(shortcut, x.clone(), mode, kept)?;
                    add(&self.run(main, x, mode, kept)?, &side)?
                }
            };
        }
        Ok(x)
    }

    fn normalise(&self, norm: &BatchNorm, x: &Tensor, mode: Mode) -> Result<(Tensor, Coefficients)> {
        let [running_mean, running_var] = [self.buffers.get(norm.mean)?, self.buffers.get(norm.variance)?];
        let (mean, variance) = match mode {
            Mode::Running => (running_mean, running_var),
            Mode::Batch => channel_moments(x)?,
            Mode::Train => {
                let (mean, variance) = channel_moments(x)?;
                let rows = (x.elem_count() / x.dim(3)?) as f64;
                let moved = |old: &Tensor, new: &Tensor, scale: f64| -> Result<Tensor> {
                    (old * (1.0 - BATCH_NORM_MOMENTUM))? + (new * (scale * BATCH_NORM_MOMENTUM))?
                };
                self.buffers.set(norm.mean, &moved(&running_mean, &mean, 1.0)?)?;
                self.buffers.set(norm.variance, &moved(&running_var, &variance, rows / (rows - 1.0).max(1.0))?)?;
                (mean, variance)
            }
        };
        let parameters = [&self.params.get(norm.gamma)?, &self.params.get(norm.beta)?];
        batch_norm_relu(x, parameters, [&mean, &variance], BATCH_NORM_EPSILON)
    }

    /// Adds the gradient of ⟨`cotangent`, images⟩ in every parameter to `gradients`; `pass` must have used the batch's
    /// statistics.
    ///
    /// # Errors
    /// When the cotangent has another shape than the images.
    pub fn backward(&self, pass: &Forward, cotangent: &Tensor, gradients: &Store) -> Result<()> {
        self.back(&self.layers, cotangent.clone(), pass, gradients)?;
        Ok(())
    }

    fn back(&self, layers: &[Layer], mut dy: Tensor, pass: &Forward, into: &Store) -> Result<Tensor> {
        let ones = Tensor::ones(dy.dim(0)?, dy.dtype(), dy.device())?;
        for layer in layers.iter().rev() {
            dy = match layer {
                Layer::Linear { weight, bias, slot, .. } => {
                    let dy = channels_first(&dy)?.flatten_from(1)?;
                    into.accumulate(*weight, &linear_weight_grad(input(pass, *slot)?, &dy)?)?;
                    into.accumulate(*bias, &channel_sum(&dy, &ones)?)?;
                    // The latents need no gradient.
                    return Ok(dy);
                }
                Layer::BatchNormRelu(norm) => {
                    let Some(Kept::Norm(x, coefficients)) = &pass.kept[norm.slot] else { bail!("nothing was kept") };
                    let [dx, gamma, beta] = batch_norm_relu_grad(&dy, x, coefficients)?;
                    into.accumulate(norm.gamma, &gamma)?;
                    into.accumulate(norm.beta, &beta)?;
                    dx
                }
                Layer::Conv { weight, bias, spec, slot } => {
                    let (x, w) = (input(pass, *slot)?, self.params.get(*weight)?);
                    let ((_, _, kh, kw), (_, h, wd, _)) = (w.dims4()?, x.dims4()?);
                    into.accumulate(*weight, &conv2d_weight_grad(x, &dy, *spec, [kh, kw])?)?;
                    into.accumulate(*bias, &channel_sum(&dy, &ones)?)?;
                    conv2d_input_grad(&dy, &w, *spec, [h, wd])?
                }
                Layer::ConvTranspose { weight, bias, spec, slot } => {
                    let (x, w) = (input(pass, *slot)?, self.params.get(*weight)?);
                    let (_, _, kh, kw) = w.dims4()?;
                    into.accumulate(*weight, &conv_transpose2d_weight_grad(x, &dy, *spec, [kh, kw])?)?;
                    into.accumulate(*bias, &channel_sum(&dy, &ones)?)?;
                    conv_transpose2d_input_grad(&dy, &w, *spec)?
                }
                Layer::Upsample2 => upsample2_grad(&dy)?,
                Layer::Tanh { slot } => tanh_grad(&dy, input(pass, *slot)?)?,
                Layer::Residual { main, shortcut } => {
                    let side = self.back(shortcut, dy.clone(), pass, into)?;
                    add(&self.back(main, dy, pass, into)?, &side)?
                }
            };
        }
        Ok(dy)
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
                Layer::Linear { weight, side: bottom, .. } => {
                    total += 2 * self.params.get(*weight)?.elem_count();
                    side = *bottom;
                }
                Layer::Conv { weight, .. } => total += 2 * self.params.get(*weight)?.elem_count() * side * side,
                Layer::ConvTranspose { weight, spec, .. } => {
                    // Each input pixel meets every weight once.
                    total += 2 * self.params.get(*weight)?.elem_count() * side * side;
                    side *= spec.stride;
                }
                Layer::Upsample2 => side *= 2,
                Layer::Residual { main, shortcut } => {
                    let (a, after) = self.flops_of(main, side)?;
                    total += (a + self.flops_of(shortcut, side)?.0) as usize;
                    side = after;
                }
                Layer::BatchNormRelu(_) | Layer::Tanh { .. } => {}
            }
        }
        Ok((total as u64, side))
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

fn input(pass: &Forward, slot: usize) -> Result<&Tensor> {
    match &pass.kept[slot] {
        Some(Kept::Input(x)) => Ok(x),
        _ => bail!("the forward pass kept nothing for slot {slot}"),
    }
}
