//! Piecewise-linear critics and their four exact passes (ARCHITECTURE.md).
//!
//! A critic f made of the layers of [`layer`] is piecewise linear in its image, so its Hessian vanishes almost everywhere
//! and the gradient, in the weights, of a loss of both fᵢ and gᵢ = ∇ₓf(xᵢ) needs no differentiation of the backward pass:
//!
//! 1. [`Critic::forward`]: fᵢ, keeping each affine layer's input and each activation's output;
//! 2. [`Critic::linearise`]: from a seed of 1 per image back to the image: δ at each affine output, and gᵢ;
//! 3. with cᵢ = ∂L/∂fᵢ and vᵢ = ∂L/∂gᵢ, the tangent pass carries wᵢ = cᵢ·hᵢ + uᵢ (h the forward input, u the tangent of v)
//!    through the linearised layers in one go: it is linear, and starts from cᵢ·xᵢ + vᵢ with biases scaled by cᵢ;
//! 4. ∂L/∂W = Σᵢ δᵢ ⊗ wᵢ and ∂L/∂b = Σᵢ cᵢ·δᵢ, layer by layer as the tangent arrives ([`Critic::second_order`]).
//!
//! A class-conditional critic has a projection head (Miyato and Koyama 2018): it is linear in the features, given the class,
//! and so changes nothing above.
//!
//! A loss of fᵢ alone needs only the ordinary backward pass ([`Critic::first_order`]). In the image, ∂L/∂xᵢ = cᵢ·gᵢ.

mod biggan;
mod cnn;
pub mod layer;
mod pass;
pub(crate) mod r3gan;
mod resnet;

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::machine::program::stage;
use crate::nn::activation::{add, leaky_relu, leaky_relu_slope};
use crate::nn::augment::augment;
use crate::nn::conv::{Then, conv2d_input_grad_then, conv2d_then};
use crate::nn::fir::{fir_down2, fir_down2_grad};
use crate::nn::image::{add_channel_sum, add_scaled_bias, ones, scale_images, select_class};
use crate::nn::kernel::{Next, operand};
use crate::nn::resample::{avg_pool2, avg_pool2_grad, global_pool, global_pool_grad};
use crate::nn::spectral::{Power, Spectra};
use crate::nn::store::Store;
use crate::nn::weight::{Weight, weights};
use crate::rng::Stream;
use layer::{Affine, Layer, Net, NetBuilder};
pub(crate) use pass::bytes_of;
pub use pass::{Cotangents, Forward, Linear};

/// The critics of the paper, and R3GAN's.
pub const ARCHITECTURES: [&str; 10] =
    ["cnn32", "cnn48", "resnet32", "resnet48", "resnet128", "resnet256", "biggan32", "r3gan32", "r3gan48", "r3gan64"];

/// Whether the networks of an architecture are given the classes of images.
pub fn is_conditional(id: &str) -> bool {
    matches!(id, "biggan32" | "r3gan32")
}

