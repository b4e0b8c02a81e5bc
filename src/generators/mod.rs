//! Generators: latents `[N, 128]` to images `[N, H, W, 3]` in [−1, 1], with an explicit backward pass.

mod biggan;
mod cnn;
pub mod layer;
mod resnet;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::critic::bytes_of;
use crate::machine::current::is_machine;
use crate::machine::program::stage;
use crate::nn::activation::{add, tanh, tanh_grad};
use crate::nn::batch_norm::{Affine, Coefficients, Statistics, batch_norm_relu, batch_norm_relu_grad};
use crate::nn::conv::{
    ConvSpec, conv_transpose2d, conv_transpose2d_input_grad, conv2d, conv2d_input_grad, linear, pixel,
};
use crate::nn::image::{add_channel_sum, channels_first, channels_last, one_hot};
use crate::nn::kernel::{Next, operand};
use crate::nn::matrix::{add_transposed_product, product};
use crate::nn::resample::{upsample2, upsample2_grad};
use crate::nn::spectral::{Power, Spectra};
use crate::nn::store::Store;
use crate::nn::weight::{Stored, Weight, spectra, weights};
use crate::rng::Stream;
use layer::{BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, BatchNorm, Layer, NetBuilder};

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
    weights: Vec<Stored>,
    spectra: Option<Spectra>,
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
    /// The input of an affine layer, or the output of tanh.
    Tensor(Tensor),
    Norm(Tensor, Coefficients),
}

/// What all layers of a pass share: its mode, the classes of its images, its weights.
type Call<'a> = (Mode, &'a Option<Tensor>, &'a [Weight]);

/// A forward pass: the images and what the backward pass reads.
pub struct Forward {
    /// `[N, H, W, 3]` in [−1, 1].
    pub images: Tensor,
    labels: Option<Tensor>,
    weights: Vec<Weight>,
    kept: Vec<Option<Kept>>,
}

impl Forward {
    /// Bytes that the pass keeps for the backward pass.
    pub fn kept_bytes(&self) -> usize {
        let tensors = self.kept.iter().flatten().map(|kept| match kept {
            Kept::Tensor(x) | Kept::Norm(x, _) => x,
        });
        bytes_of(tensors)
    }
}

