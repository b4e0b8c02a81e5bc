//! Spectral normalisation: f̂ = f with each weight W of the critic replaced by W/σ(W) (Miyato et al. 2018).

use super::Method;

pub(super) struct SpectralNorm;

impl Method for SpectralNorm {
    fn id(&self) -> &'static str {
        "sn"
    }

    fn spectral(&self) -> bool {
        true
    }

    fn takes_more(&self) -> bool {
        true
    }
}
