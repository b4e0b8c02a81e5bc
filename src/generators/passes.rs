//! The passes of a generator: images of latents, and from a cotangent of the images the gradients in all parameters.

use candle_core::{Result, Tensor, bail};

use super::layer::{self, BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, BatchNorm, Layer};
use super::{Generator, Latents, Mode};
use crate::critic::bytes_of;
use crate::machine::current::is_machine;
use crate::machine::program::stage;
use crate::nn::activation::{add, leaky_relu, leaky_relu_slope, tanh, tanh_grad};
use crate::nn::batch_norm::{Affine, Coefficients, Statistics, batch_norm_relu, batch_norm_relu_grad};
use crate::nn::conv::{
    ConvSpec, Then, conv_transpose2d_input_grad_then, conv_transpose2d_then, conv2d_input_grad, conv2d_input_grad_then,
    conv2d_then, linear, pixel,
};
use crate::nn::fir::{fir_up2, fir_up2_grad};
use crate::nn::image::{add_channel_sum, channels_first, channels_last};
use crate::nn::kernel::{Next, operand};
use crate::nn::matrix::{add_transposed_product, join_columns, last_columns, product, product_with_transposed};
use crate::nn::resample::{upsample2, upsample2_grad};
use crate::nn::spectral::Power;
use crate::nn::store::Store;
use crate::nn::tally::Tally;
use crate::nn::weight::{Weight, weights};

/// The transposed convolution that doubles the side.
const DOUBLING: ConvSpec = ConvSpec::new(2, 1);

enum Kept {
    /// The input of an affine layer, or the output of an activation.
    Tensor(Tensor),
    Norm(Tensor, Coefficients),
}

/// Images between layers, and their moments where these were noted.
type Flow = (Tensor, Option<Tally>);

/// What follows a list of layers: a sum with `plus`, and whether batch normalisation is next.
#[derive(Clone, Copy, Default)]
struct End<'a> {
    plus: Option<&'a Tensor>,
    normalised: bool,
}

/// What all layers of a pass share: its mode, the classes of its images, its weights.
type Call<'a> = (Mode, &'a Option<Tensor>, &'a [Weight]);

/// A forward pass: the images and what the backward pass reads.
pub struct Forward {
    /// `[N, H, W, 3]`.
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

impl Generator {
    /// Images of latents.
    ///
    /// # Errors
    /// On latents of another width or dtype, or without the classes that a conditional generator needs.
    pub fn forward(&self, latents: &Latents, mode: Mode) -> Result<Forward> {
        let mut kept: Vec<Option<Kept>> = (0..self.slots).map(|_| None).collect();
        let weights = self.weights(mode)?;
        let call = (mode, &latents.labels, &weights[..]);
        let flow = (latents.z.clone(), None);
        let (images, _) = stage("generator forward", || self.run(&self.layers, flow, End::default(), call, &mut kept))?;
        Ok(Forward { images, labels: latents.labels.clone(), weights, kept })
    }

    /// Images of latents, keeping nothing.
    ///
    /// # Errors
    /// As for [`Generator::forward`].
    pub fn images(&self, latents: &Latents, mode: Mode) -> Result<Tensor> {
        let weights = self.weights(mode)?;
        let call = (mode, &latents.labels, &weights[..]);
        let flow = (latents.z.clone(), None);
        Ok(stage("generator forward", || self.run(&self.layers, flow, End::default(), call, &mut []))?.0)
    }

