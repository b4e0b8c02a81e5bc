//! A linear layer whose weight is brought into the loops' order once, not at each call.

use candle_core::{Device, Result, Shape, Tensor, bail};

use super::{Then, check_bias, device};
use crate::machine::call::Array;
use crate::machine::convolution::{ConvSpec, Dims};
use crate::machine::cpu::kernel::ROWS;
use crate::machine::cpu::panels::{Rows, multiply, pack, side_by_side};
use crate::machine::cpu::parallel::{fill, threads};
use crate::machine::cpu::real::Real;
use crate::machine::current::is_machine;
use crate::machine::tape::Tape;
use crate::nn::kernel::Next;
use crate::nn::op::{Made, Op, View, apply};

/// `x·Wᵀ + b` with W `[O, I]`, for good: its weight is not changed.
pub struct Linear {
    /// `[O, I]` on a device, as the loops take it on the CPU.
    weight: Tensor,
    bias: Tensor,
    shape: [usize; 2],
}

const NAME: &str = "linear";
/// Elements of the shorter of vectors and results that a task works on at a time: 1 MiB in f32, which stays in the second cache.
const GATHERED: usize = 1 << 18;

/// Geometry of `n` rows of `tokens` vectors.
fn dims(n: usize, tokens: usize, [o, i]: [usize; 2]) -> Result<Dims> {
    Dims::new(NAME, n, [1, tokens], [o, i, 1, 1], ConvSpec::new(1, 0))
}

struct Pack([usize; 2]);

impl Op<1> for Pack {
    const NAME: &'static str = NAME;
    fn cpu<T: Real>(&self, [w]: [View<T>; 1]) -> Made<T> {
        let [o, i] = self.0;
        let packed = pack([i, o], |row| &w.data[row * i..][..i]);
        let len = packed.len();
        Ok((packed, Shape::from(len)))
    }
}

struct Run<'a> {
    shape: [usize; 2],
    then: Then<'a>,
}

impl Run<'_> {
    fn dims(&self, x: &[usize], bias: &[usize]) -> Result<Dims> {
        let &[n, tokens, i] = x else { bail!("{NAME}: expected vectors [N, T, I], got {x:?}") };
        check_bias(NAME, bias, self.shape[0])?;
        if i != self.shape[1] {
            bail!("{NAME}: vectors of {i} numbers, expected {}", self.shape[1])
        }
        dims(n, tokens, self.shape)
    }
}

impl Op<3> for Run<'_> {
    const NAME: &'static str = NAME;
    fn cpu<T: Real>(&self, [x, w, b]: [View<T>; 3]) -> Made<T> {
        let d = self.dims(x.dims, b.dims)?;
        let ([o, i], rows) = (self.shape, d.n * d.output[1]);
        // Whatever the tasks, sums are the same.
        let tasks = rows.div_ceil((GATHERED / i.min(o)).max(1)).next_multiple_of(threads()).max(1);
        let group = rows.div_ceil(tasks).next_multiple_of(ROWS);
        let run = |finish: &(dyn Fn(usize, &mut [T]) + Sync)| {
            fill(rows * o, group * o, |at, out: &mut [T]| {
                let (copied, pixels) = side_by_side(&x.data[at / o * i..][..out.len() / o * i], i, o);
                let rows = Rows { pixels: &pixels, input: copied.as_ptr(), apart: pixels.len() };
                // SAFETY: a row of `out` for each of the rows.
                unsafe { multiply(&rows, (w.data, [i, o]), Some(b.data), out.as_mut_ptr()) };
                finish(at, out);
            })
        };
        Ok((self.then.run(NAME, d.output_dims(), run)?, Shape::from((d.n, d.output[1], o))))
    }
    fn device(&self, tape: &Tape, [x, w, b]: [Array; 3]) -> Result<Tensor> {
        let d = self.dims(x.dims, b.dims)?;
        let plus = match self.then {
            Then::Sum { plus: Some(plus), .. } => Some(plus.reshape(&d.output_dims()[..])?),
            _ => None,
        };
        let then = match self.then {
            Then::Sum { noted, .. } => Then::Sum { plus: plus.as_ref(), noted },
            then => then,
        };
        device::forward(tape, &d, [x, w], Some(b), (&then, Next::Any))?.reshape((d.n, d.output[1], d.o))
    }
}

