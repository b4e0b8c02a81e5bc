//! Zero-centred gradient penalty: f̂ = f, plus λ·E‖∇f(x̃)‖² on x̃ = εx + (1 − ε)G(z), λ = 10 (Thanh-Tung, Tran and
//! Venkatesh, "Improving Generalization and Stability of GANs", 2019).

use candle_core::{Result, Tensor};

use super::Method;

pub(super) struct ZeroGradientPenalty;

impl Method for ZeroGradientPenalty {
    fn id(&self) -> &'static str {
        "gp0"
    }

    fn penalises(&self) -> bool {
        true
    }

    fn penalty(&self, norm: &Tensor) -> Option<Result<[Tensor; 2]>> {
        Some(norm.sqr().and_then(|p| Ok([p, (norm * 2.0)?])))
    }
}
