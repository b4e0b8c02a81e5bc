//! Normalisations by the gradient, and what they make of a loss's derivatives.

use candle_core::{Result, Tensor};

use crate::critic::Cotangents;
use crate::nn::op::{either, same_dims};
use crate::words;

/// f̂ and its partial derivatives, all `[N]`.
pub struct Normalised {
    /// f̂.
    pub f_hat: Tensor,
    /// ∂f̂/∂f.
    pub by_f: Tensor,
    /// ∂f̂/∂n.
    pub by_norm: Tensor,
    /// n.
    pub norm: Tensor,
}

/// A normalisation by the gradient: f̂ = a/(n + |a|) with n = ‖g − t‖.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Normalisation {
    /// t, subtracted from every entry of g.
    pub target: f64,
    /// What is bounded.
    pub of: Bounded,
}

/// What a normalisation bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bounded {
    /// a = f.
    Output,
    /// a = 1 − f.
    OneMinusOutput,
}

impl Bounded {
    /// Slope and offset of a as a function of f.
    pub fn line(self) -> [f64; 2] {
        match self {
            Self::Output => [1.0, 0.0],
            Self::OneMinusOutput => [-1.0, 1.0],
        }
    }
}

impl Normalisation {
    /// f̂ of f `[N]` and n² `[N]`.
    ///
    /// # Errors
    /// When their sizes differ.
    pub fn apply(&self, f: &Tensor, squared_norm: &Tensor) -> Result<Normalised> {
        let [slope, offset] = self.of.line();
        let cpu = || {
            let norm = squared_norm.sqrt()?;
            let a = if self.of == Bounded::Output { f.clone() } else { (1.0 - f)? };
            let denominator = (&norm + a.abs()?)?;
            let square = denominator.sqr()?;
            let by_a = (&norm / &square)?;
            Ok(Normalised {
                f_hat: (&a / &denominator)?,
                by_f: if slope < 0.0 { by_a.neg()? } else { by_a },
                by_norm: (a / square)?.neg()?,
                norm,
            })
        };
        either([f, squared_norm], cpu, |tape, [f, squared_norm]| {
            let n = f.len();
            same_dims("bounded_ratio", &[n], squared_norm.dims)?;
            let all = tape.alloc(&[4, n])?;
            tape.each("bounded_ratio", n, words![tape.memory(&all)?, f, squared_norm, slope, offset])?;
            Ok(Normalised { f_hat: all.get(0)?, by_f: all.get(1)?, by_norm: all.get(2)?, norm: all.get(3)? })
        })
    }

    /// A loss's derivatives by f and g from that by f̂, `[N]`.
    ///
    /// # Errors
    /// When sizes differ.
    pub fn cotangents(&self, derivative: &Tensor, at: &Normalised) -> Result<Cotangents> {
        let cpu = || {
            let scale = over_norm(&(derivative * &at.by_norm)?, &at.norm)?;
            let offset = (&scale * -self.target)?;
            Ok(Cotangents { scale, others: Some([(derivative * &at.by_f)?, offset]) })
        };
        either([derivative, &at.by_f, &at.by_norm, &at.norm], cpu, |tape, [derivative, by_f, by_norm, norm]| {
            let n = derivative.len();
            same_dims("cotangents", &[n], by_f.dims)?;
            let all = tape.alloc(&[3, n])?;
            let words = words![tape.memory(&all)?, derivative, by_f, by_norm, norm, self.target];
            tape.each("cotangents", n, words)?;
            Ok(Cotangents { scale: all.get(1)?, others: Some([all.get(0)?, all.get(2)?]) })
        })
    }
}

/// The derivative by a norm n = ‖g − t‖ as a multiple of g − t, `[N]`; zero where n is.
pub(super) fn over_norm(by_norm: &Tensor, norm: &Tensor) -> Result<Tensor> {
    let floor = (norm.zeros_like()? + f64::from(f32::MIN_POSITIVE))?;
    by_norm / norm.maximum(&floor)?
}
