//! Operators that treat each image of a batch on its own: sums over an image, scaling by a factor per image, and the
//! channel sums of a bias gradient.

use candle_core::{DType, Device, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::device::{Array, ColumnSums, Machine, MadeOn, dot, made, reduced, value};
use super::op::{GRAIN, Made, Op1, Op2, Op3, View, apply1, apply2, apply3, fill, same_dims};
use super::real::{Real, vectorised};

/// Images, and elements of each.
fn split(name: &str, dims: &[usize]) -> Result<(usize, usize)> {
    match dims {
        &[n, ref image @ ..] if n > 0 => Ok((n, image.iter().product())),
        _ => bail!("{name}: expected at least one image, got shape {dims:?}"),
    }
}

struct SquaredDistance(f64);

impl Op1 for SquaredDistance {
    const NAME: &'static str = "squared_distance";
    fn cpu<T: Real>(&self, x: View<T>) -> Made<T> {
        let (n, len) = split(Self::NAME, x.dims)?;
        let out = fill(n, 1, |at, out| {
            let sum: f64 = x.data[at * len..][..len].iter().map(|&v| (v.to_f64() - self.0).powi(2)).sum();
            out[0] = T::from_f64(sum);
        });
        Ok((out, Shape::from(n)))
    }
    fn device<M: Machine>(&self, m: &M, x: Array) -> MadeOn<M> {
        let (n, len) = split(Self::NAME, x.dims)?;
        reduced(m, Self::NAME, n, [x.at, len as u64, value(self.0)])
    }
}

/// `Σ (x − t)²` over each image: `[N, …]` → `[N]`, summed in f64.
///
/// # Errors
/// On an empty or non-contiguous tensor, or a dtype other than F32 and F64.
pub fn squared_distance(x: &Tensor, t: f64) -> Result<Tensor> {
    apply1(&SquaredDistance(t), x)
}

struct SumOfSquares;

impl Op1 for SumOfSquares {
    const NAME: &'static str = "sum_of_squares";
    fn cpu<T: Real>(&self, x: View<T>) -> Made<T> {
        let parts: Vec<f64> =
            x.data.par_chunks(GRAIN).map(|c| c.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>()).collect();
        Ok((vec![T::from_f64(parts.iter().sum())], Shape::from(1)))
    }
    fn device<M: Machine>(&self, m: &M, x: Array) -> MadeOn<M> {
        dot(m, x.len(), x.at, x.at)
    }
}

/// Euclidean norm of all elements, summed in f64: an f64 without dimensions, where `x` is.
///
/// # Errors
/// As for [`squared_distance`].
pub fn norm(x: &Tensor) -> Result<Tensor> {
    apply1(&SumOfSquares, x)?.to_dtype(DType::F64)?.sqrt()?.squeeze(0)
}

struct Scale(f64);

impl Op2 for Scale {
    const NAME: &'static str = "scale_images";
    fn cpu<T: Real>(&self, x: View<T>, s: View<T>) -> Made<T> {
        let (n, len) = split(Self::NAME, x.dims)?;
        same_dims(Self::NAME, &[n], s.dims)?;
        let t = T::from_f64(self.0);
        let out = fill(n * len, len, |at, out| {
            let scale = s.data[at / len];
            for (o, &v) in out.iter_mut().zip(&x.data[at..]) {
                *o = scale * (v - t);
            }
        });
        Ok((out, Shape::from(x.dims)))
    }
    fn device<M: Machine>(&self, m: &M, x: Array, s: Array) -> MadeOn<M> {
        let (n, len) = split(Self::NAME, x.dims)?;
        same_dims(Self::NAME, &[n], s.dims)?;
        made(m, Self::NAME, x.dims, [x.at, s.at, len as u64, value(self.0)])
    }
}

/// `sᵢ·(xᵢ − t)`: `x` `[N, …]`, `s` `[N]`.
///
/// # Errors
/// As for [`squared_distance`], and when `s` does not have one element per image.
pub fn scale_images(x: &Tensor, s: &Tensor, t: f64) -> Result<Tensor> {
    apply2(&Scale(t), x, s)
}

struct AddBias;

impl AddBias {
    /// Images, and elements of each.
    fn split(x: &[usize], s: &[usize], b: &[usize]) -> Result<(usize, usize)> {
        let (n, len) = split(Self::NAME, x)?;
        same_dims(Self::NAME, &[n], s)?;
        let channels: usize = b.iter().product();
        if channels == 0 || len % channels != 0 {
            bail!("{}: bias has shape {b:?}, images {x:?}", Self::NAME)
        }
        Ok((n, len))
    }
}

impl Op3 for AddBias {
    const NAME: &'static str = "add_scaled_bias";
    fn cpu<T: Real>(&self, x: View<T>, s: View<T>, b: View<T>) -> Made<T> {
        let (n, len) = Self::split(x.dims, s.dims, b.dims)?;
        let out = fill(n * len, len, |at, out| {
            let scale = s.data[at / len];
            let source = x.data[at..][..len].chunks_exact(b.data.len());
            for (pixel, from) in out.chunks_exact_mut(b.data.len()).zip(source) {
                for ((o, &v), &b) in pixel.iter_mut().zip(from).zip(b.data) {
                    *o = v + scale * b;
                }
            }
        });
        Ok((out, Shape::from(x.dims)))
    }
    fn device<M: Machine>(&self, m: &M, x: Array, s: Array, b: Array) -> MadeOn<M> {
        let (_, len) = Self::split(x.dims, s.dims, b.dims)?;
        made(m, "finish", x.dims, [x.at, b.at, b.len() as u64, s.at, len as u64, 0, value(1.0)])
    }
}

/// `xᵢ + sᵢ·b` over channels: `x` `[N, …, C]`, `s` `[N]`, `b` `[C]`.
///
/// # Errors
/// As for [`scale_images`], and when the channels do not fit.
pub fn add_scaled_bias(x: &Tensor, s: &Tensor, b: &Tensor) -> Result<Tensor> {
    apply3(&AddBias, x, s, b)
}

struct ChannelSum;

impl Op2 for ChannelSum {
    const NAME: &'static str = "channel_sum";
    fn cpu<T: Real>(&self, x: View<T>, s: View<T>) -> Made<T> {
        let (n, len) = split(Self::NAME, x.dims)?;
        same_dims(Self::NAME, &[n], s.dims)?;
        let c = x.dims.last().copied().unwrap_or(1);
        let per_image: Vec<Vec<T>> = x
            .data
            .par_chunks_exact(len)
            .map(|image| {
                let mut sum = vec![T::ZERO; c];
                vectorised(|| {
                    for pixel in image.chunks_exact(c) {
                        for (o, &v) in sum.iter_mut().zip(pixel) {
                            *o += v;
                        }
                    }
                });
                sum
            })
            .collect();
        let out = (0..c)
            .map(|k| T::from_f64(per_image.iter().zip(s.data).map(|(p, &s)| p[k].to_f64() * s.to_f64()).sum()))
            .collect();
        Ok((out, Shape::from(c)))
    }
    fn device<M: Machine>(&self, m: &M, x: Array, s: Array) -> MadeOn<M> {
        let (n, len) = split(Self::NAME, x.dims)?;
        same_dims(Self::NAME, &[n], s.dims)?;
        let c = x.dims[1..].last().copied().unwrap_or(1);
        weighted_rows(m, [n * len / c, c], x.at, s.at, len / c)
    }
}

/// Σ over rows of `x` `[rows, columns]`, each `per` rows times the next element of `s`: `[columns]`.
pub(super) fn weighted_rows<M: Machine>(m: &M, [rows, columns]: [usize; 2], x: u64, s: u64, per: usize) -> MadeOn<M> {
    let sums = ColumnSums::new(m, "channel_sum_parts", [1, rows, columns], x, [s, per as u64])?;
    Ok((sums.finish(m, 1)?.0, Shape::from(columns)))
}

/// `Σᵢ sᵢ Σ_pixels xᵢ` for each channel: `x` `[N, …, C]`, `s` `[N]` → `[C]`.
///
/// # Errors
/// As for [`scale_images`].
pub fn channel_sum(x: &Tensor, s: &Tensor) -> Result<Tensor> {
    apply2(&ChannelSum, x, s)
}

/// Images as PyTorch stores them, `[N, C, H, W]`, to channels last `[N, H, W, C]`.
///
/// # Errors
/// When the tensor does not have four axes.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}

/// The inverse of [`channels_last`].
///
/// # Errors
/// When the tensor does not have four axes.
pub fn channels_first(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}

/// Classes of images as `[N, classes]`: a one at each image's class, zeros elsewhere.
///
/// # Errors
/// When a class is out of range.
pub fn one_hot(labels: &[u8], classes: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let mut ones = vec![0f32; labels.len() * classes];
    for (row, &label) in ones.chunks_exact_mut(classes.max(1)).zip(labels) {
        match row.get_mut(usize::from(label)) {
            Some(one) => *one = 1.0,
            None => bail!("class {label} of {classes} classes"),
        }
    }
    Tensor::from_vec(ones, (labels.len(), classes), device)?.to_dtype(dtype)
}
