//! Generators: latents `[N, 128]` to images `[N, H, W, 3]` in [−1, 1], with an explicit backward pass.

mod biggan;
mod cnn;
pub mod layer;
mod resnet;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::critic::bytes_of;
use crate::nn::activation::{add, tanh, tanh_grad};
use crate::nn::batch_norm::{Coefficients, batch_norm_relu, batch_norm_relu_grad, channel_moments};
use crate::nn::conv::{
    ConvSpec, conv_transpose2d, conv_transpose2d_input_grad, conv_transpose2d_weight_grad, conv2d, conv2d_input_grad,
    conv2d_weight_grad, linear, linear_weight_grad,
};
use crate::nn::fold::{upsample_then_conv, upsample_then_conv_grad};
use crate::nn::image::{channel_sum, channels_first, channels_last, one_hot};
use crate::nn::resample::{upsample2, upsample2_grad};
use crate::nn::spectral::{Power, Weight};
use crate::nn::store::Store;
use crate::rng::Stream;
use layer::{Affine, BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, BatchNorm, Layer, NetBuilder};

/// The generators of the paper.
pub const ARCHITECTURES: [&str; 7] = crate::critic::ARCHITECTURES;

/// The transposed convolution that doubles the side.
const DOUBLING: ConvSpec = ConvSpec::new(2, 1);

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
    /// `[N, 128]`, standard normal.
    pub z: Tensor,
    /// Classes `[N, classes]` as ones among zeros, for a conditional generator.
    pub labels: Option<Tensor>,
}

enum Kept {
    Input(Tensor),
    Affine(Tensor, Weight),
    Norm(Tensor, Coefficients),
}

/// A forward pass: the images and what the backward pass reads.
pub struct Forward {
    /// `[N, H, W, 3]` in [−1, 1].
    pub images: Tensor,
    labels: Option<Tensor>,
    kept: Vec<Option<Kept>>,
}

