//! A 3×3 convolution and the resampling beside it as one convolution of 4×4 taps and stride 2: exact rewrites, borders
//! included, with 2.25 times fewer multiplications.
//!
//! * Convolution (padding 1), then the average over 2×2 pixels: the average of the kernel's four copies shifted by a pixel.
//! * Nearest ×2, then convolution (padding 1): a transposed convolution by the sum of the turned kernel's four copies.
//!
//! Each is linear in the kernel, so a gradient goes back through the transpose of the sum.

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

/// What is folded into a 3×3 convolution.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    /// The average over 2×2 pixels that follows: the kernel `[O, I, 4, 4]` of a convolution of stride 2.
    Pool,
    /// Nearest ×2 before it: the kernel `[I, O, 4, 4]` of a transposed convolution of stride 2.
    Upsample,
}

impl Fold {
    fn parts(self) -> (f64, bool) {
        match self {
            Self::Pool => (0.25, false),
            Self::Upsample => (1.0, true),
        }
    }

    /// The folded kernel of a kernel `[O, I, 3, 3]`.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn of(self, w: &Kernel) -> Result<Kernel> {
        let (scale, turned) = self.parts();
        let data = apply(&Spread { scale, turned }, [w.data()])?;
        let dims = data.dims4()?;
        Kernel::of(&data, dims.into())
    }

    /// The gradient in a kernel `[O, I, 3, 3]` from that in the folded one.
    ///
    /// # Errors
    /// When the gradient has another shape.
    pub fn gradient(self, dw: &Kernel) -> Result<Kernel> {
        let (scale, turned) = self.parts();
        let data = apply(&Gather { scale, turned }, [dw.data()])?;
        let dims = data.dims4()?;
        Kernel::of(&data, dims.into())
    }

    /// Adds [`Fold::gradient`] to what is there.
    ///
    /// # Errors
    /// As for [`Fold::gradient`].
    pub fn add_gradient(self, dw: &Kernel, into: &Tensor) -> Result<()> {
        let (scale, turned) = self.parts();
        either(
            [dw.data(), into],
            || super::activation::add_assign(into, self.gradient(dw)?.data()),
            |tape, [dw, into]| Gather { scale, turned }.on(tape, dw, into, true),
        )
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
    fn both_rewrites_are_exact_to_the_border() {
        let (x, w, b) = (random("x", &[2, 6, 8, 3]), kernel("w", [5, 3, 3, 3]), random("b", &[5]));
        let plain = |x: &Tensor| conv2d(x, &w, Some(&b), ConvSpec::new(1, 1)).unwrap();
        let two = ConvSpec::new(2, 1);
        let folded = conv2d(&x, &Fold::Pool.of(&w).unwrap(), Some(&b), two).unwrap();
        tensors_close(&folded, &avg_pool2(&plain(&x)).unwrap(), 1e-14);
        let folded = conv_transpose2d(&x, &Fold::Upsample.of(&w).unwrap(), Some(&b), two).unwrap();
        tensors_close(&folded, &plain(&upsample2(&x).unwrap()), 1e-14);
    }

    #[test]
    fn gradients_are_the_adjoints() {
        let w = kernel("w", [5, 3, 3, 3]);
        for (fold, shape) in [(Fold::Pool, [5, 3, 4, 4]), (Fold::Upsample, [3, 5, 4, 4])] {
            let dw = kernel("dw", shape);
            let gradient = fold.gradient(&dw).unwrap();
            adjoint(fold.of(&w).unwrap().data(), dw.data(), w.data(), gradient.data());
            let twice = random("into", &[5, 3, 3, 3]);
            let before = twice.copy().unwrap();
            fold.add_gradient(&dw, &twice).unwrap();
            tensors_close(&twice, &(before + gradient.data()).unwrap(), 1e-14);
        }
    }
}
