//! What a stored kernel becomes before a convolution takes it.
//!
//! A 3×3 convolution and the resampling beside it are one convolution of 4×4 taps and stride 2: exact rewrites, borders
//! included, with 2.25 times fewer multiplications.
//!
//! * Convolution (padding 1), then the average over 2×2 pixels: the average of the kernel's four copies shifted by a pixel.
//! * Nearest ×2, then convolution (padding 1): a transposed convolution by the sum of the turned kernel's four copies.
//!
//! A matrix that is stored the other way round is transposed.
//!
//! Each is linear in the kernel, so a gradient goes back through the transpose.

use candle_core::{Result, Shape, Tensor, bail};

use super::kernel::Kernel;
use super::op::{Made, Op, View, apply, either};
use crate::machine::call::Array;
use crate::machine::cpu::parallel::fill;
use crate::machine::cpu::real::Real;
use crate::machine::tape::Tape;
use crate::words;

fn kernels(name: &str, dims: &[usize], side: usize) -> Result<[usize; 2]> {
    match dims {
        &[a, b, h, w] if h == side && w == side => Ok([a, b]),
        _ => bail!("{name}: expected kernels [.., .., {side}, {side}], got {dims:?}"),
    }
}

/// `[A, B, 3, 3]` → `[A, B, 4, 4]`: the sum of four copies, each shifted by 0 or 1 in both directions, times a factor; turned, of
/// `[B, A, 3, 3]` with each kernel turned by half a turn.
struct Spread {
    scale: f64,
    turned: bool,
}

impl Op<1> for Spread {
    const NAME: &'static str = "spread_kernel";
    fn cpu<T: Real>(&self, [w]: [View<T>; 1]) -> Made<T> {
        let mut dims = kernels(Self::NAME, w.dims, 3)?;
        let turned;
        let mut w = w.data;
        if self.turned {
            turned = turn(w, dims);
            w = &turned;
            dims.reverse();
        }
        let [a, b] = dims;
        let scale = T::from_f64(self.scale);
        let out = fill(a * b * 16, 16, |at, out| {
            let w = &w[at / 16 * 9..][..9];
            for (i, o) in out.iter_mut().enumerate() {
                let tap = |y: usize, x: usize| if y < 3 && x < 3 { w[y * 3 + x] } else { T::ZERO };
                let (y, x) = (i / 4, i % 4);
                let (up, left) = (y.wrapping_sub(1), x.wrapping_sub(1));
                *o = scale * ((tap(y, x) + tap(up, x)) + (tap(y, left) + tap(up, left)));
            }
        });
        Ok((out, Shape::from((a, b, 4, 4))))
    }
    fn device(&self, tape: &Tape, [w]: [Array; 1]) -> Result<Tensor> {
        let mut dims = kernels(Self::NAME, w.dims, 3)?;
        if self.turned {
            dims.reverse();
        }
        let [a, b] = dims;
        tape.made(Self::NAME, &[a, b, 4, 4], words![w, self.scale, a, b, self.turned])
    }
}

/// The transpose of [`Spread`].
struct Gather {
    scale: f64,
    turned: bool,
}

impl Gather {
    /// Its result, or added to memory that is there.
    fn on(&self, tape: &Tape, dw: Array, into: Array, add: bool) -> Result<()> {
        let [a, b] = kernels(Self::NAME, dw.dims, 4)?;
        if into.len() != a * b * 9 {
            bail!("{}: {:?} into {:?}", Self::NAME, dw.dims, into.dims)
        }
        tape.each(Self::NAME, into.len(), words![into, dw, self.scale, a, b, self.turned, add])
    }
}

impl Op<1> for Gather {
    const NAME: &'static str = "gather_kernel";
    fn cpu<T: Real>(&self, [w]: [View<T>; 1]) -> Made<T> {
        let mut dims = kernels(Self::NAME, w.dims, 4)?;
        let scale = T::from_f64(self.scale);
        let mut out = fill(dims[0] * dims[1] * 9, 9, |at, out| {
            for (i, o) in out.iter_mut().enumerate() {
                let w = &w.data[at / 9 * 16 + i / 3 * 4 + i % 3..];
                *o = scale * ((w[0] + w[4]) + (w[1] + w[5]));
            }
        });
        if self.turned {
            out = turn(&out, dims);
            dims.reverse();
        }
        Ok((out, Shape::from((dims[0], dims[1], 3, 3))))
    }
    fn device(&self, tape: &Tape, [dw]: [Array; 1]) -> Result<Tensor> {
        let mut dims = kernels(Self::NAME, dw.dims, 4)?;
        if self.turned {
            dims.reverse();
        }
        let out = tape.alloc(&[dims[0], dims[1], 3, 3])?;
        self.on(tape, dw, tape.array(&out)?, false)?;
        Ok(out)
    }
}

/// `[A, B, 3, 3]` → `[B, A, 3, 3]`, each kernel turned by half a turn.
fn turn<T: Real>(w: &[T], [a, b]: [usize; 2]) -> Vec<T> {
    fill(a * b * 9, 9, |at, out| {
        let (of_b, of_a) = (at / 9 / a, at / 9 % a);
        for (o, &v) in out.iter_mut().zip(w[(of_a * b + of_b) * 9..][..9].iter().rev()) {
            *o = v;
        }
    })
}

