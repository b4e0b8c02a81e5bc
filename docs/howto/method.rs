//! Gradient normalisation of a critic whose weights are spectrally normalised: f̂ = f / (‖g‖ + |f|), each weight W as W/σ(W).

use super::{Bounded, Method, Normalisation};

pub(super) struct SpectralGradientNorm;

impl Method for SpectralGradientNorm {
    fn id(&self) -> &'static str {
        "sgn"
    }

    fn spectral(&self) -> bool {
        true
    }

    fn normalisation(&self) -> Option<Normalisation> {
        Some(Normalisation { target: 0.0, of: Bounded::Output })
    }
}