    pub(super) fn weights(&self, mode: Mode) -> Result<Vec<Weight>> {
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

    fn run(
        &self,
        layers: &[Layer],
        (mut x, mut moments): Flow,
        mut end: End,
        call: Call,
        kept: &mut [Option<Kept>],
    ) -> Result<Flow> {
        // An empty `kept` is a pass that nothing follows.
        let keep = |kept: &mut [Option<Kept>], slot: usize, value: Kept| {
            if let Some(place) = kept.get_mut(slot) {
                *place = Some(value);
            }
        };
        let mut layers = layers.iter().peekable();
        while let Some(layer) = layers.next() {
            x = match layer {
                Layer::JoinClass { embedding } => {
                    let embedded = product_with_transposed(classes(call.1)?, &self.params.get(*embedding)?)?;
                    join_columns(&x, &embedded)?
                }
                Layer::Linear { affine, side } => {
                    let x = operand(&x)?;
                    let y = linear(&x, &call.2[affine.index].kernel, self.bias(affine)?.as_ref())?;
                    keep(kept, affine.slot, Kept::Tensor(x));
                    self.unflattened(&y, *side)?
                }
                Layer::BatchNormRelu(norm) => {
                    let (y, coefficients) = self.normalise(norm, &x, moments.take(), call)?;
                    keep(kept, norm.slot, Kept::Norm(x, coefficients));
                    y
                }
                Layer::Conv { affine, .. } | Layer::ConvTranspose { affine, .. } | Layer::UpsampleConv { affine } => {
                    let (x, kernel) = (operand(&x)?, &call.2[affine.index].kernel);
                    let bias = self.bias(affine)?;
                    // An activation, the sum and the moments are taken of outputs that are in cache.
                    let leaky = layers.next_if(|l| matches!(l, Layer::Leaky { .. }));
                    let next = layers.peek();
                    let plus = if next.is_none() && leaky.is_none() { end.plus.take() } else { None };
                    let normalised = next.map_or(end.normalised, |next| next.normalises());
                    moments = (normalised && call.0 != Mode::Running).then(Tally::default);
                    let then = match leaky {
                        Some(Layer::Leaky { alpha, .. }) => Then::Leaky(*alpha),
                        _ => Then::Sum { plus, noted: moments.as_ref() },
                    };
                    let y = match layer {
                        Layer::Conv { spec, .. } => {
                            conv2d_then(&x, kernel, bias.as_ref(), *spec, (then, next_of(next.copied())))?
                        }
                        _ => conv_transpose2d_then(&x, kernel, bias.as_ref(), transposed_spec(layer), then)?,
                    };
                    if let Some(Layer::Leaky { slot, .. }) = leaky {
                        keep(kept, *slot, Kept::Tensor(y.clone()));
                    }
                    keep(kept, affine.slot, Kept::Tensor(x));
                    y
                }
                Layer::Leaky { alpha, slot } => {
                    let y = leaky_relu(&x, *alpha)?;
                    keep(kept, *slot, Kept::Tensor(y.clone()));
                    y
                }
                Layer::Upsample2 => upsample2(&x)?,
                Layer::FirUp2 => fir_up2(&x)?,
                Layer::Tanh { slot } => {
                    let y = tanh(&x)?;
                    keep(kept, *slot, Kept::Tensor(y.clone()));
                    y
                }
                Layer::Residual { main, shortcut } => {
                    let (side, _) = self.run(shortcut, (x.clone(), None), End::default(), call, kept)?;
                    let normalised = layers.peek().map_or(end.normalised, |next| next.normalises());
                    let end = End { plus: Some(&side), normalised };
                    (x, moments) = self.run(main, (x, moments), end, call, kept)?;
                    x
                }
            };
        }
        match end.plus {
            Some(plus) => Ok((add(&x, plus)?, None)),
            None => Ok((x, moments)),
        }
    }

    fn bias(&self, affine: &layer::Affine) -> Result<Option<Tensor>> {
        affine.bias.map(|id| self.params.get(id)).transpose()
    }

    /// Adds the gradient in an affine layer's bias, where it has one.
    fn add_bias_gradient(affine: &layer::Affine, dy: &Tensor, into: &Store) -> Result<()> {
        affine.bias.map_or(Ok(()), |id| add_channel_sum(dy, None, &into.get(id)?))
    }

    fn normalise(
        &self,
        norm: &BatchNorm,
        x: &Tensor,
        moments: Option<Tally>,
        (mode, labels, _): Call,
    ) -> Result<(Tensor, Coefficients)> {
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
        let affine = Affine { gamma: &gamma, beta: &beta, more };
        batch_norm_relu(x, moments.as_ref(), affine, statistics, BATCH_NORM_EPSILON)
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
        // Sums that the batch normalisation next in line needs, noted by the convolution that made its gradient.
        let mut sums = None;
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
                    Self::add_bias_gradient(affine, &dy, into)?;
                    if i == 0 {
                        // The latents need no gradient.
                        return Ok(dy);
                    }
                    let kernel = &pass.weights[affine.index].kernel;
                    conv2d_input_grad(&pixel(&dy)?, kernel, ConvSpec::new(1, 0), [1, 1])?
                }
                Layer::JoinClass { embedding } => {
                    let into = into.get(*embedding)?;
                    let of_class = last_columns(&dy.flatten_from(1)?, into.dim(0)?)?;
                    add_transposed_product(&of_class, classes(&pass.labels)?, &into)?;
                    return Ok(dy);
                }
                Layer::BatchNormRelu(norm) => {
                    let Some(Kept::Norm(x, coefficients)) = pass.kept[norm.slot].take() else {
                        bail!("nothing was kept")
                    };
                    let [gamma, beta] = [into.get(norm.gamma)?, into.get(norm.beta)?];
                    let whole = (!norm.conditional).then_some([&gamma, &beta]);
                    let (sums, next) = (sums.take(), before(layers, i));
                    let (dx, of_images) = batch_norm_relu_grad(&dy, &x, &coefficients, sums.as_ref(), whole, next)?;
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
                    Self::add_bias_gradient(affine, &dy, into)?;
                    let then = (following(layers, i, pass, &mut sums), before(layers, i));
                    conv2d_input_grad_then(&dy, &weight.kernel, *spec, [h, wd], then)?
                }
                Layer::ConvTranspose { affine, .. } | Layer::UpsampleConv { affine } => {
                    let (dy, x) = (operand(&dy)?, kept(pass, affine.slot)?);
                    let (weight, spec) = (&pass.weights[affine.index], transposed_spec(layer));
                    weight.add_gradient(&self.weights[affine.index], [&dy, &x], spec, into)?;
                    drop(x);
                    Self::add_bias_gradient(affine, &dy, into)?;
                    conv_transpose2d_input_grad_then(&dy, &weight.kernel, spec, following(layers, i, pass, &mut sums))?
                }
                Layer::Leaky { alpha, slot } => match (layers.get(i + 1), kept(pass, *slot)?) {
                    // The gradient in a convolution's input comes with the slope of the activation before.
                    (Some(Layer::Conv { .. }), _) => dy,
                    (_, y) => leaky_relu_slope(&dy, &y, *alpha)?,
                },
                Layer::Upsample2 => upsample2_grad(&dy)?,
                Layer::FirUp2 => fir_up2_grad(&dy)?,
                Layer::Tanh { slot } => tanh_grad(&dy, &kept(pass, *slot)?)?,
                Layer::Residual { main, shortcut } => {
                    let side = self.back(shortcut, dy.clone(), pass, into)?;
                    add(&self.back(main, dy, pass, into)?, &side)?
                }
            };
        }
        Ok(dy)
    }
}

