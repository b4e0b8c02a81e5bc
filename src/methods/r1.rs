//! R1: f̂ = f, plus γ/2·E‖∇f(x)‖² on real images (Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually
//! Converge?", 2018).

use super::{Method, ZeroCentred};

pub(super) struct R1;

impl Method for R1 {
    fn id(&self) -> &'static str {
        "r1"
    }

    fn zero_centred(&self) -> Option<ZeroCentred> {
        Some(ZeroCentred::Real)
    }
}
