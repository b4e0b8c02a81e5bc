//! Operators that treat each image of a batch on its own: sums over an image, scaling by a factor per image, and the
//! channel sums of a bias gradient.

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use super::activation::add_assign;
use super::op::{Made, Op, View, apply, either, elements, same_dims};
use crate::machine::call::{Array, Word};
use crate::machine::cpu::parallel::{GRAIN, collect, fill};
use crate::machine::cpu::real::{Real, vectorised};
use crate::machine::tape::Tape;
use crate::words;

/// Images, and elements of each.
fn split(name: &str, dims: &[usize]) -> Result<(usize, usize)> {
    match dims {
        &[n, ref image @ ..] if n > 0 => Ok((n, image.iter().product())),
        _ => bail!("{name}: expected at least one image, got shape {dims:?}"),
    }
}

struct SquaredDistance(f64);

impl Op<1> for SquaredDistance {
    const NAME: &'static str = "squared_distance";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        let (n, len) = split(Self::NAME, x.dims)?;
        let out = fill(n, 1, |at, out| {
            let sum: f64 = x.data[at * len..][..len].iter().map(|&v| (v.to_f64() - self.0).powi(2)).sum();
            out[0] = T::from_f64(sum);
        });
        Ok((out, Shape::from(n)))
    }
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        let (n, len) = split(Self::NAME, x.dims)?;
        let out = tape.alloc(&[n])?;
        tape.blocks(Self::NAME, n, words![tape.memory(&out)?, x, len, self.0])?;
        Ok(out)
    }
}

/// `Σ (x − t)²` over each image: `[N, …]` → `[N]`, summed in f64.
///
/// # Errors
/// On an empty or non-contiguous tensor, or a dtype other than F32 and F64.
pub fn squared_distance(x: &Tensor, t: f64) -> Result<Tensor> {
    apply(&SquaredDistance(t), [x])
}

/// Euclidean norm of all elements, summed in f64: without dimensions, an f64 on the CPU.
///
/// # Errors
/// As for [`squared_distance`].
pub fn norm(x: &Tensor) -> Result<Tensor> {
    fn squares<T: Real>(x: &[T]) -> f64 {
        let parts = collect(x.len().div_ceil(GRAIN), |i| {
            x[i * GRAIN..].iter().take(GRAIN).map(|v| v.to_f64() * v.to_f64()).sum::<f64>()
        });
        // As a number of the tensor's type: results do not depend on where it is summed.
        T::from_f64(parts.iter().sum()).to_f64()
    }
    let cpu = || {
        let sum = match x.dtype() {
            DType::F64 => elements::<f64, _>("norm", x, x.elem_count(), |x| Ok(squares(x)))?,
            _ => elements::<f32, _>("norm", x, x.elem_count(), |x| Ok(squares(x)))?,
        };
        Tensor::new(sum.sqrt(), &Device::Cpu)
    };
    either([x], cpu, |tape, [x]| tape.dot(x, x, true)?.squeeze(0))
}

struct Scale;

impl Op<2> for Scale {
    const NAME: &'static str = "scale_images";
    fn cpu<T: Real>(&self, [x, s]: [View<T>; 2]) -> Made<T> {
        let (n, len) = split(Self::NAME, x.dims)?;
        same_dims(Self::NAME, &[n], s.dims)?;
        let out = fill(n * len, len, |at, out| {
            let scale = s.data[at / len];
            for (o, &v) in out.iter_mut().zip(&x.data[at..]) {
                *o = scale * v;
            }
        });
        Ok((out, Shape::from(x.dims)))
    }
    fn device(&self, tape: &Tape, [x, s]: [Array; 2]) -> Result<Tensor> {
        let (n, len) = split(Self::NAME, x.dims)?;
        same_dims(Self::NAME, &[n], s.dims)?;
        tape.made(Self::NAME, x.dims, words![x, s, len])
    }
}

