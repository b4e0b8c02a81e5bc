//! Gradient normalisation: f̂ = f / (‖g‖ + |f|) (Wu et al., "Gradient Normalization for Generative Adversarial Networks",
//! 2021).

use super::{Bounded, Method, Normalisation};

pub(super) struct GradientNorm;

impl Method for GradientNorm {
    fn id(&self) -> &'static str {
        "gn"
    }

    fn normalisation(&self) -> Option<Normalisation> {
        Some(Normalisation { target: 0.0, of: Bounded::Output })
    }

    fn takes_more(&self) -> bool {
        true
    }
}