/// Side in pixels of an architecture's images, which its name ends with.
pub fn side(id: &str) -> usize {
    id.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Channels of a full-size layer at a width multiplier: rounded, at least one.
pub fn scaled(channels: usize, width: f64) -> usize {
    ((channels as f64 * width).round() as usize).max(1)
}

/// A critic (or any network of its vocabulary): layers, parameters, and the vectors of spectral normalisation.
pub struct Critic {
    net: Net,
    /// Trained parameters, under the names of the released code.
    pub params: Store,
    /// Spectral-normalisation vectors, empty without it.
    pub buffers: Store,
    spectra: Option<Spectra>,
}

type Visit<'a> = &'a mut dyn FnMut(&Affine, &Tensor) -> Result<()>;

impl Critic {
    /// The architecture `id` at a width multiplier, freshly initialised from the stream; a conditional one knows `classes`
    /// classes.
    ///
    /// # Errors
    /// When the architecture is unknown.
    pub fn new(
        id: &str,
        width: f64,
        classes: usize,
        spectral: bool,
        stream: &mut Stream,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let (layers, builder) = Self::plan(id, width, classes, spectral)?;
        builder.build(layers, stream, dtype, device)
    }

    /// Trained parameters of an architecture.
    ///
    /// # Errors
    /// When it is unknown.
    pub fn parameters(id: &str, width: f64, classes: usize) -> Result<usize> {
        Ok(Self::plan(id, width, classes, false)?.1.parameters())
    }

    fn plan(id: &str, width: f64, classes: usize, spectral: bool) -> Result<(Vec<Layer>, NetBuilder)> {
        let builder = NetBuilder::new(spectral);
        Ok(match id {
            "cnn32" => cnn::layers(4, width, builder),
            "cnn48" => cnn::layers(6, width, builder),
            "resnet32" => resnet::layers(&resnet::RESNET32, width, builder),
            "resnet48" => resnet::layers(&resnet::RESNET48, width, builder),
            "resnet128" => resnet::layers(&resnet::RESNET128, width, builder),
            "resnet256" => resnet::layers(&resnet::RESNET256, width, builder),
            "biggan32" => biggan::layers(classes, width, builder),
            "r3gan32" => r3gan::layers(&r3gan::R3GAN32, Some(classes), width, builder),
            "r3gan48" => r3gan::layers(&r3gan::R3GAN48, None, width, builder),
            "r3gan64" => r3gan::layers(&r3gan::R3GAN64, None, width, builder),
            other => bail!("unknown critic `{other}`; known: {}", ARCHITECTURES.join(", ")),
        })
    }

    fn weights(&self, training: bool) -> Result<Vec<(Weight, Option<Tensor>)>> {
        let power = if training { Power::Moving } else { Power::Still };
        let stored = self.net.affines().map(|a| &a.weight);
        let all = weights(stored, self.spectra.as_ref(), [&self.params, &self.buffers], power)?;
        let with_bias =
            |(weight, a): (Weight, &Affine)| Ok((weight, a.bias.map(|id| self.params.get(id)).transpose()?));
        all.into_iter().zip(self.net.affines()).map(with_bias).collect()
    }

    /// Pass 1 over images `[N, H, W, C]` with, for a conditional critic, their classes `[N, classes]` as ones among zeros
    /// ([`crate::nn::image::one_hot`]). In training mode a spectrally normalised critic takes one power iteration, which
    /// moves its buffers.
    ///
    /// # Errors
    /// On images of another size or dtype.
    pub fn forward(&self, x: &Tensor, labels: Option<&Tensor>, training: bool) -> Result<Forward> {
        self.forward_augmented((x, None), labels, training)
    }

    /// The same of images that are augmented first, each by a row of numbers `[N, NUMBERS]` ([`crate::nn::augment`]): gᵢ is still that in
    /// the images as they came.
    ///
    /// # Errors
    /// As for [`Critic::forward`], and when there is not a row for each image.
    pub fn forward_augmented(
        &self,
        (x, by): (&Tensor, Option<&Tensor>),
        labels: Option<&Tensor>,
        training: bool,
    ) -> Result<Forward> {
        let x = &by.map_or_else(|| Ok(x.clone()), |by| augment(x, by))?;
        let mut pass = Forward {
            f: x.clone(),
            input: x.clone(),
            augmentation: by.cloned(),
            labels: labels.cloned(),
            weights: stage("critic weights", || self.weights(training))?,
            kept: vec![None; self.net.slots],
        };
        let out = stage("critic forward", || self.run(&self.net.layers, x.clone(), &mut pass))?;
        let (n, h, w, _) = out.dims4()?;
        if (h, w) != (1, 1) {
            bail!("images of shape {:?} do not fit this critic: its output has {h}×{w} pixels, not 1×1", x.dims())
        }
        pass.f = out.reshape((n, ()))?;
        Ok(pass)
    }

    fn run(&self, layers: &[Layer], mut x: Tensor, pass: &mut Forward) -> Result<Tensor> {
        let mut layers = layers.iter().peekable();
        while let Some(layer) = layers.next() {
            x = match layer {
                Layer::Conv(a) => {
                    let x = operand(&x)?;
                    pass.kept[a.slot] = Some(x.clone());
                    // An activation that follows is done to the outputs while they are in cache.
                    let next = layers.next_if(|l| matches!(l, Layer::Leaky { .. }));
                    let (weight, bias) = &pass.weights[a.index];
                    let then = match next {
                        Some(Layer::Leaky { alpha, .. }) => Then::Leaky(*alpha),
                        _ => Then::Nothing,
                    };
                    let y = conv2d_then(
                        &x,
                        &weight.kernel,
                        bias.as_ref(),
                        a.spec,
                        (then, next_of(layers.peek().copied())),
                    )?;
                    if let Some(Layer::Leaky { slot, .. }) = next {
                        pass.kept[*slot] = Some(y.clone());
                    }
                    y
                }
                Layer::Leaky { alpha, slot } => {
                    let y = leaky_relu(&x, *alpha)?;
                    pass.kept[*slot] = Some(y.clone());
                    y
                }
                Layer::AvgPool2 => avg_pool2(&x)?,
                Layer::FirDown2 => fir_down2(&x)?,
                Layer::GlobalPool { mean, slot } => {
                    let (_, h, w, _) = x.dims4()?;
                    pass.kept[*slot] = Some(x.clone());
                    global_pool(&x, pool_scale(*mean, h * w))?
                }
                Layer::SelectClass => select_class(&x, classes(pass)?)?,
                Layer::Residual { main, shortcut } => {
                    let side = self.run(shortcut, x.clone(), pass)?;
                    add(&self.run(main, x, pass)?, &side)?
                }
            };
        }
        Ok(x)
    }

    /// Runs `delta` back through `layers`, showing each affine layer the gradient at its output. The result is the
    /// gradient at the input, unless the caller does not need it: then it may stop short of it.
    fn adjoint(
        &self,
        layers: &[Layer],
        mut delta: Tensor,
        pass: &Forward,
        to_input: bool,
        visit: Visit,
    ) -> Result<Option<Tensor>> {
        let mut layers = layers.iter().enumerate().rev().peekable();
        while let Some((i, layer)) = layers.next() {
            let needed = to_input || i > 0;
            delta = match layer {
                Layer::Conv(a) => {
                    let delta = operand(&delta)?;
                    visit(a, &delta)?;
                    if !needed {
                        return Ok(None);
                    }
                    let input = kept(pass, a.slot)?;
                    let (_, h, w, _) = input.dims4()?;
                    // The input is the output of an activation before.
                    let then = match layers.next_if(|(_, l)| matches!(l, Layer::Leaky { .. })) {
                        Some((_, Layer::Leaky { alpha, .. })) => Then::Slope { y: input, alpha: *alpha },
                        _ => Then::Nothing,
                    };
                    let then = (then, next_of(layers.peek().map(|&(_, layer)| layer)));
                    conv2d_input_grad_then(&delta, &pass.weights[a.index].0.kernel, a.spec, [h, w], then)?
                }
                Layer::Leaky { alpha, slot } => leaky_relu_slope(&delta, kept(pass, *slot)?, *alpha)?,
                Layer::AvgPool2 => avg_pool2_grad(&delta)?,
                Layer::FirDown2 => fir_down2_grad(&delta)?,
                Layer::GlobalPool { mean, slot } => {
                    let (_, h, w, _) = kept(pass, *slot)?.dims4()?;
                    global_pool_grad(&delta, pool_scale(*mean, h * w), [h, w])?
                }
                Layer::SelectClass => {
                    let (labels, n) = (classes(pass)?, delta.dim(0)?);
                    scale_images(labels, &delta.reshape(n)?)?.reshape((n, 1, 1, ()))?
                }
                Layer::Residual { main, shortcut } => {
                    let side = self.adjoint(shortcut, delta.clone(), pass, needed, visit)?;
                    match (self.adjoint(main, delta, pass, needed, visit)?, side) {
                        (Some(a), Some(b)) => add(&a, &b)?,
                        _ => return Ok(None),
                    }
                }
            };
        }
        Ok(Some(delta))
    }

    /// Runs a tangent through the linearised layers, biases scaled by `c`, showing each affine layer its input.
    fn tangent(
        &self,
        layers: &[Layer],
        mut x: Tensor,
        pass: &Forward,
        c: Option<&Tensor>,
        visit: Visit,
    ) -> Result<Tensor> {
        let mut layers = layers.iter().peekable();
        while let Some(layer) = layers.next() {
            x = match layer {
                Layer::Conv(a) => {
                    let x = operand(&x)?;
                    visit(a, &x)?;
                    if self.net.head == Some(a.slot) {
                        return Ok(x);
                    }
                    let (weight, bias) = &pass.weights[a.index];
                    let scaled = c.zip(bias.as_ref());
                    let next = layers.next_if(|l| matches!(l, Layer::Leaky { .. }));
                    let then = match (next, scaled) {
                        (Some(Layer::Leaky { alpha, slot }), Some((c, bias))) => {
                            Then::ScaledBiasSlope { c, bias, y: kept(pass, *slot)?, alpha: *alpha }
                        }
                        (Some(Layer::Leaky { alpha, slot }), None) => {
                            Then::Slope { y: kept(pass, *slot)?, alpha: *alpha }
                        }
                        _ => Then::Nothing,
                    };
                    let with_bias = scaled.is_some() && next.is_none();
                    let after = if with_bias { Next::Any } else { next_of(layers.peek().copied()) };
                    let y = conv2d_then(&x, &weight.kernel, None, a.spec, (then, after))?;
                    match scaled {
                        Some((c, bias)) if next.is_none() => add_scaled_bias(&y, c, bias)?,
                        _ => y,
                    }
                }
                Layer::Leaky { alpha, slot } => leaky_relu_slope(&x, kept(pass, *slot)?, *alpha)?,
                Layer::AvgPool2 => avg_pool2(&x)?,
                Layer::FirDown2 => fir_down2(&x)?,
                Layer::GlobalPool { mean, slot } => {
                    let (_, h, w, _) = kept(pass, *slot)?.dims4()?;
                    global_pool(&x, pool_scale(*mean, h * w))?
                }
                Layer::SelectClass => select_class(&x, classes(pass)?)?,
                Layer::Residual { main, shortcut } => {
                    let side = self.tangent(shortcut, x.clone(), pass, c, visit)?;
                    add(&self.tangent(main, x, pass, c, visit)?, &side)?
                }
            };
        }
        Ok(x)
    }

    fn seed(&self, pass: &Forward, seed: &Tensor) -> Result<Tensor> {
        let (n, outputs) = pass.f.dims2()?;
        seed.reshape((n, 1, 1, outputs))
    }

    /// Adds Σᵢ δᵢ ⊗ hᵢ to the layer's weight gradient.
    fn gradient(&self, pass: &Forward, affine: &Affine, [delta, h]: [&Tensor; 2], into: &Store) -> Result<()> {
        pass.weights[affine.index].0.add_gradient(&affine.weight, [h, delta], affine.spec, into)
    }

    /// Adds ∂L/∂θ for a loss of the outputs alone to `gradients`; `c` `[N, outputs]` is ∂L/∂f.
    ///
    /// # Errors
    /// When `c` has another shape.
    pub fn first_order(&self, pass: &Forward, c: &Tensor, gradients: &Store) -> Result<()> {
        let mut visit = |affine: &Affine, delta: &Tensor| {
            stage("critic weight gradient", || {
                self.gradient(pass, affine, [delta, kept(pass, affine.slot)?], gradients)?;
                affine.bias.map_or(Ok(()), |bias| add_channel_sum(delta, None, &gradients.get(bias)?))
            })
        };
        let seed = self.seed(pass, c)?;
        stage("critic adjoint", || self.adjoint(&self.net.layers, seed, pass, false, &mut visit))?;
        Ok(())
    }

    /// Pass 2: gᵢ = ∇ₓf(xᵢ) and the adjoints at every affine layer.
    ///
    /// # Errors
    /// When the network has more than one output.
    pub fn linearise(&self, pass: &Forward) -> Result<Linear> {
        let mut deltas = vec![None; self.net.slots];
        let seed = self.seed(pass, &ones(pass.scalar()?.dim(0)?, &pass.f)?)?;
        let mut visit = |affine: &Affine, delta: &Tensor| {
            deltas[affine.slot] = Some(delta.clone());
            Ok(())
        };
        let gradient = stage("critic adjoint", || self.adjoint(&self.net.layers, seed, pass, true, &mut visit))?;
        match gradient {
            Some(gradient) => Ok(Linear { gradient: pass.before(gradient)?, deltas }),
            None => bail!("the critic has no layers"),
        }
    }

    /// gᵢ = ∇ₓf(xᵢ) alone, without keeping the adjoints.
    ///
    /// # Errors
    /// When the network has more than one output.
    pub fn input_gradient(&self, pass: &Forward) -> Result<Tensor> {
        let seed = self.seed(pass, &ones(pass.scalar()?.dim(0)?, &pass.f)?)?;
        match stage("critic adjoint", || self.adjoint(&self.net.layers, seed, pass, true, &mut |_, _| Ok(())))? {
            Some(gradient) => pass.before(gradient),
            None => bail!("the critic has no layers"),
        }
    }

    /// Passes 3 and 4: adds ∂L/∂θ to `gradients` for a loss whose derivatives by fᵢ and gᵢ are `cotangents`.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn second_order(
        &self,
        pass: &Forward,
        linear: &Linear,
        Cotangents { scale, others }: &Cotangents,
        gradients: &Store,
    ) -> Result<()> {
        let start = pass.start(&linear.gradient, scale, others.as_ref())?;
        let c = others.as_ref().map(|[c, _]| c);
        let mut visit = |affine: &Affine, h: &Tensor| {
            let Some(delta) = &linear.deltas[affine.slot] else { bail!("no adjoint was kept for this layer") };
            stage("critic weight gradient", || {
                self.gradient(pass, affine, [delta, h], gradients)?;
                match (c, affine.bias) {
                    (Some(c), Some(bias)) => add_channel_sum(delta, Some(c), &gradients.get(bias)?),
                    _ => Ok(()),
                }
            })
        };
        stage("critic tangent", || self.tangent(&self.net.layers, start, pass, c, &mut visit))?;
        Ok(())
    }

    /// What its passes on a device read beside parameters and buffers.
    pub fn table(&self) -> Option<&Tensor> {
        self.spectra.as_ref().map(Spectra::table)
    }

    /// Every tensor of the state by name, as the released code's `state_dict`.
    ///
    /// # Errors
    /// Never for a consistent critic.
    pub fn state(&self) -> Result<std::collections::BTreeMap<String, Tensor>> {
        let mut state = self.params.named()?;
        state.extend(self.buffers.named()?);
        Ok(state)
    }

    /// Floating-point operations of one convolution pass over `images` `[N, H, W, C]`.
    ///
    /// # Errors
    /// On images of another size.
    pub fn flops(&self, images: [usize; 4]) -> Result<u64> {
        layer::flops(&self.net.layers, images).map(|(flops, _)| flops)
    }
}

/// What takes the output of the layer before this one.
fn next_of(layer: Option<&Layer>) -> Next {
    if matches!(layer, Some(Layer::Conv(_))) { Next::Operand } else { Next::Any }
}

fn kept(pass: &Forward, slot: usize) -> Result<&Tensor> {
    match &pass.kept[slot] {
        Some(t) => Ok(t),
        None => bail!("the forward pass kept nothing for slot {slot}"),
    }
}

/// The images' classes, `[N, classes]`.
fn classes(pass: &Forward) -> Result<&Tensor> {
    match &pass.labels {
        Some(labels) => Ok(labels),
        None => bail!("a conditional critic needs the classes of its images"),
    }
}

fn pool_scale(mean: bool, pixels: usize) -> f64 {
    if mean { 1.0 / pixels as f64 } else { 1.0 }
}