/// `sᵢ·xᵢ`: `x` `[N, …]`, `s` `[N]`.
///
/// # Errors
/// As for [`squared_distance`], and when `s` does not have one element per image.
pub fn scale_images(x: &Tensor, s: &Tensor) -> Result<Tensor> {
    apply(&Scale, [x, s])
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

impl Op<3> for AddBias {
    const NAME: &'static str = "add_scaled_bias";
    fn cpu<T: Real>(&self, [x, s, b]: [View<T>; 3]) -> Made<T> {
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
    fn device(&self, tape: &Tape, [x, s, b]: [Array; 3]) -> Result<Tensor> {
        let (_, len) = Self::split(x.dims, s.dims, b.dims)?;
        tape.made("finish", x.dims, words![x, false, b, b.len(), s, len, Word::Nothing, 1.0])
    }
}

/// `xᵢ + sᵢ·b` over channels: `x` `[N, …, C]`, `s` `[N]`, `b` `[C]`.
///
/// # Errors
/// As for [`scale_images`], and when the channels do not fit.
pub fn add_scaled_bias(x: &Tensor, s: &Tensor, b: &Tensor) -> Result<Tensor> {
    apply(&AddBias, [x, s, b])
}

fn weighted_sum<T: Real>(x: View<T>, s: &[T]) -> Vec<T> {
    let (c, len) = (x.dims.last().copied().unwrap_or(1), x.data.len() / x.dims[0]);
    let per_image = collect(x.dims[0], |n| {
        let mut sum = vec![T::ZERO; c];
        vectorised(|| {
            for pixel in x.data[n * len..][..len].chunks_exact(c) {
                for (o, &v) in sum.iter_mut().zip(pixel) {
                    *o += v;
                }
            }
        });
        sum
    });
    (0..c).map(|k| T::from_f64(per_image.iter().zip(s).map(|(p, &s)| p[k].to_f64() * s.to_f64()).sum())).collect()
}

struct ChannelSum;

impl Op<2> for ChannelSum {
    const NAME: &'static str = "channel_sum";
    fn cpu<T: Real>(&self, [x, s]: [View<T>; 2]) -> Made<T> {
        let (n, _) = split(Self::NAME, x.dims)?;
        same_dims(Self::NAME, &[n], s.dims)?;
        let sums = weighted_sum(x, s.data);
        let channels = sums.len();
        Ok((sums, Shape::from(channels)))
    }
    fn device(&self, tape: &Tape, [x, s]: [Array; 2]) -> Result<Tensor> {
        let channels = x.dims[1..].last().copied().unwrap_or(1);
        let out = tape.alloc(&[channels])?;
        channel_sum_on(tape, x, Some(s), tape.array(&out)?, false)?;
        Ok(out)
    }
}

fn channel_sum_on(tape: &Tape, x: Array, s: Option<Array>, out: Array, add: bool) -> Result<()> {
    let (n, len) = split(ChannelSum::NAME, x.dims)?;
    if let Some(s) = s {
        same_dims(ChannelSum::NAME, &[n], s.dims)?;
    }
    let c = out.len();
    if c != x.dims[1..].last().copied().unwrap_or(1) {
        bail!("{}: {c} sums of channels of {:?}", ChannelSum::NAME, x.dims)
    }
    tape.column_sums("channel_sum", [1, n * len / c, c], x, words![s, len / c, out, add])
}

/// `Σᵢ sᵢ Σ_pixels xᵢ` for each channel: `x` `[N, …, C]`, `s` `[N]` → `[C]`.
///
/// # Errors
/// As for [`scale_images`].
pub fn channel_sum(x: &Tensor, s: &Tensor) -> Result<Tensor> {
    apply(&ChannelSum, [x, s])
}

/// Adds [`channel_sum`] to `into` `[C]`; without `s` all weights are one.
///
/// # Errors
/// As for [`channel_sum`].
pub fn add_channel_sum(x: &Tensor, s: Option<&Tensor>, into: &Tensor) -> Result<()> {
    let cpu = || match s {
        Some(s) => add_assign(into, &channel_sum(x, s)?),
        None => add_assign(into, &channel_sum(x, &Tensor::ones(x.dim(0)?, x.dtype(), x.device())?)?),
    };
    either([x, into], cpu, |tape, [x, into]| channel_sum_on(tape, x, s.map(|s| tape.array(s)).transpose()?, into, true))
}

struct Combine;

impl Op<5> for Combine {
    const NAME: &'static str = "combine_images";
    fn cpu<T: Real>(&self, [x, c, g, s, t]: [View<T>; 5]) -> Made<T> {
        let (n, len) = split(Self::NAME, x.dims)?;
        [c, s, t].iter().try_for_each(|of| same_dims(Self::NAME, &[n], of.dims))?;
        let out = fill(n * len, len, |at, out| {
            let [c, s, t] = [c, s, t].map(|of| of.data[at / len]);
            for ((o, &x), &g) in out.iter_mut().zip(&x.data[at..]).zip(&g.data[at..]) {
                *o = c * x + (s * g + t);
            }
        });
        Ok((out, Shape::from(x.dims)))
    }
    fn device(&self, tape: &Tape, [x, c, g, s, t]: [Array; 5]) -> Result<Tensor> {
        let (n, len) = split(Self::NAME, x.dims)?;
        [&c, &s, &t].into_iter().try_for_each(|of| same_dims(Self::NAME, &[n], of.dims))?;
        tape.made(Self::NAME, x.dims, words![x, c, g, s, t, len])
    }
}

/// `cᵢ·xᵢ + sᵢ·gᵢ + tᵢ`: `x` and `g` `[N, …]`, `c`, `s` and `t` `[N]`.
///
/// # Errors
/// As for [`scale_images`].
pub fn combine_images([x, g]: [&Tensor; 2], [c, s, t]: [&Tensor; 3]) -> Result<Tensor> {
    same_dims(Combine::NAME, x.dims(), g.dims())?;
    apply(&Combine, [x, c, g, s, t])
}

/// `εᵢ·aᵢ + (1 − εᵢ)·bᵢ`: `a` and `b` `[N, …]`, `epsilon` `[N]`.
///
/// # Errors
/// As for [`scale_images`].
pub fn mix_images([a, b]: [&Tensor; 2], epsilon: &Tensor) -> Result<Tensor> {
    let cpu = || scale_images(a, epsilon)? + scale_images(b, &(1.0 - epsilon)?)?;
    either([a, b, epsilon], cpu, |tape, [a, b, epsilon]| {
        same_dims("mix_images", a.dims, b.dims)?;
        let (n, image) = split("mix_images", a.dims)?;
        same_dims("mix_images", &[n], epsilon.dims)?;
        tape.made("mix_images", a.dims, words![a, b, epsilon, image])
    })
}

/// Both batches one after the other: `[N, …]` and `[M, …]` → `[N + M, …]`.
///
/// # Errors
/// When their images differ in shape.
pub fn join(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    either(
        [a, b],
        || Tensor::cat(&[a, b], 0),
        |tape, [a, b]| {
            same_dims("join", &a.dims[1..], &b.dims[1..])?;
            let dims = [&[a.dims[0] + b.dims[0]], &a.dims[1..]].concat();
            tape.made("join", &dims, words![a, a.len(), b])
        },
    )
}

/// Of each image the value of its class, `labels` `[N, classes]` being ones among zeros: `x` `[N, 1, 1, classes]` → `[N, 1, 1, 1]`.
///
/// # Errors
/// When the shapes do not fit.
pub fn select_class(x: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let (n, classes) = labels.dims2()?;
    same_dims("select_class", x.dims(), &[n, 1, 1, classes])?;
    let cpu = || (x * labels.reshape((n, 1, 1, classes))?)?.sum_keepdim(3);
    either([x, labels], cpu, |tape, [x, labels]| tape.made("select_class", &[n, 1, 1, 1], words![x, labels, classes]))
}

/// Ones, `[n]`, of the type and on the device of another tensor.
///
/// # Errors
/// When the device refuses the memory.
pub fn ones(n: usize, like: &Tensor) -> Result<Tensor> {
    either([like], || Tensor::ones(n, like.dtype(), like.device()), |tape, _| tape.made("fill", &[n], words![1.0]))
}

/// Sets every element to zero.
///
/// # Errors
/// When the device fails.
pub fn clear(x: &Tensor) -> Result<()> {
    either([x], || x.zero_set(), |tape, [x]| tape.each("fill", x.len(), words![x, 0.0]))
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
pub fn one_hot(labels: &[u16], classes: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    Tensor::from_vec(ones_at(labels, classes)?, (labels.len(), classes), device)?.to_dtype(dtype)
}

/// The numbers of [`one_hot`].
///
/// # Errors
/// When a class is out of range.
pub fn ones_at(labels: &[u16], classes: usize) -> Result<Vec<f32>> {
    let mut ones = vec![0f32; labels.len() * classes];
    for (row, &label) in ones.chunks_exact_mut(classes.max(1)).zip(labels) {
        match row.get_mut(usize::from(label)) {
            Some(one) => *one = 1.0,
            None => bail!("class {label} of {classes} classes"),
        }
    }
    Ok(ones)
}
