//! Batch normalisation followed by ReLU, the pair every generator block opens with: one pass over the data each way.
//! Ioffe and Szegedy 2015; ε and running statistics as PyTorch's `BatchNorm2d` (the running variance is the unbiased one).
//! Scale and shift are those of the channel or, in a class-conditional network, of the image and the channel.

use candle_core::{DType, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::activation::add_assign;
use super::kernel::Next;
use super::op::{Made, Op, View, apply, either, same_dims};
use super::store::overwrite;
use crate::machine::call::Array;
use crate::machine::cpu::parallel::fill;
use crate::machine::cpu::real::{Real, vectorised};
use crate::machine::tape::Tape;
use crate::words;

/// Rows a partial sum covers: fixed, so that results do not depend on the number of threads.
const ROWS: usize = 1024;

fn channels(name: &str, dims: &[usize]) -> Result<usize> {
    match dims {
        &[.., c] if !dims.contains(&0) => Ok(c),
        dims => bail!("{name}: expected a non-empty [N, H, W, C], got {dims:?}"),
    }
}

/// Sums over the rows of each of `groups` groups of `rows` rows, in f64, of `f(row index, group, row's partial sums)`:
/// `[groups, width]`.
fn row_sums<T: Real>([groups, rows]: [usize; 2], width: usize, f: impl Fn(usize, usize, &mut [T]) + Sync) -> Vec<f64> {
    let blocks = rows.div_ceil(ROWS);
    let parts: Vec<Vec<T>> = (0..groups * blocks)
        .into_par_iter()
        .map(|part| {
            let (group, block) = (part / blocks, part % blocks);
            let mut sum = vec![T::ZERO; width];
            vectorised(|| {
                for row in block * ROWS..((block + 1) * ROWS).min(rows) {
                    f(group * rows + row, group, &mut sum);
                }
            });
            sum
        })
        .collect();
    parts.chunks(blocks).flat_map(|parts| (0..width).map(move |k| parts.iter().map(|p| p[k].to_f64()).sum())).collect()
}

/// How images and their coefficients `[G + more, 2, C]` fit: groups, rows of each, channels.
fn grouped(name: &str, x: &[usize], coefficients: &[usize], more: usize) -> Result<[usize; 3]> {
    let c = channels(name, x)?;
    let Some(groups) = coefficients.first().and_then(|g| g.checked_sub(more)).filter(|&g| g == 1 || g == x[0]) else {
        bail!("{name}: coefficients of shape {coefficients:?} for {x:?}")
    };
    same_dims(name, &[groups + more, 2, c], coefficients)?;
    Ok([groups, x.iter().product::<usize>() / c / groups, c])
}

struct Moments;

impl Op<1> for Moments {
    const NAME: &'static str = "channel_moments";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        let c = channels(Self::NAME, x.dims)?;
        let rows = x.data.len() / c;
        let mean: Vec<T> = row_sums([1, rows], c, |r, _, sum: &mut [T]| {
            for (s, &v) in sum.iter_mut().zip(&x.data[r * c..]) {
                *s += v;
            }
        })
        .iter()
        .map(|s| T::from_f64(s / rows as f64))
        .collect();
        let var = row_sums([1, rows], c, |r, _, sum: &mut [T]| {
            for ((s, &v), &m) in sum.iter_mut().zip(&x.data[r * c..]).zip(&mean) {
                *s += (v - m) * (v - m);
            }
        });
        let var: Vec<T> = var.iter().map(|s| T::from_f64(s / rows as f64)).collect();
        Ok(([mean, var].concat(), Shape::from((2, c))))
    }
    // One pass over x: sums in double have the bits that the difference of two squares takes away.
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        let c = channels(Self::NAME, x.dims)?;
        let out = tape.alloc(&[2, c])?;
        tape.column_sums(Self::NAME, [1, x.len() / c, c], x, words![tape.memory(&out)?])?;
        Ok(out)
    }
}

/// Coefficients `[G, 2, C]`: scale, shift.
struct Apply;

