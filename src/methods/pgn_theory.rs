//! What the proof in the paper's Appendix A needs of penalty gradient normalisation: f̂ = (1 − f) / (‖g‖ + |1 − f|), since
//! ∇(1 − f) = −g.

use super::{Bounded, Method, Normalisation};

pub(super) struct PgnTheory;

impl Method for PgnTheory {
    fn id(&self) -> &'static str {
        "pgn-theory"
    }

    fn normalisation(&self) -> Option<Normalisation> {
        Some(Normalisation { target: 0.0, of: Bounded::OneMinusOutput })
    }
}
