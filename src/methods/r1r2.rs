//! R1 and R2: f̂ = f, plus γ/2·E‖∇f(x)‖² on real images and as much on generated ones (Huang et al., "The GAN is dead; long live the
//! GAN! A Modern GAN Baseline", 2024).

use super::{Method, ZeroCentred};

pub(super) struct R1R2;

impl Method for R1R2 {
    fn id(&self) -> &'static str {
        "r1r2"
    }

    fn zero_centred(&self) -> Option<ZeroCentred> {
        Some(ZeroCentred::Both)
    }
}
