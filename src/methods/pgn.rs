//! Penalty gradient normalisation: f̂ = (1 − f) / (‖**1** − g‖ + |1 − f|), **1** − g entry by entry, as the paper's
//! released code computes it. The norm tends to √(3HW) as g → 0, and f̂ falls as f rises.

use super::{Bounded, Method, Normalisation};

pub(super) struct PenaltyGradientNorm;

impl Method for PenaltyGradientNorm {
    fn id(&self) -> &'static str {
        "pgn"
    }

    fn normalisation(&self) -> Option<Normalisation> {
        Some(Normalisation { target: 1.0, of: Bounded::OneMinusOutput })
    }

    fn takes_more(&self) -> bool {
        true
    }
}