impl Op<2> for Apply {
    const NAME: &'static str = "batch_norm_relu";
    fn cpu<T: Real>(&self, [x, coefficients]: [View<T>; 2]) -> Made<T> {
        let [_, rows, c] = grouped(Self::NAME, x.dims, coefficients.dims, 0)?;
        let out = fill(x.data.len(), c * ROWS, |at, out| {
            for (n, (out, x)) in out.chunks_exact_mut(c).zip(x.data[at..].chunks_exact(c)).enumerate() {
                let (scale, shift) = coefficients.data[(at / c + n) / rows * 2 * c..][..2 * c].split_at(c);
                for k in 0..c {
                    let y = x[k] * scale[k] + shift[k];
                    out[k] = if y > T::ZERO { y } else { T::ZERO * y };
                }
            }
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
struct GradSums;

impl Op<3> for GradSums {
    const NAME: &'static str = "batch_norm_relu_grad_sums";
    fn cpu<T: Real>(&self, [dy, x, coefficients]: [View<T>; 3]) -> Made<T> {
        same_dims(Self::NAME, x.dims, dy.dims)?;
        let [groups, rows, c] = grouped(Self::NAME, x.dims, coefficients.dims, 1)?;
        let co: Vec<&[T]> = coefficients.data.chunks_exact(c).collect();
        let (mean, inverse) = (co[2 * groups], co[2 * groups + 1]);
        let sums = row_sums([groups, rows], 2 * c, |r, group, sum: &mut [T]| {
            let (x, dy) = (&x.data[r * c..][..c], &dy.data[r * c..][..c]);
            let (scale, shift) = (co[2 * group], co[2 * group + 1]);
            let (beta, gamma) = sum.split_at_mut(c);
            for k in 0..c {
                let d = if x[k] * scale[k] + shift[k] > T::ZERO { dy[k] } else { T::ZERO };
                beta[k] += d;
                gamma[k] += d * (x[k] - mean[k]) * inverse[k];
            }
        });
        Ok((sums.into_iter().map(T::from_f64).collect(), Shape::from((groups, 2, c))))
    }
}

/// Coefficients `[G + 2, 2, C]`: those of [`GradSums`], then what the batch's mean and its deviation pass back.
struct InputGrad;

impl Op<3> for InputGrad {
    const NAME: &'static str = "batch_norm_relu_input_grad";
    fn cpu<T: Real>(&self, [dy, x, coefficients]: [View<T>; 3]) -> Made<T> {
        same_dims(Self::NAME, x.dims, dy.dims)?;
        let [groups, rows, c] = grouped(Self::NAME, x.dims, coefficients.dims, 2)?;
        let co: Vec<&[T]> = coefficients.data.chunks_exact(c).collect();
        let &[mean, inverse, by_mean, by_deviation] = &co[2 * groups..] else {
            bail!("{}: coefficients of shape {:?}", Self::NAME, coefficients.dims)
        };
        let out = fill(x.data.len(), c * ROWS, |at, out| {
            let pairs = x.data[at..].chunks_exact(c).zip(dy.data[at..].chunks_exact(c));
            for (n, (out, (x, dy))) in out.chunks_exact_mut(c).zip(pairs).enumerate() {
                let group = (at / c + n) / rows;
                let (scale, shift) = (co[2 * group], co[2 * group + 1]);
                for k in 0..c {
                    let d = if x[k] * scale[k] + shift[k] > T::ZERO { dy[k] } else { T::ZERO };
                    let normed = (x[k] - mean[k]) * inverse[k];
                    out[k] = scale[k] * d - by_mean[k] - normed * by_deviation[k];
                }
            }
        });
        Ok((out, Shape::from(x.dims)))
    }
}

/// Mean and (biased) variance of each channel over N, H, W: `[N, H, W, C]` → two `[C]`.
///
/// # Errors
/// On an empty or non-contiguous tensor, or a dtype other than F32 and F64.
pub fn channel_moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let both = apply(&Moments, [x])?;
    Ok((both.get(0)?, both.get(1)?))
}

/// What the backward pass of [`batch_norm_relu`] needs: `[G + 1, 2, C]` scale and shift of each group, then mean and
/// 1/√(variance + ε).
#[derive(Clone, Debug)]
pub struct Coefficients(Tensor);

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

/// `relu((γ + more)·(x − mean)/√(variance + ε) + β)`, for convolutions and products.
///
/// # Errors
/// As for [`channel_moments`], and when the channels do not fit.
pub fn batch_norm_relu(
    x: &Tensor,
    affine: Affine,
    statistics: Statistics,
    epsilon: f64,
) -> Result<(Tensor, Coefficients)> {
    let c = channels("batch_norm_relu", x.dims())?;
    let cpu = || {
        let (mean, variance) = match statistics {
            Statistics::Given([mean, variance]) => (mean.clone(), variance.clone()),
            Statistics::Batch => channel_moments(x)?,
            Statistics::Moving([running_mean, running_variance], momentum) => {
                let (mean, variance) = channel_moments(x)?;
                let rows = (x.elem_count() / c) as f64;
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

/// Gradient of [`batch_norm_relu`] in x, for what takes it next, when mean and variance are those of `x`. Those in γ and β are added to `into` or, without it,
/// returned for each image, `[N, C]`.
///
/// # Errors
/// As for [`batch_norm_relu`].
pub fn batch_norm_relu_grad(
    dy: &Tensor,
    x: &Tensor,
    coefficients: &Coefficients,
    into: Option<[&Tensor; 2]>,
    next: Next,
) -> Result<(Tensor, Option<[Tensor; 2]>)> {
    let cpu = || {
        let sums = apply(&GradSums, [dy, x, &coefficients.0])?;
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