/// `[O, I, 1, 1]` → `[I, O, 1, 1]`.
fn transposed(w: &Kernel) -> Result<Kernel> {
    let [o, i, kh, kw] = w.shape();
    if kh * kw != 1 {
        bail!("transposed kernel: expected [.., .., 1, 1], got {:?}", w.shape())
    }
    let cpu = || w.data().reshape((o, i))?.t()?.contiguous();
    let data = either([w.data()], cpu, |tape, [w]| tape.transposed(w, [1, o, i, 1]))?;
    Kernel::of(&data, [i, o, 1, 1])
}

/// What is done to a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    /// The average over 2×2 pixels that follows 3×3 taps: the kernel `[O, I, 4, 4]` of a convolution of stride 2.
    Pool,
    /// Nearest ×2 before 3×3 taps: the kernel `[I, O, 4, 4]` of a transposed convolution of stride 2.
    Upsample,
    /// One tap, stored as `[I, O, 1, 1]`.
    Transpose,
}

impl Fold {
    /// Factor of the shifted copies, and whether they are turned; none where there are no copies.
    fn parts(self) -> Option<(f64, bool)> {
        match self {
            Self::Pool => Some((0.25, false)),
            Self::Upsample => Some((1.0, true)),
            Self::Transpose => None,
        }
    }

    /// Shape of the kernel that is made of one of `shape`, as far as a convolution of an image is concerned.
    pub fn shape(self, [o, i, kh, kw]: [usize; 4]) -> [usize; 4] {
        match self {
            Self::Pool | Self::Upsample => [o, i, kh + 1, kw + 1],
            Self::Transpose => [i, o, kh, kw],
        }
    }

    /// The kernel that is made of a stored one.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn of(self, w: &Kernel) -> Result<Kernel> {
        let Some((scale, turned)) = self.parts() else { return transposed(w) };
        let data = apply(&Spread { scale, turned }, [w.data()])?;
        let dims = data.dims4()?;
        Kernel::of(&data, dims.into())
    }

    /// The gradient in a stored kernel from that in what is made of it.
    ///
    /// # Errors
    /// When the gradient has another shape.
    pub fn gradient(self, dw: &Kernel) -> Result<Kernel> {
        let Some((scale, turned)) = self.parts() else { return transposed(dw) };
        let data = apply(&Gather { scale, turned }, [dw.data()])?;
        let dims = data.dims4()?;
        Kernel::of(&data, dims.into())
    }

    /// Adds [`Fold::gradient`] to what is there.
    ///
    /// # Errors
    /// As for [`Fold::gradient`].
    pub fn add_gradient(self, dw: &Kernel, into: &Tensor) -> Result<()> {
        let cpu = || super::activation::add_assign(into, self.gradient(dw)?.data());
        let Some((scale, turned)) = self.parts() else { return cpu() };
        either([dw.data(), into], cpu, |tape, [dw, into]| Gather { scale, turned }.on(tape, dw, into, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::convolution::ConvSpec;
    use crate::nn::conv::{conv_transpose2d, conv2d};
    use crate::nn::resample::{avg_pool2, upsample2};
    use crate::nn::testing::{adjoint, kernel, random, tensors_close};

    #[test]
    fn rewrites_are_exact_to_the_border() {
        let (x, w, b) = (random("x", &[2, 6, 8, 3]), kernel("w", [5, 3, 3, 3]), random("b", &[5]));
        let plain = |x: &Tensor| conv2d(x, &w, Some(&b), ConvSpec::new(1, 1)).unwrap();
        let two = ConvSpec::new(2, 1);
        let folded = conv2d(&x, &Fold::Pool.of(&w).unwrap(), Some(&b), two).unwrap();
        tensors_close(&folded, &avg_pool2(&plain(&x)).unwrap(), 1e-14);
        let folded = conv_transpose2d(&x, &Fold::Upsample.of(&w).unwrap(), Some(&b), two).unwrap();
        tensors_close(&folded, &plain(&upsample2(&x).unwrap()), 1e-14);
        let (w, one) = (kernel("w", [3, 5, 1, 1]), ConvSpec::new(1, 0));
        let folded = conv2d(&x, &Fold::Transpose.of(&w).unwrap(), Some(&b), one).unwrap();
        tensors_close(&folded, &conv_transpose2d(&x, &w, Some(&b), one).unwrap(), 1e-14);
        assert!(Fold::Transpose.of(&kernel("w", [5, 3, 3, 3])).is_err());
    }

    #[test]
    fn gradients_are_the_adjoints() {
        let of = [([3, 3], Fold::Pool, [5, 3, 4, 4]), ([3, 3], Fold::Upsample, [3, 5, 4, 4])];
        for ([kh, kw], fold, shape) in of.into_iter().chain([([1, 1], Fold::Transpose, [3, 5, 1, 1])]) {
            let (w, dw) = (kernel("w", [5, 3, kh, kw]), kernel("dw", shape));
            let gradient = fold.gradient(&dw).unwrap();
            adjoint(fold.of(&w).unwrap().data(), dw.data(), w.data(), gradient.data());
            let twice = random("into", &[5, 3, kh, kw]);
            let before = twice.copy().unwrap();
            fold.add_gradient(&dw, &twice).unwrap();
            tensors_close(&twice, &(before + gradient.data()).unwrap(), 1e-14);
        }
    }
}
