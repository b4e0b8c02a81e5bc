//! Penalty gradient normalisation: f̂ = (1 − f) / (‖**1** − g‖ + |1 − f|), **1** − g entry by entry, as the paper's
//! released code computes it. The norm tends to √(3HW) as g → 0, and f̂ falls as f rises.

use candle_core::{Result, Tensor, bail};

use super::{Method, Normalised, bounded_ratio};

pub(super) struct PenaltyGradientNorm;

impl Method for PenaltyGradientNorm {
    fn id(&self) -> &'static str {
        "pgn"
    }

    fn gradient_target(&self) -> Option<f64> {
        Some(1.0)
    }

    fn normalise(&self, f: &Tensor, norm: Option<&Tensor>) -> Result<Normalised> {
        let Some(norm) = norm else { bail!("pgn needs the gradient's norm") };
        one_minus_f(f, norm)
    }

    fn takes_cr(&self) -> bool {
        true
    }
}

/// (1 − f) / (n + |1 − f|).
pub(super) fn one_minus_f(f: &Tensor, norm: &Tensor) -> Result<Normalised> {
    let [f_hat, by_a, by_norm] = bounded_ratio(&(1.0 - f)?, norm)?;
    Ok(Normalised { f_hat, by_f: by_a.neg()?, by_norm: Some(by_norm) })
}
