//! Spectral normalisation (Miyato et al. 2018) as a reparametrisation outside the layers: they see W̄ = W/σ with σ = uᵀWv,
//! W reshaped to `[O, rest]` and u, v from one power iteration in each training pass, constant in the gradient.

use candle_core::{Result, Shape, Tensor, bail};

use super::device::{Array, Machine, MadeOn, dot as dot_on, made, reduced};
use super::image::weighted_rows;
use super::init::Init;
use super::op::{GRAIN, Made, Op2, View, apply2, fill, same_dims};
use super::real::Real;
use super::store::{Builder, Id, Store};

/// Vectors of the power iteration, in a store of buffers.
#[derive(Clone, Debug)]
pub struct Spectral {
    /// `[O]`.
    u: Id,
    /// `[rest]`.
    v: Id,
    /// Guard of the vectors' normalisation.
    epsilon: f64,
}

/// What a layer multiplies with.
pub struct Weight {
    /// Effective weight, as the layer takes it.
    pub w: Tensor,
    normalised: Option<Normalised>,
}

struct Normalised {
    w: Tensor,
    u: Tensor,
    v: Tensor,
    /// 1/σ, without dimensions.
    inverse: Tensor,
}

/// Partial sums that let the compiler use whole vectors.
const LANES: usize = 32;
/// Columns of a task.
const COLUMNS: usize = 512;

#[inline(always)]
fn dot<T: Real>(a: &[T], b: &[T]) -> f64 {
    let mut sums = [T::ZERO; LANES];
    let (mut x, mut y) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (x, y) in (&mut x).zip(&mut y) {
        for k in 0..LANES {
            sums[k] += x[k] * y[k];
        }
    }
    let rest: f64 = x.remainder().iter().zip(y.remainder()).map(|(&x, &y)| (x * y).to_f64()).sum();
    sums.iter().map(|s| s.to_f64()).sum::<f64>() + rest
}

fn matrix(name: &str, dims: &[usize]) -> Result<[usize; 2]> {
    match dims {
        &[rows, columns] if rows * columns > 0 => Ok([rows, columns]),
        dims => bail!("{name}: expected a matrix, got {dims:?}"),
    }
}

/// W·v.
struct Times;

impl Op2 for Times {
    const NAME: &'static str = "matrix_times_vector";
    fn cpu<T: Real>(&self, w: View<T>, v: View<T>) -> Made<T> {
        let [rows, columns] = matrix(Self::NAME, w.dims)?;
        same_dims(Self::NAME, &[columns], v.dims)?;
        let row = |at: usize| T::from_f64(dot(&w.data[at * columns..][..columns], v.data));
        Ok((fill(rows, 1, |at, out| out[0] = row(at)), Shape::from(rows)))
    }
    fn device<M: Machine>(&self, m: &M, w: Array, v: Array) -> MadeOn<M> {
        let [rows, columns] = matrix(Self::NAME, w.dims)?;
        same_dims(Self::NAME, &[columns], v.dims)?;
        reduced(m, Self::NAME, rows, [w.at, columns as u64, v.at])
    }
}

/// Wᵀ·u.
struct TransposedTimes;

impl Op2 for TransposedTimes {
    const NAME: &'static str = "transposed_matrix_times_vector";
    fn cpu<T: Real>(&self, w: View<T>, u: View<T>) -> Made<T> {
        let [rows, columns] = matrix(Self::NAME, w.dims)?;
        same_dims(Self::NAME, &[rows], u.dims)?;
        let out = fill(columns, COLUMNS, |at, out| {
            out.fill(T::ZERO);
            for (row, &u) in w.data.chunks_exact(columns).zip(u.data) {
                for (o, &w) in out.iter_mut().zip(&row[at..]) {
                    *o += u * w;
                }
            }
        });
        Ok((out, Shape::from(columns)))
    }
    fn device<M: Machine>(&self, m: &M, w: Array, u: Array) -> MadeOn<M> {
        let [rows, columns] = matrix(Self::NAME, w.dims)?;
        same_dims(Self::NAME, &[rows], u.dims)?;
        weighted_rows(m, [rows, columns], w.at, u.at, 1)
    }
}

/// Σ of the products of two tensors' elements.
struct Inner;

impl Op2 for Inner {
    const NAME: &'static str = "inner_product";
    fn cpu<T: Real>(&self, a: View<T>, b: View<T>) -> Made<T> {
        same_dims(Self::NAME, a.dims, b.dims)?;
        let parts = fill(a.data.len().div_ceil(GRAIN), 1, |at, out| {
            let range = at * GRAIN..((at + 1) * GRAIN).min(a.data.len());
            out[0] = T::from_f64(dot(&a.data[range.clone()], &b.data[range]));
        });
        Ok((vec![T::from_f64(parts.iter().map(|p| p.to_f64()).sum())], Shape::from(1)))
    }
    fn device<M: Machine>(&self, m: &M, a: Array, b: Array) -> MadeOn<M> {
        same_dims(Self::NAME, a.dims, b.dims)?;
        dot_on(m, a.len(), a.at, b.at)
    }
}

/// (G − u vᵀ)·s of u `[rows]`, v `[columns]` and s, one after the other.
struct PullBack;

