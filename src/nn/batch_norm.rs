//! Batch normalisation followed by ReLU, the pair every generator block opens with: one pass over the data each way, where the
//! convolution beside it has noted the sums that it needs ([`Tally`]), and two where not.
//! Ioffe and Szegedy 2015; ε and running statistics as PyTorch's `BatchNorm2d` (the running variance is the unbiased one).
//! Scale and shift are those of the channel or, in a class-conditional network, of the image and the channel.

use candle_core::{DType, Result, Shape, Tensor, bail};

use super::activation::add_assign;
use super::kernel::Next;
use super::op::{Made, Op, View, apply, either, elements, same_dims};
use super::store::overwrite;
use super::tally::{Tally, combined, grad_sums, moments};
use crate::machine::call::Array;
use crate::machine::cpu::parallel::fill;
use crate::machine::cpu::real::{Real, vectorised};
use crate::machine::tape::Tape;
use crate::words;

/// Images, rows of each, channels.
fn images(name: &str, dims: &[usize]) -> Result<[usize; 3]> {
    match dims {
        &[n, .., c] if !dims.contains(&0) => Ok([n, dims.iter().product::<usize>() / n / c, c]),
        dims => bail!("{name}: expected a non-empty [N, H, W, C], got {dims:?}"),
    }
}

/// How images and their coefficients `[G + more, 2, C]` fit: groups, rows of each, channels.
fn grouped(name: &str, x: &[usize], coefficients: &[usize], more: usize) -> Result<[usize; 3]> {
    let [n, rows, c] = images(name, x)?;
    let Some(groups) = coefficients.first().and_then(|g| g.checked_sub(more)).filter(|&g| g == 1 || g == n) else {
        bail!("{name}: coefficients of shape {coefficients:?} for {x:?}")
    };
    same_dims(name, &[groups + more, 2, c], coefficients)?;
    Ok([groups, n / groups * rows, c])
}

/// Of an image's group the scale and shift, then what all groups share.
fn of_image<T>(coefficients: &[T], [groups, c]: [usize; 2], image: usize) -> [&[T]; 4] {
    let part = |k: usize| &coefficients[k * c..][..c];
    let group = if groups == 1 { 0 } else { image };
    [part(2 * group), part(2 * group + 1), part(2 * groups), part(2 * groups + 1)]
}

struct Moments<'a>(Option<&'a Tally>);

impl Op<1> for Moments<'_> {
    const NAME: &'static str = "channel_moments";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        let [n, rows, c] = images(Self::NAME, x.dims)?;
        let notes = match self.0 {
            Some(tally) => tally.notes(n, c)?,
            None => {
                let len = rows * c;
                Tally::of(n, |image| moments(&x.data[image * len..][..len], c)).notes(n, c)?
            }
        };
        let mut all = combined(&notes.into_iter().map(|note| (rows, note)).collect::<Vec<_>>(), c);
        all[c..].iter_mut().for_each(|squares| *squares /= (n * rows) as f64);
        Ok((all.into_iter().map(T::from_f64).collect(), Shape::from((2, c))))
    }
    // One pass over x: sums in double have the bits that the difference of two squares takes away.
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        let [n, rows, c] = images(Self::NAME, x.dims)?;
        let out = tape.alloc(&[2, c])?;
        tape.column_sums(Self::NAME, [1, n * rows, c], x, words![tape.memory(&out)?])?;
        Ok(out)
    }
}

/// Coefficients `[G, 2, C]`: scale, shift.
struct Apply;

/// Inlined by force: it has to be compiled for the vector unit that [`vectorised`] chose.
#[inline(always)]
fn apply_to<T: Real>(x: &[T], scale: &[T], shift: &[T], out: &mut [T]) {
    let c = scale.len();
    let shift = &shift[..c];
    for (x, out) in x.chunks_exact(c).zip(out.chunks_exact_mut(c)) {
        for k in 0..c {
            let y = x[k] * scale[k] + shift[k];
            out[k] = if y > T::ZERO { y } else { T::ZERO * y };
        }
    }
}

