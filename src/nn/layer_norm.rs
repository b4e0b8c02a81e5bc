//! Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450), forward only: what the Vision Transformers need.
//!
//! Legend: C channels of a vector.

use candle_core::{Device, Result, Shape, Tensor, bail};

use super::op::{Made, Op, View, apply};
use crate::machine::call::Array;
use crate::machine::cpu::parallel::{GRAIN, fill};
use crate::machine::cpu::real::{Loop, Real, compiled};
use crate::machine::cpu::rows::sum;
use crate::machine::tape::Tape;
use crate::words;

/// `γ·(x − mean)/√(variance + ε) + β` over the channels of each vector.
pub struct LayerNorm {
    gamma: Tensor,
    beta: Tensor,
    epsilon: f64,
}

struct Run {
    epsilon: f64,
}

impl Run {
    const NAME: &'static str = "layer_norm";

    fn check(&self, [x, gamma, beta]: [&[usize]; 3]) -> Result<usize> {
        match x.last() {
            Some(&c) if c > 0 && gamma == [c] && beta == [c] => Ok(c),
            _ => bail!("{}: vectors {x:?}, γ {gamma:?} and β {beta:?} do not fit", Self::NAME),
        }
    }
}

/// One vector.
struct Normalise<'a, T> {
    x: &'a [T],
    gamma: &'a [T],
    beta: &'a [T],
    epsilon: T,
    out: &'a mut [T],
}

impl<T: Real> Loop for Normalise<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run(self) {
        let share = T::from_f64(1.0 / self.x.len() as f64);
        let mean = sum(self.x, |x| x) * share;
        let variance = sum(self.x, |x| (x - mean) * (x - mean)) * share;
        let scale = T::ONE / (variance + self.epsilon).sqrt();
        let affine = self.gamma.iter().zip(self.beta);
        for ((o, &x), (&gamma, &beta)) in self.out.iter_mut().zip(self.x).zip(affine) {
            *o = (x - mean) * scale * gamma + beta;
        }
    }
}

impl Op<3> for Run {
    const NAME: &'static str = Self::NAME;
    fn cpu<T: Real>(&self, [x, gamma, beta]: [View<T>; 3]) -> Made<T> {
        let c = self.check([x.dims, gamma.dims, beta.dims])?;
        let epsilon = T::from_f64(self.epsilon);
        let out = fill(x.data.len(), (GRAIN / c).max(1) * c, |at, out: &mut [T]| {
            for (out, x) in out.chunks_exact_mut(c).zip(x.data[at..].chunks_exact(c)) {
                compiled(Normalise { x, gamma: gamma.data, beta: beta.data, epsilon, out });
            }
        });
        Ok((out, Shape::from(x.dims)))
    }
    fn device(&self, tape: &Tape, [x, gamma, beta]: [Array; 3]) -> Result<Tensor> {
        let c = self.check([x.dims, gamma.dims, beta.dims])?;
        let out = tape.alloc(x.dims)?;
        tape.blocks(Self::NAME, x.len() / c, words![tape.memory(&out)?, x, c, gamma, beta, self.epsilon])?;
        Ok(out)
    }
}

impl LayerNorm {
    /// Of γ and β `[C]` and ε, to compute on a device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn new(gamma: &Tensor, beta: &Tensor, epsilon: f64, device: &Device) -> Result<Self> {
        Ok(Self { gamma: gamma.to_device(device)?, beta: beta.to_device(device)?, epsilon })
    }

    /// Vectors `[…, C]` → `[…, C]`.
    ///
    /// # Errors
    /// On vectors of another length, non-contiguous tensors or another dtype than γ's.
    pub fn run(&self, x: &Tensor) -> Result<Tensor> {
        apply(&Run { epsilon: self.epsilon }, [x, &self.gamma, &self.beta])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{close, device, on_device, random, values};

    #[test]
    fn it_is_the_definition() {
        for c in [1, 5, 70, 300] {
            let [gamma, beta] = ["gamma", "beta"].map(|name| random(name, &[c]));
            let x = random("x", &[3, 4, c]);
            let norm = LayerNorm::new(&gamma, &beta, 1e-3, device()).unwrap();
            let out = norm.run(&x).unwrap();
            on_device(&out);
            let (x, out, gamma, beta) = (values(&x), values(&out), values(&gamma), values(&beta));
            for (x, out) in x.chunks(c).zip(out.chunks(c)) {
                let mean = x.iter().sum::<f64>() / c as f64;
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
                for k in 0..c {
                    close(out[k], (x[k] - mean) / (variance + 1e-3).sqrt() * gamma[k] + beta[k], 1e-13);
                }
            }
        }
        let norm = LayerNorm::new(&random("gamma", &[4]), &random("beta", &[4]), 1e-3, device()).unwrap();
        assert!(norm.run(&random("x", &[3, 5])).is_err());
    }
}