/// Whether the networks of an architecture are given the classes of images.
pub fn is_conditional(id: &str) -> bool {
    id == "biggan32"
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
        Ok(Self { layers, slots: b.slots, weights: b.weights, spectra, side, classes, params, buffers })
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
        let (params, buffers) = (self.params.deep_clone()?, self.buffers.deep_clone()?);
        Ok(Self {
            layers: self.layers.clone(),
            slots: self.slots,
            weights: self.weights.clone(),
            spectra: spectra(self.weights.iter(), &params, &buffers)?,
            side: self.side,
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
        let (dtype, device) = (self.params.flat().dtype(), self.params.flat().device());
        let (z, labels) = drawn_latents(seed, purpose, step, n, self.classes);
        let labels = self.classes.zip(labels).map(|(classes, labels)| one_hot(&labels, classes, dtype, device));
        Ok(Latents { z: Tensor::from_vec(z, (n, LATENT), device)?.to_dtype(dtype)?, labels: labels.transpose()? })
    }

    /// Images of latents.
    ///
    /// # Errors
    /// On latents of another width or dtype, or without the classes that a conditional generator needs.
    pub fn forward(&self, latents: &Latents, mode: Mode) -> Result<Forward> {
        let mut kept: Vec<Option<Kept>> = (0..self.slots).map(|_| None).collect();
        let weights = self.weights(mode)?;
        let call = (mode, &latents.labels, &weights[..]);
        let images = stage("generator forward", || self.run(&self.layers, latents.z.clone(), call, &mut kept))?;
        Ok(Forward { images, labels: latents.labels.clone(), weights, kept })
    }

    /// Images of latents, keeping nothing.
    ///
    /// # Errors
    /// As for [`Generator::forward`].
    pub fn images(&self, latents: &Latents, mode: Mode) -> Result<Tensor> {
        let weights = self.weights(mode)?;
        let call = (mode, &latents.labels, &weights[..]);
        stage("generator forward", || self.run(&self.layers, latents.z.clone(), call, &mut []))
    }

    fn weights(&self, mode: Mode) -> Result<Vec<Weight>> {
        let power = match mode {
            Mode::Train => Power::Moving,
            Mode::Batch => Power::Once,
            Mode::Running => Power::Still,
        };
        let stores = [&self.params, &self.buffers];
        stage("generator weights", || weights(self.weights.iter(), self.spectra.as_ref(), stores, power))
    }

    /// Numbers of a linear layer's outputs `[N, C·side·side]` as images, in the order that they are kept in.
    fn unflattened(&self, y: &Tensor, side: usize) -> Result<Tensor> {
        let n = y.dim(0)?;
        match is_machine(y.device())? {
            true => y.reshape((n, side, side, ())),
            false => channels_last(&y.reshape((n, (), side, side))?),
        }
    }

    fn run(&self, layers: &[Layer], mut x: Tensor, call: Call, kept: &mut [Option<Kept>]) -> Result<Tensor> {
        // An empty `kept` is a pass that nothing follows.
        let keep = |kept: &mut [Option<Kept>], slot: usize, value: Kept| {
            if let Some(place) = kept.get_mut(slot) {
                *place = Some(value);
            }
        };
        for layer in layers {
            x = match layer {
                Layer::Linear { affine, side } => {
                    let x = operand(&x)?;
                    let y = linear(&x, &call.2[affine.index].kernel, Some(&self.params.get(affine.bias)?))?;
                    keep(kept, affine.slot, Kept::Tensor(x));
                    self.unflattened(&y, *side)?
                }
                Layer::BatchNormRelu(norm) => {
                    let (y, coefficients) = self.normalise(norm, &x, call)?;
                    keep(kept, norm.slot, Kept::Norm(x, coefficients));
                    y
                }
                Layer::Conv { affine, spec } => {
                    let x = operand(&x)?;
                    let bias = self.params.get(affine.bias)?;
                    let y = conv2d(&x, &call.2[affine.index].kernel, Some(&bias), *spec)?;
                    keep(kept, affine.slot, Kept::Tensor(x));
                    y
                }
                Layer::ConvTranspose { affine, .. } | Layer::UpsampleConv { affine } => {
                    let x = operand(&x)?;
                    let bias = self.params.get(affine.bias)?;
                    let y = conv_transpose2d(&x, &call.2[affine.index].kernel, Some(&bias), transposed_spec(layer))?;
                    keep(kept, affine.slot, Kept::Tensor(x));
                    y
                }
                Layer::Upsample2 => upsample2(&x)?,
                Layer::Tanh { slot } => {
                    let y = tanh(&x)?;
                    keep(kept, *slot, Kept::Tensor(y.clone()));
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

    fn normalise(&self, norm: &BatchNorm, x: &Tensor, (mode, labels, _): Call) -> Result<(Tensor, Coefficients)> {
        let [running_mean, running_variance] = [self.buffers.get(norm.mean)?, self.buffers.get(norm.variance)?];
        let running = [&running_mean, &running_variance];
        let statistics = match mode {
            Mode::Running => Statistics::Given(running),
            Mode::Batch => Statistics::Batch,
            Mode::Train => Statistics::Moving(running, BATCH_NORM_MOMENTUM),
        };
        let [mut gamma, mut beta] = [self.params.get(norm.gamma)?, self.params.get(norm.beta)?];
        let mut more = 0.0;
        if norm.conditional {
            let labels = classes(labels)?;
            gamma = product(labels, &gamma)?;
            beta = product(labels, &beta)?;
            more = 1.0;
        }
        batch_norm_relu(x, None, Affine { gamma: &gamma, beta: &beta, more }, statistics, BATCH_NORM_EPSILON)
    }

    /// Adds the gradient of ⟨`cotangent`, images⟩ in every parameter to `gradients`; `pass` must have used the batch's
    /// statistics. What it kept is freed layer by layer, so that the gradients take its place.
    ///
    /// # Errors
    /// When the cotangent has another shape than the images.
    pub fn backward(&self, mut pass: Forward, cotangent: &Tensor, gradients: &Store) -> Result<()> {
        stage("generator backward", || self.back(&self.layers, cotangent.clone(), &mut pass, gradients))?;
        Ok(())
    }

    fn back(&self, layers: &[Layer], mut dy: Tensor, pass: &mut Forward, into: &Store) -> Result<Tensor> {
        for (i, layer) in layers.iter().enumerate().rev() {
            dy = match layer {
                Layer::Linear { affine, .. } => {
                    let dy = match is_machine(dy.device())? {
                        true => dy.flatten_from(1)?,
                        false => channels_first(&dy)?.flatten_from(1)?,
                    };
                    let (dy, x) = (operand(&dy)?, kept(pass, affine.slot)?);
                    let sides = [&pixel(&x)?, &pixel(&dy)?];
                    pass.weights[affine.index].add_gradient(
                        &self.weights[affine.index],
                        sides,
                        ConvSpec::new(1, 0),
                        into,
                    )?;
                    add_channel_sum(&dy, None, &into.get(affine.bias)?)?;
                    // The latents need no gradient.
                    return Ok(dy);
                }
                Layer::BatchNormRelu(norm) => {
                    let Some(Kept::Norm(x, coefficients)) = pass.kept[norm.slot].take() else {
                        bail!("nothing was kept")
                    };
                    let [gamma, beta] = [into.get(norm.gamma)?, into.get(norm.beta)?];
                    let whole = (!norm.conditional).then_some([&gamma, &beta]);
                    let (dx, of_images) = batch_norm_relu_grad(&dy, &x, &coefficients, None, whole, before(layers, i))?;
                    if let Some([of_gamma, of_beta]) = of_images {
                        let labels = classes(&pass.labels)?;
                        add_transposed_product(labels, &of_gamma, &gamma)?;
                        add_transposed_product(labels, &of_beta, &beta)?;
                    }
                    dx
                }
                Layer::Conv { affine, spec } => {
                    let (dy, x) = (operand(&dy)?, kept(pass, affine.slot)?);
                    let (_, h, wd, _) = x.dims4()?;
                    let weight = &pass.weights[affine.index];
                    weight.add_gradient(&self.weights[affine.index], [&x, &dy], *spec, into)?;
                    drop(x);
                    add_channel_sum(&dy, None, &into.get(affine.bias)?)?;
                    conv2d_input_grad(&dy, &weight.kernel, *spec, [h, wd])?
                }
                Layer::ConvTranspose { affine, .. } | Layer::UpsampleConv { affine } => {
                    let (dy, x) = (operand(&dy)?, kept(pass, affine.slot)?);
                    let (weight, spec) = (&pass.weights[affine.index], transposed_spec(layer));
                    weight.add_gradient(&self.weights[affine.index], [&dy, &x], spec, into)?;
                    drop(x);
                    add_channel_sum(&dy, None, &into.get(affine.bias)?)?;
                    conv_transpose2d_input_grad(&dy, &weight.kernel, spec)?
                }
                Layer::Upsample2 => upsample2_grad(&dy)?,
                Layer::Tanh { slot } => tanh_grad(&dy, &kept(pass, *slot)?)?,
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
                    total += 2 * self.weights[affine.index].shape.iter().product::<usize>();
                    side = *bottom;
                }
                Layer::Conv { affine, .. } => {
                    total += 2 * self.weights[affine.index].shape.iter().product::<usize>() * side * side;
                }
                Layer::ConvTranspose { affine, spec } => {
                    // Each input pixel meets every weight once.
                    total += 2 * self.weights[affine.index].shape.iter().product::<usize>() * side * side;
                    side *= spec.stride;
                }
                Layer::UpsampleConv { affine } => {
                    // 16 taps in place of 9, each at an input pixel.
                    total += 2 * self.weights[affine.index].shape.iter().product::<usize>() / 9 * 16 * side * side;
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

/// The numbers of `n` latents of a named stream, and their classes where there are any.
pub fn drawn_latents(
    seed: u64,
    purpose: &str,
    step: u64,
    n: usize,
    classes: Option<usize>,
) -> (Vec<f32>, Option<Vec<u16>>) {
    let labels = classes.map(|classes| {
        let mut stream = Stream::new(seed, &format!("{purpose}/classes"), step);
        (0..n).map(|_| stream.below(classes) as u16).collect()
    });
    (Stream::new(seed, purpose, step).normals(n * LATENT), labels)
}

fn classes(labels: &Option<Tensor>) -> Result<&Tensor> {
    match labels {
        Some(labels) => Ok(labels),
        None => bail!("a conditional generator needs the classes of its images"),
    }
}

/// What takes the gradient at the input of layer `i`.
fn before(layers: &[Layer], i: usize) -> Next {
    match i.checked_sub(1).map(|i| &layers[i]) {
        Some(Layer::Conv { .. } | Layer::ConvTranspose { .. } | Layer::UpsampleConv { .. }) => Next::Operand,
        _ => Next::Any,
    }
}

/// Geometry of a layer that is a transposed convolution.
fn transposed_spec(layer: &Layer) -> ConvSpec {
    match layer {
        Layer::ConvTranspose { spec, .. } => *spec,
        _ => DOUBLING,
    }
}

/// What the forward pass kept, which goes with it.
fn kept(pass: &mut Forward, slot: usize) -> Result<Tensor> {
    match pass.kept[slot].take() {
        Some(Kept::Tensor(x)) => Ok(x),
        _ => bail!("the forward pass kept nothing for slot {slot}"),
    }
}
