//! A 3×3 convolution and the resampling beside it as one convolution of 4×4 taps and stride 2: exact rewrites, borders
//! included, with 2.25 times fewer multiplications.
//!
//! * Convolution (padding 1), then the average over 2×2 pixels: the average of the kernel's four copies shifted by a pixel.
//! * Nearest ×2, then convolution (padding 1): a transposed convolution by the sum of the turned kernel's four copies.
//!
//! Each is linear in the kernel, so a gradient goes back through the transpose of the sum.

use candle_core::{Result, Shape, Tensor, bail};

use super::device::{Array, Machine, MadeOn, made, value};
use super::op::{Made, Op1, View, apply1, fill};
use super::real::Real;

fn kernels(name: &str, dims: &[usize], side: usize) -> Result<[usize; 2]> {
    match dims {
        &[a, b, h, w] if h == side && w == side => Ok([a, b]),
        _ => bail!("{name}: expected kernels [.., .., {side}, {side}], got {dims:?}"),
    }
}

/// `[…, 3, 3]` → `[…, 4, 4]`: the sum of four copies, each shifted by 0 or 1 in both directions, times a factor.
struct Spread(f64);

impl Op1 for Spread {
    const NAME: &'static str = "spread_kernel";
    fn cpu<T: Real>(&self, w: View<T>) -> Made<T> {
        let [a, b] = kernels(Self::NAME, w.dims, 3)?;
        let scale = T::from_f64(self.0);
        let out = fill(a * b * 16, 16, |at, out| {
            let w = &w.data[at / 16 * 9..][..9];
            for (i, o) in out.iter_mut().enumerate() {
                let tap = |y: usize, x: usize| if y < 3 && x < 3 { w[y * 3 + x] } else { T::ZERO };
                let (y, x) = (i / 4, i % 4);
                let (up, left) = (y.wrapping_sub(1), x.wrapping_sub(1));
                *o = scale * ((tap(y, x) + tap(up, x)) + (tap(y, left) + tap(up, left)));
            }
        });
        Ok((out, Shape::from((a, b, 4, 4))))
    }
    fn device<M: Machine>(&self, m: &M, w: Array) -> MadeOn<M> {
        let [a, b] = kernels(Self::NAME, w.dims, 3)?;
        made(m, Self::NAME, &[a, b, 4, 4], [w.at, value(self.0)])
    }
}

/// The transpose of [`Spread`].
struct Gather(f64);

impl Op1 for Gather {
    const NAME: &'static str = "gather_kernel";
    fn cpu<T: Real>(&self, w: View<T>) -> Made<T> {
        let [a, b] = kernels(Self::NAME, w.dims, 4)?;
        let scale = T::from_f64(self.0);
        let out = fill(a * b * 9, 9, |at, out| {
            for (i, o) in out.iter_mut().enumerate() {
                let w = &w.data[at / 9 * 16 + i / 3 * 4 + i % 3..];
                *o = scale * ((w[0] + w[4]) + (w[1] + w[5]));
            }
        });
        Ok((out, Shape::from((a, b, 3, 3))))
    }
    fn device<M: Machine>(&self, m: &M, w: Array) -> MadeOn<M> {
        let [a, b] = kernels(Self::NAME, w.dims, 4)?;
        made(m, Self::NAME, &[a, b, 3, 3], [w.at, value(self.0)])
    }
}

/// `[A, B, 3, 3]` → `[B, A, 3, 3]`, each kernel turned by half a turn.
struct Turn;

impl Op1 for Turn {
    const NAME: &'static str = "turn_kernel";
    fn cpu<T: Real>(&self, w: View<T>) -> Made<T> {
        let [a, b] = kernels(Self::NAME, w.dims, 3)?;
        let out = fill(a * b * 9, 9, |at, out| {
            let (of_b, of_a) = (at / 9 / a, at / 9 % a);
            for (o, &v) in out.iter_mut().zip(w.data[(of_a * b + of_b) * 9..][..9].iter().rev()) {
                *o = v;
            }
        });
        Ok((out, Shape::from((b, a, 3, 3))))
    }
    fn device<M: Machine>(&self, m: &M, w: Array) -> MadeOn<M> {
        let [a, b] = kernels(Self::NAME, w.dims, 3)?;
        made(m, Self::NAME, &[b, a, 3, 3], [w.at, a as u64, b as u64, 9])
    }
}

/// The kernel `[O, I, 4, 4]` of stride 2 that is `w` `[O, I, 3, 3]`, then the average over 2×2 pixels.
///
/// # Errors
/// When `w` has another shape.
pub fn conv_then_pool(w: &Tensor) -> Result<Tensor> {
    apply1(&Spread(0.25), w)
}

/// The gradient in the kernel of [`conv_then_pool`] from that in its result.
///
/// # Errors
/// When the gradient has another shape.
pub fn conv_then_pool_grad(dw: &Tensor) -> Result<Tensor> {
    apply1(&Gather(0.25), dw)
}

/// The kernel `[I, O, 4, 4]` of a transposed convolution of stride 2 that is nearest ×2, then `w` `[O, I, 3, 3]`.
///
/// # Errors
/// When `w` has another shape.
pub fn upsample_then_conv(w: &Tensor) -> Result<Tensor> {
    apply1(&Spread(1.0), &apply1(&Turn, w)?)
}

/// The gradient in the kernel of [`upsample_then_conv`] from that in its result.
///
/// # Errors
/// When the gradient has another shape.
pub fn upsample_then_conv_grad(dw: &Tensor) -> Result<Tensor> {
    apply1(&Turn, &apply1(&Gather(1.0), dw)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv::{ConvSpec, conv_transpose2d, conv2d};
    use crate::nn::resample::{avg_pool2, upsample2};
    use crate::nn::testing::{adjoint, random, tensors_close};

    #[test]
    fn both_rewrites_are_exact_to_the_border() {
        let (x, w, b) = (random("x", &[2, 6, 8, 3]), random("w", &[5, 3, 3, 3]), random("b", &[5]));
        let plain = |x: &Tensor| conv2d(x, &w, Some(&b), ConvSpec::new(1, 1)).unwrap();
        let two = ConvSpec::new(2, 1);
        let folded = conv2d(&x, &conv_then_pool(&w).unwrap(), Some(&b), two).unwrap();
        tensors_close(&folded, &avg_pool2(&plain(&x)).unwrap(), 1e-14);
        let folded = conv_transpose2d(&x, &upsample_then_conv(&w).unwrap(), Some(&b), two).unwrap();
        tensors_close(&folded, &plain(&upsample2(&x).unwrap()), 1e-14);
    }

    #[test]
    fn gradients_are_the_adjoints() {
        let w = random("w", &[5, 3, 3, 3]);
        let dw = random("dw", &[5, 3, 4, 4]);
        adjoint(&conv_then_pool(&w).unwrap(), &dw, &w, &conv_then_pool_grad(&dw).unwrap());
        let dw = random("dw", &[3, 5, 4, 4]);
        adjoint(&upsample_then_conv(&w).unwrap(), &dw, &w, &upsample_then_conv_grad(&dw).unwrap());
    }
}
