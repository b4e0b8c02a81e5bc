//! Batch normalisation followed by ReLU, the pair every generator block opens with: one pass over the data each way.
//! Ioffe and Szegedy 2015; ε and running statistics as PyTorch's `BatchNorm2d` (the running variance is the unbiased one).
//! Scale and shift are those of the channel or, in a class-conditional network, of the image and the channel.

use candle_core::{Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::device::{Array, ColumnSums, Machine, MadeOn, each, made, value};
use super::op::{Made, Op1, Op2, Op3, View, apply1, apply2, apply3, fill, same_dims};
use super::real::{Real, vectorised};

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

impl Op1 for Moments {
    const NAME: &'static str = "channel_moments";
    fn cpu<T: Real>(&self, x: View<T>) -> Made<T> {
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
    fn device<M: Machine>(&self, m: &M, x: Array) -> MadeOn<M> {
        let c = channels(Self::NAME, x.dims)?;
        let rows = x.len() / c;
        let sums = ColumnSums::new(m, "channel_moments_parts", [1, rows, c], x.at, [])?;
        let out = m.alloc(2 * c)?;
        each(m, "moments_of_sums", c, m.at(&out), [m.at(&sums.parts), sums.count as u64, value(rows as f64)])?;
        Ok((out, Shape::from((2, c))))
    }
}

/// Coefficients `[G, 2, C]`: scale, shift.
struct Apply;

impl Op2 for Apply {
    const NAME: &'static str = "batch_norm_relu";
    fn cpu<T: Real>(&self, x: View<T>, coefficients: View<T>) -> Made<T> {
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
    fn device<M: Machine>(&self, m: &M, x: Array, coefficients: Array) -> MadeOn<M> {
        let [_, rows, c] = grouped(Self::NAME, x.dims, coefficients.dims, 0)?;
        made(m, Self::NAME, x.dims, [x.at, coefficients.at, c as u64, rows as u64])
    }
}

/// Coefficients `[G + 1, 2, C]`: scale, shift of each group; mean, inverse deviation. Sums `[G, 2, C]`: of the gradient
/// where the ReLU lets it pass, and of it times the normalised input.
struct GradSums;

impl Op3 for GradSums {
    const NAME: &'static str = "batch_norm_relu_grad_sums";
    fn cpu<T: Real>(&self, dy: View<T>, x: View<T>, coefficients: View<T>) -> Made<T> {
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
    fn device<M: Machine>(&self, m: &M, dy: Array, x: Array, coefficients: Array) -> MadeOn<M> {
        same_dims(Self::NAME, x.dims, dy.dims)?;
        let [groups, rows, c] = grouped(Self::NAME, x.dims, coefficients.dims, 1)?;
        let rest = [dy.at, coefficients.at, groups as u64];
        ColumnSums::new(m, "batch_norm_relu_grad_parts", [groups, rows, c], x.at, rest)?.finish(m, 2)
    }
}

/// Coefficients `[G + 2, 2, C]`: those of [`GradSums`], then what the batch's mean and its deviation pass back.
struct InputGrad;

impl Op3 for InputGrad {
    const NAME: &'static str = "batch_norm_relu_input_grad";
    fn cpu<T: Real>(&self, dy: View<T>, x: View<T>, coefficients: View<T>) -> Made<T> {
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
    fn device<M: Machine>(&self, m: &M, dy: Array, x: Array, coefficients: Array) -> MadeOn<M> {
        same_dims(Self::NAME, x.dims, dy.dims)?;
        let [groups, rows, c] = grouped(Self::NAME, x.dims, coefficients.dims, 2)?;
        let [rows, c, groups] = [rows, c, groups].map(|v| v as u64);
        made(m, Self::NAME, x.dims, [x.at, coefficients.at, c, rows, dy.at, groups])
    }
}

/// Mean and (biased) variance of each channel over N, H, W: `[N, H, W, C]` → two `[C]`.
///
/// # Errors
/// On an empty or non-contiguous tensor, or a dtype other than F32 and F64.
pub fn channel_moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let both = apply1(&Moments, x)?;
    Ok((both.get(0)?, both.get(1)?))
}

/// What the backward pass of [`batch_norm_relu`] needs: `[G + 1, 2, C]` scale and shift of each group, then mean and
/// 1/√(variance + ε).
#[derive(Clone, Debug)]
pub struct Coefficients(Tensor);

/// `relu(γ·(x − mean)/√(variance + ε) + β)`; mean and variance `[C]`, γ and β `[C]`, or `[N, C]` for each image.
///
/// # Errors
/// As for [`channel_moments`], and when the channels do not fit.
pub fn batch_norm_relu(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    [mean, variance]: [&Tensor; 2],
    epsilon: f64,
) -> Result<(Tensor, Coefficients)> {
    let c = mean.dim(0)?;
    let inverse = ((variance + epsilon)?.sqrt()?).recip()?;
    let scale = gamma.reshape(((), c))?.broadcast_mul(&inverse)?;
    let shift = (beta.reshape(((), c))? - scale.broadcast_mul(mean)?)?;
    let affine = Tensor::stack(&[&scale, &shift], 1)?;
    let moments = Tensor::stack(&[mean, &inverse], 0)?.unsqueeze(0)?;
    let y = apply2(&Apply, x, &affine)?;
    Ok((y, Coefficients(Tensor::cat(&[&affine, &moments], 0)?)))
}

/// Gradients of [`batch_norm_relu`] when mean and variance are those of `x`: in x, γ and β.
///
/// # Errors
/// As for [`batch_norm_relu`].
pub fn batch_norm_relu_grad(dy: &Tensor, x: &Tensor, coefficients: &Coefficients) -> Result<[Tensor; 3]> {
    let sums = apply3(&GradSums, dy, x, &coefficients.0)?;
    let (groups, _, c) = sums.dims3()?;
    let rows = x.elem_count() / c;
    // Σ over images of scale·sums: what reaches mean and deviation, times 1/√(variance + ε).
    let scale = coefficients.0.narrow(0, 0, groups)?.narrow(1, 0, 1)?;
    let back = (sums.broadcast_mul(&scale)?.sum_keepdim(0)? / rows as f64)?;
    let dx = apply3(&InputGrad, dy, x, &Tensor::cat(&[&coefficients.0, &back], 0)?)?;
    let of = |k: usize| -> Result<Tensor> {
        let t = sums.narrow(1, k, 1)?.squeeze(1)?.contiguous()?;
        if groups == 1 { t.squeeze(0) } else { Ok(t) }
    };
    Ok([dx, of(1)?, of(0)?])
}
