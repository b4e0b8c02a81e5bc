//! Pointwise operators. The slope of a piecewise-linear activation is recovered from its output: `y > 0` exactly where the
//! input was, for ReLU and LeakyReLU, so that nothing but the output needs to be kept.

use candle_core::{Result, Shape, Tensor};

use super::op::{InPlace, Made, Op, View, apply, same_dims, update};
use crate::machine::call::Array;
use crate::machine::cpu::parallel::{map, zip};
use crate::machine::cpu::real::{Loop, Real, compiled};
use crate::machine::tape::Tape;

struct Leaky(f64);

impl Op<1> for Leaky {
    const NAME: &'static str = "leaky_relu";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        let alpha = T::from_f64(self.0);
        Ok((map(x.data, |x| if x > T::ZERO { x } else { alpha * x }), Shape::from(x.dims)))
    }
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        tape.pointwise(Self::NAME, x, None, [self.0, 0.0, 0.0])
    }
}

/// `max(x, αx)`; ReLU is α = 0.
///
/// # Errors
/// On a non-contiguous tensor or a dtype other than F32 and F64.
pub fn leaky_relu(x: &Tensor, alpha: f64) -> Result<Tensor> {
    apply(&Leaky(alpha), [x])
}

struct Slope(f64);

impl Op<2> for Slope {
    const NAME: &'static str = "leaky_relu_slope";
    fn cpu<T: Real>(&self, [d, y]: [View<T>; 2]) -> Made<T> {
        same_dims(<Self as Op<2>>::NAME, d.dims, y.dims)?;
        let alpha = T::from_f64(self.0);
        Ok((zip(d.data, y.data, |d, y| if y > T::ZERO { d } else { alpha * d }), Shape::from(d.dims)))
    }
    fn device(&self, tape: &Tape, [d, y]: [Array; 2]) -> Result<Tensor> {
        same_dims(<Self as Op<2>>::NAME, d.dims, y.dims)?;
        tape.pointwise(<Self as Op<2>>::NAME, d, Some(y), [self.0, 0.0, 0.0])
    }
}

/// `d` times the slope of [`leaky_relu`] where its output was `y`: its adjoint and its tangent alike.
///
/// # Errors
/// As for [`leaky_relu`], and when shapes differ.
pub fn leaky_relu_slope(d: &Tensor, y: &Tensor, alpha: f64) -> Result<Tensor> {
    apply(&Slope(alpha), [d, y])
}

struct Tanh;

impl Op<1> for Tanh {
    const NAME: &'static str = "tanh";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        Ok((map(x.data, T::tanh), Shape::from(x.dims)))
    }
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        tape.pointwise(<Self as Op<1>>::NAME, x, None, [0.0; 3])
    }
}

impl Op<2> for Tanh {
    const NAME: &'static str = "tanh_grad";
    fn cpu<T: Real>(&self, [dy, y]: [View<T>; 2]) -> Made<T> {
        same_dims(<Self as Op<2>>::NAME, dy.dims, y.dims)?;
        Ok((zip(dy.data, y.data, |dy, y| dy * (T::ONE - y * y)), Shape::from(dy.dims)))
    }
    fn device(&self, tape: &Tape, [dy, y]: [Array; 2]) -> Result<Tensor> {
        same_dims(<Self as Op<2>>::NAME, dy.dims, y.dims)?;
        tape.pointwise(<Self as Op<2>>::NAME, dy, Some(y), [0.0; 3])
    }
}

/// Hyperbolic tangent.
///
/// # Errors
/// As for [`leaky_relu`].
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    apply(&Tanh, [x])
}

/// Gradient of [`tanh`] where its output was `y`.
///
/// # Errors
/// As for [`leaky_relu_slope`].
pub fn tanh_grad(dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    apply(&Tanh, [dy, y])
}

/// Smooth relatives of ReLU: x times the share of a distribution below x.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gelu {
    /// Of the standard normal (Hendrycks and Gimpel, arXiv 1606.08415).
    Normal,
    /// Of the logistic one with slope 1.702, their approximation ("QuickGELU").
    Logistic,
}

struct Applied<'a, T>(Gelu, &'a mut [T]);

impl<T: Real> Loop for Applied<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run(self) {
        match self.0 {
            Gelu::Normal => self.1.iter_mut().for_each(|x| *x *= x.normal_cdf()),
            Gelu::Logistic => {
                let slope = T::from_f64(-1.702);
                self.1.iter_mut().for_each(|x| *x = *x / (T::ONE + (slope * *x).exp()));
            }
        }
    }
}

impl Gelu {
    /// In place.
    pub(super) fn apply<T: Real>(self, values: &mut [T]) {
        compiled(Applied(self, values));
    }

    pub(super) fn kernel(self) -> &'static str {
        match self {
            Self::Normal => "gelu",
            Self::Logistic => "quick_gelu",
        }
    }
}

struct Add;

impl InPlace<1> for Add {
    const NAME: &'static str = "add_assign";
    fn element<T: Real>(&self, x: T, [y]: [T; 1]) -> T {
        x + y
    }
}

impl Op<2> for Add {
    const NAME: &'static str = "add";
    fn cpu<T: Real>(&self, [a, b]: [View<T>; 2]) -> Made<T> {
        same_dims(<Self as Op<2>>::NAME, a.dims, b.dims)?;
        Ok((zip(a.data, b.data, |a, b| a + b), Shape::from(a.dims)))
    }
    fn device(&self, tape: &Tape, [a, b]: [Array; 2]) -> Result<Tensor> {
        same_dims(<Self as Op<2>>::NAME, a.dims, b.dims)?;
        tape.pointwise(<Self as Op<2>>::NAME, a, Some(b), [0.0; 3])
    }
}

/// `a + b`.
///
/// # Errors
/// As for [`leaky_relu_slope`].
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    apply(&Add, [a, b])
}

/// `a += b`, element by element, whatever their shapes.
///
/// # Errors
/// As for [`leaky_relu`], and when the numbers of elements differ.
pub fn add_assign(a: &Tensor, b: &Tensor) -> Result<()> {
    update(&Add, a, [b])
}
