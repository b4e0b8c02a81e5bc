//! What the proof in the paper's Appendix A needs of penalty gradient normalisation: f̂ = (1 − f) / (‖g‖ + |1 − f|), since
//! ∇(1 − f) = −g.

use candle_core::{Result, Tensor, bail};

use super::pgn::one_minus_f;
use super::{Method, Normalised};

pub(super) struct PgnTheory;

impl Method for PgnTheory {
    fn id(&self) -> &'static str {
        "pgn-theory"
    }

    fn gradient_target(&self) -> Option<f64> {
        Some(0.0)
    }

    fn normalise(&self, f: &Tensor, norm: Option<&Tensor>) -> Result<Normalised> {
        let Some(norm) = norm else { bail!("pgn-theory needs the gradient's norm") };
        one_minus_f(f, norm)
    }
}
