//! Gradient normalisation: f̂ = f / (‖g‖ + |f|) (Wu et al., "Gradient Normalization for Generative Adversarial Networks",
//! 2021).

use candle_core::{Result, Tensor, bail};

use super::{Method, Normalised, bounded_ratio};

pub(super) struct GradientNorm;

impl Method for GradientNorm {
    fn id(&self) -> &'static str {
        "gn"
    }

    fn gradient_target(&self) -> Option<f64> {
        Some(0.0)
    }

    fn normalise(&self, f: &Tensor, norm: Option<&Tensor>) -> Result<Normalised> {
        let Some(norm) = norm else { bail!("gn needs the gradient's norm") };
        let [f_hat, by_f, by_norm] = bounded_ratio(f, norm)?;
        Ok(Normalised { f_hat, by_f, by_norm: Some(by_norm) })
    }

    fn takes_cr(&self) -> bool {
        true
    }
}
