//! Batch normalisation followed by ReLU, the pair every generator block opens with: one pass over the data each way.
//! Ioffe and Szegedy 2015; ε and running statistics as PyTorch's `BatchNorm2d` (the running variance is the unbiased one).

use candle_core::{Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::op::{Made, Op1, Op2, Op3, View, apply1, apply2, apply3, fill, same_dims};
use super::real::{Real, vectorised};

/// Rows a partial sum covers: fixed, so that results do not depend on the number of threads.
const ROWS: usize = 1024;

fn channels<T>(name: &str, x: View<T>) -> Result<usize> {
    match x.dims {
        &[.., c] if c > 0 && !x.data.is_empty() => Ok(c),
        dims => bail!("{name}: expected a non-empty [N, H, W, C], got {dims:?}"),
    }
}

/// Sums over rows, in f64, of `f(row index, row, partial sums)`.
fn row_sums<T: Real>(rows: usize, width: usize, f: impl Fn(usize, &mut [T]) + Sync) -> Vec<f64> {
    let parts: Vec<Vec<T>> = (0..rows.div_ceil(ROWS))
        .into_par_iter()
        .map(|block| {
            let mut sum = vec![T::ZERO; width];
            vectorised(|| {
                for row in block * ROWS..((block + 1) * ROWS).min(rows) {
                    f(row, &mut sum);
                }
            });
            sum
        })
        .collect();
    (0..width).map(|k| parts.iter().map(|p| p[k].to_f64()).sum()).collect()
}

struct Moments;

impl Op1 for Moments {
    const NAME: &'static str = "channel_moments";
    fn cpu<T: Real>(&self, x: View<T>) -> Made<T> {
        let c = channels(Self::NAME, x)?;
        let rows = x.data.len() / c;
        let mean: Vec<T> = row_sums(rows, c, |r, sum: &mut [T]| {
            for (s, &v) in sum.iter_mut().zip(&x.data[r * c..]) {
                *s += v;
            }
        })
        .iter()
        .map(|s| T::from_f64(s / rows as f64))
        .collect();
        let var = row_sums(rows, c, |r, sum: &mut [T]| {
            for ((s, &v), &m) in sum.iter_mut().zip(&x.data[r * c..]).zip(&mean) {
                *s += (v - m) * (v - m);
            }
        });
        let var: Vec<T> = var.iter().map(|s| T::from_f64(s / rows as f64)).collect();
        Ok(([mean, var].concat(), Shape::from((2, c))))
    }
}

struct Apply;

impl Op2 for Apply {
    const NAME: &'static str = "batch_norm_relu";
    fn cpu<T: Real>(&self, x: View<T>, coefficients: View<T>) -> Made<T> {
        let c = channels(Self::NAME, x)?;
        same_dims(Self::NAME, &[2, c], coefficients.dims)?;
        let (scale, shift) = coefficients.data.split_at(c);
        let chunk = c * ROWS;
        let out = fill(x.data.len(), chunk, |at, out| {
            for (out, x) in out.chunks_exact_mut(c).zip(x.data[at..].chunks_exact(c)) {
                for k in 0..c {
                    let y = x[k] * scale[k] + shift[k];
                    out[k] = if y > T::ZERO { y } else { T::ZERO * y };
                }
            }
        });
        Ok((out, Shape::from(x.dims)))
    }
}

struct GradSums;

impl Op3 for GradSums {
    const NAME: &'static str = "batch_norm_relu_grad_sums";
    fn cpu<T: Real>(&self, dy: View<T>, x: View<T>, coefficients: View<T>) -> Made<T> {
        let c = channels(Self::NAME, x)?;
        same_dims(Self::NAME, x.dims, dy.dims)?;
        same_dims(Self::NAME, &[4, c], coefficients.dims)?;
        let co: Vec<&[T]> = coefficients.data.chunks_exact(c).collect();
        let sums = row_sums(x.data.len() / c, 2 * c, |r, sum: &mut [T]| {
            let (x, dy) = (&x.data[r * c..][..c], &dy.data[r * c..][..c]);
            let (beta, gamma) = sum.split_at_mut(c);
            for k in 0..c {
                let d = if x[k] * co[0][k] + co[1][k] > T::ZERO { dy[k] } else { T::ZERO };
                beta[k] += d;
                gamma[k] += d * (x[k] - co[2][k]) * co[3][k];
            }
        });
        Ok((sums.into_iter().map(T::from_f64).collect(), Shape::from((2, c))))
    }
}

struct InputGrad;

impl Op3 for InputGrad {
    const NAME: &'static str = "batch_norm_relu_input_grad";
    fn cpu<T: Real>(&self, dy: View<T>, x: View<T>, coefficients: View<T>) -> Made<T> {
        let c = channels(Self::NAME, x)?;
        same_dims(Self::NAME, x.dims, dy.dims)?;
        same_dims(Self::NAME, &[6, c], coefficients.dims)?;
        let co: Vec<&[T]> = coefficients.data.chunks_exact(c).collect();
        let out = fill(x.data.len(), c * ROWS, |at, out| {
            let rows = x.data[at..].chunks_exact(c).zip(dy.data[at..].chunks_exact(c));
            for (out, (x, dy)) in out.chunks_exact_mut(c).zip(rows) {
                for k in 0..c {
                    let d = if x[k] * co[0][k] + co[1][k] > T::ZERO { dy[k] } else { T::ZERO };
                    let normed = (x[k] - co[2][k]) * co[3][k];
                    out[k] = co[0][k] * (d - co[4][k] - normed * co[5][k]);
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
    let both = apply1(&Moments, x)?;
    Ok((both.get(0)?, both.get(1)?))
}

/// What the backward pass of [`batch_norm_relu`] needs: `[4, C]` scale, shift, mean, 1/√(variance + ε).
#[derive(Clone, Debug)]
pub struct Coefficients(Tensor);

/// `relu(γ·(x − mean)/√(variance + ε) + β)`, all parameters `[C]`.
///
/// # Errors
/// As for [`channel_moments`], and when the channels do not fit.
pub fn batch_norm_relu(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    [mean, variance]: [&Tensor; 2],
    epsilon: f64,
) -> Result<(Tensor, Coefficients)> {
    let inverse = ((variance + epsilon)?.sqrt()?).recip()?;
    let scale = (gamma * &inverse)?;
    let shift = (beta - (mean * &scale)?)?;
    let y = apply2(&Apply, x, &Tensor::stack(&[&scale, &shift], 0)?)?;
    Ok((y, Coefficients(Tensor::stack(&[&scale, &shift, mean, &inverse], 0)?)))
}

/// Gradients of [`batch_norm_relu`] when mean and variance are those of `x`: in x, γ and β.
///
/// # Errors
/// As for [`batch_norm_relu`].
pub fn batch_norm_relu_grad(dy: &Tensor, x: &Tensor, coefficients: &Coefficients) -> Result<[Tensor; 3]> {
    let sums = apply3(&GradSums, dy, x, &coefficients.0)?;
    let rows = x.elem_count() / x.dim(candle_core::D::Minus1)?;
    let coefficients = Tensor::cat(&[&coefficients.0, &(&sums / rows as f64)?], 0)?;
    let dx = apply3(&InputGrad, dy, x, &coefficients)?;
    Ok([dx, sums.get(1)?, sums.get(0)?])
}
