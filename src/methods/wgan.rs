//! WGAN with weight clipping: f̂ = f, every critic weight clipped to [−0.01, 0.01] after each update, Wasserstein loss
//! (Arjovsky, Chintala and Bottou 2017).

use super::Method;
use crate::losses::Loss;

pub(super) struct Wgan;

impl Method for Wgan {
    fn id(&self) -> &'static str {
        "wgan"
    }

    fn clip(&self) -> Option<f64> {
        Some(0.01)
    }

    fn loss(&self) -> Option<Loss> {
        Some(Loss::Wasserstein)
    }
}
