//! Zero-centred gradient penalty: f̂ = f, plus λ·E‖∇f(x̃)‖² on x̃ = εx + (1 − ε)G(z), λ = 10 (Thanh-Tung, Tran and
//! Venkatesh, "Improving Generalization and Stability of GANs", 2019).

use super::{Method, Penalty};

pub(super) struct ZeroGradientPenalty;

impl Method for ZeroGradientPenalty {
    fn id(&self) -> &'static str {
        "gp0"
    }

    fn penalty(&self) -> Option<Penalty> {
        Some(Penalty { centre: 0.0 })
    }
}
