//! Pointwise operators. The slope of a piecewise-linear activation is recovered from its output: `y > 0` exactly where the
//! input was, for ReLU and LeakyReLU, so that nothing but the output needs to be kept.

use candle_core::{Result, Shape, Tensor};

use super::device::{Array, Machine, MadeOn, pointwise};
use super::op::{InPlace, Made, Op1, Op2, View, apply1, apply2, map, same_dims, update2, zip};
use super::real::Real;

struct Leaky(f64);

impl Op1 for Leaky {
    const NAME: &'static str = "leaky_relu";
    fn cpu<T: Real>(&self, x: View<T>) -> Made<T> {
        let alpha = T::from_f64(self.0);
        Ok((map(x.data, |x| if x > T::ZERO { x } else { alpha * x }), Shape::from(x.dims)))
    }
    fn device<M: Machine>(&self, m: &M, x: Array) -> MadeOn<M> {
        pointwise(m, Self::NAME, x, 0, [self.0, 0.0, 0.0])
    }
}

/// `max(x, αx)`; ReLU is α = 0.
///
/// # Errors
/// On a non-contiguous tensor or a dtype other than F32 and F64.
pub fn leaky_relu(x: &Tensor, alpha: f64) -> Result<Tensor> {
    apply1(&Leaky(alpha), x)
}

struct Slope(f64);

impl Op2 for Slope {
    const NAME: &'static str = "leaky_relu_slope";
    fn cpu<T: Real>(&self, d: View<T>, y: View<T>) -> Made<T> {
        same_dims(<Self as Op2>::NAME, d.dims, y.dims)?;
        let alpha = T::from_f64(self.0);
        Ok((zip(d.data, y.data, |d, y| if y > T::ZERO { d } else { alpha * d }), Shape::from(d.dims)))
    }
    fn device<M: Machine>(&self, m: &M, d: Array, y: Array) -> MadeOn<M> {
        same_dims(<Self as Op2>::NAME, d.dims, y.dims)?;
        pointwise(m, <Self as Op2>::NAME, d, y.at, [self.0, 0.0, 0.0])
    }
}

/// `d` times the slope of [`leaky_relu`] where its output was `y`: its adjoint and its tangent alike.
///
/// # Errors
/// As for [`leaky_relu`], and when shapes differ.
pub fn leaky_relu_slope(d: &Tensor, y: &Tensor, alpha: f64) -> Result<Tensor> {
    apply2(&Slope(alpha), d, y)
}

struct Tanh;

impl Op1 for Tanh {
    const NAME: &'static str = "tanh";
    fn cpu<T: Real>(&self, x: View<T>) -> Made<T> {
        Ok((map(x.data, T::tanh), Shape::from(x.dims)))
    }
    fn device<M: Machine>(&self, m: &M, x: Array) -> MadeOn<M> {
        pointwise(m, <Self as Op1>::NAME, x, 0, [0.0; 3])
    }
}

impl Op2 for Tanh {
    const NAME: &'static str = "tanh_grad";
    fn cpu<T: Real>(&self, dy: View<T>, y: View<T>) -> Made<T> {
        same_dims(<Self as Op2>::NAME, dy.dims, y.dims)?;
        Ok((zip(dy.data, y.data, |dy, y| dy * (T::ONE - y * y)), Shape::from(dy.dims)))
    }
    fn device<M: Machine>(&self, m: &M, dy: Array, y: Array) -> MadeOn<M> {
        same_dims(<Self as Op2>::NAME, dy.dims, y.dims)?;
        pointwise(m, <Self as Op2>::NAME, dy, y.at, [0.0; 3])
    }
}

/// Hyperbolic tangent.
///
/// # Errors
/// As for [`leaky_relu`].
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    apply1(&Tanh, x)
}

/// Gradient of [`tanh`] where its output was `y`.
///
/// # Errors
/// As for [`leaky_relu_slope`].
pub fn tanh_grad(dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    apply2(&Tanh, dy, y)
}

struct Add;

impl InPlace<1> for Add {
    const NAME: &'static str = "add_assign";
    fn element<T: Real>(&self, x: T, [y]: [T; 1]) -> T {
        x + y
    }
}

impl Op2 for Add {
    const NAME: &'static str = "add";
    fn cpu<T: Real>(&self, a: View<T>, b: View<T>) -> Made<T> {
        same_dims(<Self as Op2>::NAME, a.dims, b.dims)?;
        Ok((zip(a.data, b.data, |a, b| a + b), Shape::from(a.dims)))
    }
    fn device<M: Machine>(&self, m: &M, a: Array, b: Array) -> MadeOn<M> {
        same_dims(<Self as Op2>::NAME, a.dims, b.dims)?;
        pointwise(m, <Self as Op2>::NAME, a, b.at, [0.0; 3])
    }
}

/// `a + b`.
///
/// # Errors
/// As for [`leaky_relu_slope`].
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    apply2(&Add, a, b)
}

/// `a += b`, element by element, whatever their shapes.
///
/// # Errors
/// As for [`leaky_relu`], and when the numbers of elements differ.
pub fn add_assign(a: &Tensor, b: &Tensor) -> Result<()> {
    update2(&Add, a, b)
}