impl Op<2> for Apply {
    const NAME: &'static str = "batch_norm_relu";
    fn cpu<T: Real>(&self, [x, coefficients]: [View<T>; 2]) -> Made<T> {
        let [groups, _, c] = grouped(Self::NAME, x.dims, coefficients.dims, 0)?;
        let image = x.data.len() / x.dims[0];
        let out = fill(x.data.len(), image, |at, out| {
            let group = if groups == 1 { 0 } else { at / image };
            let (scale, shift) = coefficients.data[2 * group * c..][..2 * c].split_at(c);
            vectorised(|| apply_to(&x.data[at..], scale, shift, out));
        });
        Ok((out, Shape::from(x.dims)))
    }
    fn device(&self, tape: &Tape, [x, coefficients]: [Array; 2]) -> Result<Tensor> {
        let [_, rows, c] = grouped(Self::NAME, x.dims, coefficients.dims, 0)?;
        tape.made(Self::NAME, x.dims, words![x, coefficients, c, rows])
    }
}

/// Coefficients `[G + 1, 2, C]`: scale, shift of each group; mean, inverse deviation. Sums `[G, 2, C]`: of the gradient
/// where the ReLU lets it pass, and of it times the normalised input.
struct GradSums<'a>(Option<&'a Tally>);

impl Op<3> for GradSums<'_> {
    const NAME: &'static str = "batch_norm_relu_grad_sums";
    fn cpu<T: Real>(&self, [dy, x, coefficients]: [View<T>; 3]) -> Made<T> {
        same_dims(Self::NAME, x.dims, dy.dims)?;
        let [groups, _, c] = grouped(Self::NAME, x.dims, coefficients.dims, 1)?;
        let (n, len) = (x.dims[0], x.data.len() / x.dims[0]);
        let notes = match self.0 {
            Some(tally) => tally.notes(n, c)?,
            None => {
                let of_images = Tally::of(n, |image| {
                    let (at, co) = (image * len..(image + 1) * len, of_image(coefficients.data, [groups, c], image));
                    grad_sums(&dy.data[at.clone()], &x.data[at], co)
                });
                of_images.notes(n, c)?
            }
        };
        let sum = |notes: &[Vec<f64>]| {
            (0..2 * c).map(|k| T::from_f64(notes.iter().map(|note| note[k]).sum())).collect::<Vec<_>>()
        };
        Ok((notes.chunks(n / groups).flat_map(sum).collect(), Shape::from((groups, 2, c))))
    }
}

/// Coefficients `[G + 2, 2, C]`: those of [`GradSums`], then what the batch's mean and its deviation pass back.
struct InputGrad;

/// Inlined as [`apply_to`]. Coefficients: scale, shift, mean, by deviation over deviation.
#[inline(always)]
fn input_grad_to<T: Real>(dy: &[T], x: &[T], coefficients: [&[T]; 4], by_mean: &[T], out: &mut [T]) {
    let [scale, shift, mean, slope] = coefficients;
    let rows = dy.chunks_exact(scale.len()).zip(x.chunks_exact(scale.len()));
    for (out, (dy, x)) in out.chunks_exact_mut(scale.len()).zip(rows) {
        let coefficients = scale.iter().zip(shift).zip(mean).zip(slope).zip(by_mean);
        for (((out, &dy), &x), ((((&scale, &shift), &mean), &slope), &by_mean)) in
            out.iter_mut().zip(dy).zip(x).zip(coefficients)
        {
            let d = if x * scale + shift > T::ZERO { dy } else { T::ZERO };
            *out = scale * d - by_mean - (x - mean) * slope;
        }
    }
}

impl Op<3> for InputGrad {
    const NAME: &'static str = "batch_norm_relu_input_grad";
    fn cpu<T: Real>(&self, [dy, x, coefficients]: [View<T>; 3]) -> Made<T> {
        same_dims(Self::NAME, x.dims, dy.dims)?;
        let [groups, _, c] = grouped(Self::NAME, x.dims, coefficients.dims, 2)?;
        let image = x.data.len() / x.dims[0];
        let (by_mean, by_deviation) = coefficients.data[2 * (groups + 1) * c..].split_at(c);
        let inverse = of_image(coefficients.data, [groups, c], 0)[3];
        let slope: Vec<T> = by_deviation.iter().zip(inverse).map(|(&by, &inverse)| by * inverse).collect();
        let out = fill(x.data.len(), image, |at, out| {
            let [scale, shift, mean, _] = of_image(coefficients.data, [groups, c], at / image);
            let co = [scale, shift, mean, &slope];
            vectorised(|| input_grad_to(&dy.data[at..], &x.data[at..], co, by_mean, out));
        });
        Ok((out, Shape::from(x.dims)))
    }
}