impl Op2 for PullBack {
    const NAME: &'static str = "spectral_pull_back";
    fn cpu<T: Real>(&self, g: View<T>, uvs: View<T>) -> Made<T> {
        let [rows, columns] = matrix(Self::NAME, g.dims)?;
        same_dims(Self::NAME, &[rows + columns + 1], uvs.dims)?;
        let (u, vs) = uvs.data.split_at(rows);
        let s = vs[columns];
        let out = fill(rows * columns, columns, |at, out| {
            let u = u[at / columns];
            for ((o, &g), &v) in out.iter_mut().zip(&g.data[at..]).zip(vs) {
                *o = (g - u * v) * s;
            }
        });
        Ok((out, Shape::from(g.dims)))
    }
    fn device<M: Machine>(&self, m: &M, g: Array, uvs: Array) -> MadeOn<M> {
        let [rows, columns] = matrix(Self::NAME, g.dims)?;
        same_dims(Self::NAME, &[rows + columns + 1], uvs.dims)?;
        made(m, Self::NAME, g.dims, [g.at, columns as u64, uvs.at])
    }
}

fn unit(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    let norm = x.sqr()?.sum_all()?.sqrt()?;
    let floor = (norm.zeros_like()? + epsilon)?;
    x.broadcast_mul(&norm.maximum(&floor)?.recip()?)
}

impl Spectral {
    /// Declares the vectors of the weight `name` of `shape` under PyTorch's names.
    pub fn declare(buffers: &mut Builder, name: &str, shape: &[usize], epsilon: f64) -> Self {
        let rest = shape[1..].iter().product();
        Self {
            u: buffers.add(format!("{name}.weight_u"), &shape[..1], Init::UnitVector),
            v: buffers.add(format!("{name}.weight_v"), &[rest], Init::UnitVector),
            epsilon,
        }
    }
}

/// What a pass does about the vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// It takes them as they are: PyTorch's evaluation mode.
    Still,
    /// It takes a power iteration and forgets it. Averaged vectors have lost their length, which this gives back.
    Once,
    /// It takes a power iteration, which moves them: training mode.
    Moving,
}

impl Weight {
    /// The weight of a layer from the stored one.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of(stored: &Tensor, spectral: Option<&Spectral>, buffers: &Store, power: Power) -> Result<Self> {
        let Some(of) = spectral else { return Ok(Self { w: stored.clone(), normalised: None }) };
        let matrix = stored.flatten_from(1)?;
        let (mut u, mut v) = (buffers.get(of.u)?.copy()?, buffers.get(of.v)?.copy()?);
        if power != Power::Still {
            v = unit(&apply2(&TransposedTimes, &matrix, &u)?, of.epsilon)?;
        }
        let wv = apply2(&Times, &matrix, &v)?;
        if power != Power::Still {
            u = unit(&wv, of.epsilon)?;
        }
        if power == Power::Moving {
            buffers.set(of.u, &u)?;
            buffers.set(of.v, &v)?;
        }
        let inverse = (&u * &wv)?.sum_all()?.recip()?;
        let w = stored.broadcast_mul(&inverse)?;
        Ok(Self { w: w.clone(), normalised: Some(Normalised { w, u, v, inverse }) })
    }

    /// ∂L/∂W of the stored weight, `[O, rest]` or its shape, from ∂L/∂W̄: (∂L/∂W̄ − ⟨∂L/∂W̄, W̄⟩·u vᵀ)/σ.
    ///
    /// # Errors
    /// When the gradient has another shape.
    pub fn pull_back(&self, gradient: &Tensor) -> Result<Tensor> {
        let Some(n) = &self.normalised else { return Ok(gradient.clone()) };
        let gradient = gradient.flatten_from(1)?;
        let inner = apply2(&Inner, &gradient, &n.w.flatten_from(1)?)?;
        let uvs = Tensor::cat(&[&n.u.broadcast_mul(&inner)?, &n.v, &n.inverse.unsqueeze(0)?], 0)?;
        apply2(&PullBack, &gradient, &uvs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{central_difference, device, dot as inner, random, tensors_close};
    use crate::rng::Stream;
    use candle_core::DType;

    #[test]
    fn products_are_those_of_matrices() {
        let (w, u, v) = (random("w", &[37, 1100]), random("u", &[37]), random("v", &[1100]));
        let times = w.matmul(&v.unsqueeze(1).unwrap()).unwrap().squeeze(1).unwrap();
        tensors_close(&apply2(&Times, &w, &v).unwrap(), &times, 1e-13);
        let transposed = u.unsqueeze(0).unwrap().matmul(&w).unwrap().squeeze(0).unwrap();
        tensors_close(&apply2(&TransposedTimes, &w, &u).unwrap(), &transposed, 1e-13);
        assert!(apply2(&Times, &w, &u).is_err());
    }

    #[test]
    fn the_pulled_back_gradient_is_a_central_difference() {
        let mut buffers = Builder::default();
        let spectral = Spectral::declare(&mut buffers, "layer", &[5, 4, 3, 3], 1e-12);
        let buffers = buffers.build(&mut Stream::new(0, "spectral", 0), DType::F64, device()).unwrap();
        let (w, g) = (random("w", &[5, 4, 3, 3]), random("g", &[5, 4, 3, 3]));
        let of = |w: &Tensor| Weight::of(w, Some(&spectral), &buffers, Power::Still);
        let gradient = of(&w).unwrap().pull_back(&g).unwrap().reshape(w.dims()).unwrap();
        central_difference(|w| Ok(inner(&of(w)?.w, &g)), &w, &random("v", w.dims()), &gradient);
        // Many iterations find the largest singular value: the normalised matrix has norm one.
        (0..200).for_each(|_| drop(Weight::of(&w, Some(&spectral), &buffers, Power::Moving).unwrap()));
        let bar = of(&w).unwrap().w.flatten_from(1).unwrap();
        let x = random("x", &[36]);
        let length = |t: &Tensor| inner(t, t).sqrt();
        assert!(length(&apply2(&Times, &bar, &x).unwrap()) <= length(&x) * (1.0 + 1e-9));
    }
}