impl Forward {
    /// Bytes that the pass keeps for the backward pass.
    pub fn kept_bytes(&self) -> usize {
        let tensors = self.kept.iter().flatten().map(|kept| match kept {
            Kept::Input(x) | Kept::Affine(x, _) | Kept::Norm(x, _) => x,
        });
        bytes_of(tensors)
    }
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
        let classes = (id == "biggan32").then_some(classes);
        Ok(Self { layers, slots: b.slots, side, classes, params, buffers })
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
            other => bail!("unknown generator `{other}`; known: {}", ARCHITECTURES.join(", ")),
        };
        Ok((layers, side, b))
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
            classes: self.classes,
            params: self.params.deep_clone()?,
            buffers: self.buffers.deep_clone()?,
        })
    }

    /// `n` latents of a named stream, with uniformly drawn classes for a conditional generator.
    ///
    /// # Errors
    /// When the device refuses the memory.
    pub fn latents(&self, seed: u64, purpose: &str, step: u64, n: usize) -> Result<Latents> {
        let (dtype, device) = (self.params.flat().dtype(), self.params.flat().device());
        let z = Stream::new(seed, purpose, step).normals(n * LATENT);
        let labels = self.classes.map(|classes| {
            let mut stream = Stream::new(seed, &format!("{purpose}/classes"), step);
            let labels: Vec<u8> = (0..n).map(|_| stream.below(classes) as u8).collect();
            one_hot(&labels, classes, dtype, device)
        });
        Ok(Latents { z: Tensor::from_vec(z, (n, LATENT), device)?.to_dtype(dtype)?, labels: labels.transpose()? })
    }

    /// Images of latents.
    ///
    /// # Errors
    /// On latents of another width or dtype, or without the classes that a conditional generator needs.
    pub fn forward(&self, latents: &Latents, mode: Mode) -> Result<Forward> {
        let mut kept: Vec<Option<Kept>> = (0..self.slots).map(|_| None).collect();
        let images = self.run(&self.layers, latents.z.clone(), (mode, &latents.labels), &mut kept)?;
        Ok(Forward { images, labels: latents.labels.clone(), kept })
    }

    /// Images of latents, keeping nothing.
    ///
    /// # Errors
    /// As for [`Generator::forward`].
    pub fn images(&self, latents: &Latents, mode: Mode) -> Result<Tensor> {
        self.run(&self.layers, latents.z.clone(), (mode, &latents.labels), &mut [])
    }

    fn weight(&self, affine: &Affine, mode: Mode) -> Result<Weight> {
        let stored = self.params.get(affine.weight)?;
        let power = match mode {
            Mode::Train => Power::Moving,
            Mode::Batch => Power::Once,
            Mode::Running => Power::Still,
        };
        Weight::of(&stored, affine.spectral.as_ref(), &self.buffers, power)
    }

    fn run(
        &self,
        layers: &[Layer],
        mut x: Tensor,
        call: (Mode, &Option<Tensor>),
        kept: &mut [Option<Kept>],
    ) -> Result<Tensor> {
        // An empty `kept` is a pass that nothing follows.
        let keep = |kept: &mut [Option<Kept>], slot: usize, value: Kept| {
            if let Some(place) = kept.get_mut(slot) {
                *place = Some(value);
            }
        };
        for layer in layers {
            x = match layer {
                Layer::Linear { affine, side } => {
                    let weight = self.weight(affine, call.0)?;
                    let y = linear(&x, &weight.w, Some(&self.params.get(affine.bias)?))?;
                    keep(kept, affine.slot, Kept::Affine(x.clone(), weight));
                    channels_last(&y.reshape((x.dim(0)?, (), *side, *side))?)?
                }
                Layer::BatchNormRelu(norm) => {
                    let (y, coefficients) = self.normalise(norm, &x, call)?;
                    keep(kept, norm.slot, Kept::Norm(x, coefficients));
                    y
                }
                Layer::Conv { affine, spec } => {
                    let weight = self.weight(affine, call.0)?;
                    let y = conv2d(&x, &weight.w, Some(&self.params.get(affine.bias)?), *spec)?;
                    keep(kept, affine.slot, Kept::Affine(x, weight));
                    y
                }
                Layer::ConvTranspose { affine, spec } => {
                    let weight = self.weight(affine, call.0)?;
                    let y = conv_transpose2d(&x, &weight.w, Some(&self.params.get(affine.bias)?), *spec)?;
                    keep(kept, affine.slot, Kept::Affine(x, weight));
                    y
                }
                Layer::UpsampleConv { affine } => {
                    let mut weight = self.weight(affine, call.0)?;
                    weight.w = upsample_then_conv(&weight.w)?;
                    let y = conv_transpose2d(&x, &weight.w, Some(&self.params.get(affine.bias)?), DOUBLING)?;
                    keep(kept, affine.slot, Kept::Affine(x, weight));
                    y
                }
                Layer::Upsample2 => upsample2(&x)?,
                Layer::Tanh { slot } => {
                    let y = tanh(&x)?;
                    keep(kept, *slot, Kept::Input(y.clone()));
                    y
                }
                Layer::Residual { main, shortcut } => {
                    let side = self.run(shortcut, x.clone(), call, kept)?;
                    add(&self.run(main, x, call, kept)?, &side)?
                }
            };
        }
        Ok(x)
    }

    fn normalise(
        &self,
        norm: &BatchNorm,
        x: &Tensor,
        (mode, labels): (Mode, &Option<Tensor>),
    ) -> Result<(Tensor, Coefficients)> {
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
        let [mut gamma, mut beta] = [self.params.get(norm.gamma)?, self.params.get(norm.beta)?];
        if norm.conditional {
            let labels = classes(labels)?;
            gamma = (labels.matmul(&gamma)? + 1.0)?;
            beta = labels.matmul(&beta)?;
        }
        batch_norm_relu(x, [&gamma, &beta], [&mean, &variance], BATCH_NORM_EPSILON)
    }

    /// Adds the gradient of ⟨`cotangent`, images⟩ in every parameter to `gradients`; `pass` must have used the batch's
    /// statistics. What it kept is freed layer by layer, so that the gradients take its place.
    ///
    /// # Errors
    /// When the cotangent has another shape than the images.
    pub fn backward(&self, mut pass: Forward, cotangent: &Tensor, gradients: &Store) -> Result<()> {
        self.back(&self.layers, cotangent.clone(), &mut pass, gradients)?;
        Ok(())
    }

    fn back(&self, layers: &[Layer], mut dy: Tensor, pass: &mut Forward, into: &Store) -> Result<Tensor> {
        let ones = Tensor::ones(dy.dim(0)?, dy.dtype(), dy.device())?;
        for layer in layers.iter().rev() {
            dy = match layer {
                Layer::Linear { affine, .. } => {
                    let dy = channels_first(&dy)?.flatten_from(1)?;
                    let (x, weight) = input_and_weight(pass, affine.slot)?;
                    into.accumulate(affine.weight, &weight.pull_back(&linear_weight_grad(&x, &dy)?)?)?;
                    into.accumulate(affine.bias, &channel_sum(&dy, &ones)?)?;
                    // The latents need no gradient.
                    return Ok(dy);
                }
                Layer::BatchNormRelu(norm) => {
                    let Some(Kept::Norm(x, coefficients)) = pass.kept[norm.slot].take() else {
                        bail!("nothing was kept")
                    };
                    let [dx, mut gamma, mut beta] = batch_norm_relu_grad(&dy, &x, &coefficients)?;
                    if norm.conditional {
                        let of_class = classes(&pass.labels)?.t()?;
                        gamma = of_class.matmul(&gamma)?;
                        beta = of_class.matmul(&beta)?;
                    }
                    into.accumulate(norm.gamma, &gamma)?;
                    into.accumulate(norm.beta, &beta)?;
                    dx
                }
                Layer::Conv { affine, spec } => {
                    let (x, weight) = input_and_weight(pass, affine.slot)?;
                    let ((_, _, kh, kw), (_, h, wd, _)) = (weight.w.dims4()?, x.dims4()?);
                    let dw = conv2d_weight_grad(&x, &dy, *spec, [kh, kw])?;
                    drop(x);
                    into.accumulate(affine.weight, &weight.pull_back(&dw)?)?;
                    into.accumulate(affine.bias, &channel_sum(&dy, &ones)?)?;
                    conv2d_input_grad(&dy, &weight.w, *spec, [h, wd])?
                }
                Layer::ConvTranspose { affine, spec } => {
                    let (x, weight) = input_and_weight(pass, affine.slot)?;
                    let (_, _, kh, kw) = weight.w.dims4()?;
                    let dw = conv_transpose2d_weight_grad(&x, &dy, *spec, [kh, kw])?;
                    drop(x);
                    into.accumulate(affine.weight, &weight.pull_back(&dw)?)?;
                    into.accumulate(affine.bias, &channel_sum(&dy, &ones)?)?;
                    conv_transpose2d_input_grad(&dy, &weight.w, *spec)?
                }
                Layer::UpsampleConv { affine } => {
                    let (x, weight) = input_and_weight(pass, affine.slot)?;
                    let dw = conv_transpose2d_weight_grad(&x, &dy, DOUBLING, [4, 4])?;
                    drop(x);
                    let dw = upsample_then_conv_grad(&dw)?;
                    into.accumulate(affine.weight, &weight.pull_back(&dw)?)?;
                    into.accumulate(affine.bias, &channel_sum(&dy, &ones)?)?;
                    conv_transpose2d_input_grad(&dy, &weight.w, DOUBLING)?
                }
                Layer::Upsample2 => upsample2_grad(&dy)?,
                Layer::Tanh { slot } => tanh_grad(&dy, &input(pass, *slot)?)?,
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
                Layer::Linear { affine, side: bottom } => {
                    total += 2 * self.params.get(affine.weight)?.elem_count();
                    side = *bottom;
                }
                Layer::Conv { affine, .. } => {
                    total += 2 * self.params.get(affine.weight)?.elem_count() * side * side;
                }
                Layer::ConvTranspose { affine, spec } => {
                    // Each input pixel meets every weight once.
                    total += 2 * self.params.get(affine.weight)?.elem_count() * side * side;
                    side *= spec.stride;
                }
                Layer::UpsampleConv { affine } => {
                    // 16 taps in place of 9, each at an input pixel.
                    total += 2 * self.params.get(affine.weight)?.elem_count() / 9 * 16 * side * side;
                    side *= 2;
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

fn classes(labels: &Option<Tensor>) -> Result<&Tensor> {
    match labels {
        Some(labels) => Ok(labels),
        None => bail!("a conditional generator needs the classes of its images"),
    }
}

fn input_and_weight(pass: &mut Forward, slot: usize) -> Result<(Tensor, Weight)> {
    match pass.kept[slot].take() {
        Some(Kept::Affine(x, weight)) => Ok((x, weight)),
        _ => bail!("the forward pass kept nothing for slot {slot}"),
    }
}

fn input(pass: &mut Forward, slot: usize) -> Result<Tensor> {
    match pass.kept[slot].take() {
        Some(Kept::Input(x)) => Ok(x),
        _ => bail!("the forward pass kept nothing for slot {slot}"),
    }
}