/// Mean and (biased) variance of each channel over N, H, W: `[N, H, W, C]` → two `[C]`.
///
/// # Errors
/// On an empty or non-contiguous tensor, or a dtype other than F32 and F64.
pub fn channel_moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    moments_of(x, None)
}

/// [`channel_moments`], which may have been noted.
fn moments_of(x: &Tensor, noted: Option<&Tally>) -> Result<(Tensor, Tensor)> {
    let both = apply(&Moments(noted), [x])?;
    Ok((both.get(0)?, both.get(1)?))
}

/// What the backward pass of [`batch_norm_relu`] needs: `[G + 1, 2, C]` scale and shift of each group, then mean and
/// 1/√(variance + ε).
#[derive(Clone, Debug)]
pub struct Coefficients(Tensor);

impl Coefficients {
    /// Has `read` called with what gives those of an image on the CPU: scale, shift, mean, inverse deviation.
    ///
    /// # Errors
    /// When they are not of images of these dimensions, or not there.
    pub fn read<T: Real, R>(&self, x: &[usize], read: impl FnOnce(&OfImage<T>) -> Result<R>) -> Result<R> {
        let [groups, _, c] = grouped(GradSums::NAME, x, self.0.dims(), 1)?;
        elements(GradSums::NAME, &self.0, 2 * (groups + 1) * c, |data| {
            read(&|image| of_image(data, [groups, c], image))
        })
    }
}

/// The coefficients of an image.
pub type OfImage<'a, T> = dyn Fn(usize) -> [&'a [T]; 4] + Sync + 'a;

/// Scale γ and shift β, each `[C]`, or `[N, C]` for each image.
#[derive(Clone, Copy)]
pub struct Affine<'a> {
    /// Scale.
    pub gamma: &'a Tensor,
    /// Shift.
    pub beta: &'a Tensor,
    /// What is added to the scale.
    pub more: f64,
}