fn classes(labels: &Option<Tensor>) -> Result<&Tensor> {
    match labels {
        Some(labels) => Ok(labels),
        None => bail!("a conditional generator needs the classes of its images"),
    }
}

/// What a layer's input or output gradient is to it.
fn next_of(layer: Option<&Layer>) -> Next {
    match layer {
        Some(Layer::Conv { .. } | Layer::ConvTranspose { .. } | Layer::UpsampleConv { .. }) => Next::Operand,
        _ => Next::Any,
    }
}

/// What takes the gradient at the input of layer `i`, times the slope of an activation before it.
fn before(layers: &[Layer], i: usize) -> Next {
    next_of(layers[..i].iter().rev().find(|layer| !matches!(layer, Layer::Leaky { .. })))
}

/// What follows the gradient at the input of the convolution `i`: the slope of an activation before it, or the sums that a batch
/// normalisation before it needs are noted.
fn following<'a>(layers: &[Layer], i: usize, pass: &'a Forward, sums: &'a mut Option<Tally>) -> Then<'a> {
    match i.checked_sub(1).map(|i| &layers[i]) {
        Some(Layer::BatchNormRelu(norm)) => match &pass.kept[norm.slot] {
            Some(Kept::Norm(x, coefficients)) => {
                Then::GradSums { x, coefficients, noted: sums.insert(Tally::default()) }
            }
            _ => Then::Nothing,
        },
        Some(Layer::Leaky { alpha, slot }) => match &pass.kept[*slot] {
            Some(Kept::Tensor(y)) => Then::Slope { y, alpha: *alpha },
            _ => Then::Nothing,
        },
        _ => Then::Nothing,
    }
}

/// Geometry of a layer that is a transposed convolution.
pub(super) fn transposed_spec(layer: &Layer) -> ConvSpec {
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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::rng::Stream;

    #[test]
    fn passes_are_those_of_any_number_of_threads() {
        for (id, width) in [("cnn32", 0.1), ("resnet32", 0.1), ("biggan32", 0.1), ("r3gan32", 0.03)] {
            let generator = Generator::new(id, width, 3, &mut Stream::new(0, id, 0), DType::F32, &Device::Cpu).unwrap();
            let latents = generator.latents(0, "z", 0, 5).unwrap();
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let pass = generator.forward(&latents, Mode::Batch).unwrap();
                    let (images, gradients) = (pass.images.clone(), generator.params.zeros_like().unwrap());
                    generator.backward(pass, &images, &gradients).unwrap();
                    [&images, gradients.flat()].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
                })
            };
            let want = on(1);
            assert!(want.iter().flatten().all(|v| v.is_finite()) && want[1].iter().any(|&v| v != 0.0));
            for threads in [2, 3] {
                assert!(on(threads) == want, "{id}: {threads} threads");
            }
        }
    }
}
