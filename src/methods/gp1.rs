//! One-centred gradient penalty: f̂ = f, plus λ·E(‖∇f(x̃)‖ − 1)² on x̃ = εx + (1 − ε)G(z), λ = 10, Wasserstein loss
//! (Gulrajani et al., "Improved Training of Wasserstein GANs", 2017).

use super::{Method, Penalty};
use crate::losses::Loss;

pub(super) struct OneGradientPenalty;

impl Method for OneGradientPenalty {
    fn id(&self) -> &'static str {
        "gp1"
    }

    fn penalty(&self) -> Option<Penalty> {
        Some(Penalty { centre: 1.0 })
    }

    fn loss(&self) -> Option<Loss> {
        Some(Loss::Wasserstein)
    }
}