/// Statistics that a pass normalises with.
#[derive(Clone, Copy)]
pub enum Statistics<'a> {
    /// These, mean and variance `[C]`.
    Given([&'a Tensor; 2]),
    /// Those of the batch.
    Batch,
    /// Those of the batch, towards which running mean and (unbiased) variance `[C]` move by a momentum.
    Moving([&'a Tensor; 2], f64),
}

/// `relu((γ + more)·(x − mean)/√(variance + ε) + β)`, for convolutions and products; moments of `x` that were noted are not taken again.
///
/// # Errors
/// As for [`channel_moments`], and when the channels do not fit.
pub fn batch_norm_relu(
    x: &Tensor,
    noted: Option<&Tally>,
    affine: Affine,
    statistics: Statistics,
    epsilon: f64,
) -> Result<(Tensor, Coefficients)> {
    let [n, rows, c] = images("batch_norm_relu", x.dims())?;
    let cpu = || {
        let (mean, variance) = match statistics {
            Statistics::Given([mean, variance]) => (mean.clone(), variance.clone()),
            Statistics::Batch => moments_of(x, noted)?,
            Statistics::Moving([running_mean, running_variance], momentum) => {
                let (mean, variance) = moments_of(x, noted)?;
                let rows = (n * rows) as f64;
                let moved = |old: &Tensor, new: &Tensor, scale: f64| -> Result<Tensor> {
                    (old * (1.0 - momentum))? + (new * (scale * momentum))?
                };
                overwrite(running_mean, &moved(running_mean, &mean, 1.0)?)?;
                overwrite(running_variance, &moved(running_variance, &variance, rows / (rows - 1.0).max(1.0))?)?;
                (mean, variance)
            }
        };
        let gamma = if affine.more == 0.0 { affine.gamma.clone() } else { (affine.gamma + affine.more)? };
        let inverse = ((variance + epsilon)?.sqrt()?).recip()?;
        let scale = gamma.reshape(((), c))?.broadcast_mul(&inverse)?;
        let shift = (affine.beta.reshape(((), c))? - scale.broadcast_mul(&mean)?)?;
        let affine = Tensor::stack(&[&scale, &shift], 1)?;
        let moments = Tensor::stack(&[&mean, &inverse], 0)?.unsqueeze(0)?;
        let y = apply(&Apply, [x, &affine])?;
        Ok((y, Coefficients(Tensor::cat(&[&affine, &moments], 0)?)))
    };
    either([x, affine.gamma, affine.beta], cpu, |tape, [x, gamma, beta]| {
        let groups = gamma.len() / c;
        let rows = x.len() / c;
        let coefficients = tape.alloc(&[groups + 1, 2, c])?;
        grouped("batch_norm_relu", x.dims, coefficients.dims(), 1)?;
        same_dims("batch_norm_relu", &[gamma.len()], &[beta.len()])?;
        let out = tape.memory(&coefficients)?;
        let sums = |running: Option<[&Tensor; 2]>, momentum: f64| {
            let of = |k: usize| running.map(|r| tape.memory(r[k])).transpose();
            let words = words![out, gamma, beta, groups, affine.more, epsilon, of(0)?, of(1)?, momentum];
            tape.column_sums("batch_norm_moments", [1, rows, c], x, words)
        };
        match statistics {
            Statistics::Given([mean, variance]) => {
                let [mean, variance] = [tape.memory(mean)?, tape.memory(variance)?];
                let words = words![out, gamma, beta, groups, affine.more, epsilon, mean, variance];
                tape.each("batch_norm_given", c, words)?;
            }
            Statistics::Batch => sums(None, 0.0)?,
            Statistics::Moving(running, momentum) => sums(Some(running), momentum)?,
        }
        let y = tape.alloc_of(x.dims, Next::Operand.element(tape.element))?;
        let half = y.dtype() == DType::BF16;
        tape.each(Apply::NAME, x.len(), words![tape.memory(&y)?, x, out, c, rows / groups, half])?;
        Ok((y, Coefficients(coefficients)))
    })
}

/// Gradient of [`batch_norm_relu`] in x, for what takes it next, when mean and variance are those of `x`; sums that were noted are not
/// taken again. Those in γ and β are added to `into` or, without it, returned for each image, `[N, C]`.
///
/// # Errors
/// As for [`batch_norm_relu`].
pub fn batch_norm_relu_grad(
    dy: &Tensor,
    x: &Tensor,
    coefficients: &Coefficients,
    noted: Option<&Tally>,
    into: Option<[&Tensor; 2]>,
    next: Next,
) -> Result<(Tensor, Option<[Tensor; 2]>)> {
    let cpu = || {
        let sums = apply(&GradSums(noted), [dy, x, &coefficients.0])?;
        let (groups, _, c) = sums.dims3()?;
        let rows = x.elem_count() / c;
        // Σ over images of scale·sums: what reaches mean and deviation, times 1/√(variance + ε).
        let scale = coefficients.0.narrow(0, 0, groups)?.narrow(1, 0, 1)?;
        let back = (sums.broadcast_mul(&scale)?.sum_keepdim(0)? / rows as f64)?;
        let dx = apply(&InputGrad, [dy, x, &Tensor::cat(&[&coefficients.0, &back], 0)?])?;
        let of = |k: usize| sums.narrow(1, k, 1)?.squeeze(1)?.contiguous();
        let [gamma, beta] = [of(1)?, of(0)?];
        match into {
            None => Ok((dx, Some([gamma, beta]))),
            Some(into) => {
                add_assign(into[0], &gamma)?;
                add_assign(into[1], &beta)?;
                Ok((dx, None))
            }
        }
    };
    either([dy, x, &coefficients.0], cpu, |tape, [dy, x, co]| {
        same_dims(GradSums::NAME, x.dims, dy.dims)?;
        let [groups, rows, c] = grouped(GradSums::NAME, x.dims, co.dims, 1)?;
        let back = tape.alloc(&[2, c])?;
        let own = match into {
            None => Some([tape.alloc(&[groups, c])?, tape.alloc(&[groups, c])?]),
            Some(_) => None,
        };
        let [gamma, beta] = match (into, &own) {
            (Some(into), _) => [tape.array(into[0])?, tape.array(into[1])?],
            (None, Some([gamma, beta])) => [tape.array(gamma)?, tape.array(beta)?],
            (None, None) => bail!("{}: nowhere to put the sums", GradSums::NAME),
        };
        same_dims(GradSums::NAME, &[gamma.len(), beta.len()], &[groups * c; 2])?;
        let words = words![dy, co, gamma, beta, into.is_some(), tape.memory(&back)?];
        tape.column_sums("batch_norm_relu_grad", [groups, rows, c], x, words)?;
        let dx = tape.alloc_of(x.dims, next.element(tape.element))?;
        let half = dx.dtype() == DType::BF16;
        let words = words![tape.memory(&dx)?, x, co, c, rows, dy, groups, tape.memory(&back)?, half];
        tape.each(InputGrad::NAME, x.len(), words)?;
        Ok((dx, own))
    })
}