impl Linear {
    /// Of a weight `[O, I]` and a bias `[O]` (absent: zero), to compute on a device.
    ///
    /// # Errors
    /// On other shapes, or when the device fails.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, device: &Device) -> Result<Self> {
        let (o, i) = weight.dims2()?;
        if o * i == 0 {
            bail!("{NAME}: an empty weight [{o}, {i}]")
        }
        let zero = || Tensor::zeros(o, weight.dtype(), weight.device());
        let bias = bias.map_or_else(zero, |b| Ok(b.clone()))?.to_device(device)?;
        check_bias(NAME, bias.dims(), o)?;
        let weight = weight.contiguous()?.to_device(device)?;
        let weight = if is_machine(device)? { weight } else { apply(&Pack([o, i]), [&weight])? };
        Ok(Self { weight, bias, shape: [o, i] })
    }

    /// Vectors `[N, T, I]` → `[N, T, O]`, then something done to them.
    ///
    /// # Errors
    /// On other shapes, non-contiguous tensors or another dtype than the weight's.
    pub fn run(&self, x: &Tensor, then: Then<'_>) -> Result<Tensor> {
        apply(&Run { shape: self.shape, then }, [x, &self.weight, &self.bias])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::activation::Gelu;
    use crate::nn::testing::{close, device, random, tensors_close, values};

    /// Share of a standard normal below x, by Simpson's rule.
    fn below(x: f64) -> f64 {
        let (steps, density) = (4000, |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt());
        let h = x / f64::from(steps);
        let weight = |k: i32| {
            if k % 2 == 1 {
                4.0
            } else if k == 0 || k == steps {
                1.0
            } else {
                2.0
            }
        };
        0.5 + (0..=steps).map(|k| weight(k) * density(f64::from(k) * h)).sum::<f64>() * h / 3.0
    }

    #[test]
    fn it_is_the_matrix_product_and_what_follows() {
        for [n, tokens, i, o] in [[2, 7, 12, 67], [3, 1, 8, 3], [1, 130, 200, 40]] {
            let (x, w, b) = (random("x", &[n, tokens, i]), random("w", &[o, i]), random("b", &[o]));
            let rows = x.reshape((n * tokens, i)).unwrap();
            let product = rows.matmul(&w.t().unwrap()).unwrap().reshape((n, tokens, o)).unwrap();
            let sum = product.broadcast_add(&b).unwrap();
            let linear = Linear::new(&w, Some(&b), device()).unwrap();
            tensors_close(&linear.run(&x, Then::Nothing).unwrap(), &sum, 1e-14);
            let plus = random("plus", &[n, tokens, o]);
            let with = linear.run(&x, Then::Sum { plus: Some(&plus), noted: None }).unwrap();
            tensors_close(&with, &(&sum + &plus).unwrap(), 1e-14);
            let [normal, logistic] =
                [Gelu::Normal, Gelu::Logistic].map(|gelu| values(&linear.run(&x, Then::Gelu(gelu)).unwrap()));
            for ((x, normal), logistic) in values(&sum).into_iter().zip(normal).zip(logistic) {
                close(normal, x * below(x), 1e-13);
                close(logistic, x / (1.0 + (-1.702 * x).exp()), 1e-13);
            }
            tensors_close(&Linear::new(&w, None, device()).unwrap().run(&x, Then::Nothing).unwrap(), &product, 1e-14);
            assert!(linear.run(&random("x", &[n, tokens, i + 1]), Then::Nothing).is_err());
            assert!(Linear::new(&w, Some(&random("b", &[o + 1])), device()).is_err());
        }
    }
}
