//! What the passes of a critic leave for one another.

use candle_core::{Result, Tensor, bail};

use super::Critic;
use crate::nn::activation::add;
use crate::nn::augment::{augment_adjoint, augment_linear};
use crate::nn::image::{add_scaled_bias, combine_images, ones, scale_images};
use crate::nn::weight::Weight;

/// The forward pass: what the other passes read.
pub struct Forward {
    /// Output `[N, outputs]`.
    pub f: Tensor,
    pub(super) input: Tensor,
    /// What was done to the images before.
    pub(super) augmentation: Option<Tensor>,
    /// One row a image, a one at its class.
    pub(super) labels: Option<Tensor>,
    pub(super) weights: Vec<(Weight, Option<Tensor>)>,
    /// Input of each affine and global-pooling layer, output of each activation, by slot.
    pub(super) kept: Vec<Option<Tensor>>,
}

impl Forward {
    /// The critic's scalar per image, `[N]`.
    ///
    /// # Errors
    /// When the network has more than one output.
    pub fn scalar(&self) -> Result<Tensor> {
        self.f.squeeze(1)
    }

    /// Bytes that the pass keeps for those that follow.
    pub fn kept_bytes(&self) -> usize {
        bytes_of(self.kept.iter().flatten())
    }

    /// Input of the affine layer that ends the network, flattened to `[N, features]`.
    ///
    /// # Errors
    /// When none does.
    pub fn features(&self, critic: &Critic) -> Result<Tensor> {
        match critic.net.head.and_then(|slot| self.kept[slot].as_ref()) {
            Some(h) => h.flatten_from(1),
            None => bail!("the network does not end in an affine layer"),
        }
    }

    /// A gradient in the critic's input as that in the images that came.
    pub(super) fn before(&self, gradient: Tensor) -> Result<Tensor> {
        match &self.augmentation {
            Some(by) => augment_adjoint(&gradient, by),
            None => Ok(gradient),
        }
    }

    /// cᵢ·xᵢ + vᵢ at the critic's input, with vᵢ = sᵢ·gᵢ + tᵢ of the images that came.
    pub(super) fn start(&self, g: &Tensor, s: &Tensor, others: Option<&[Tensor; 2]>) -> Result<Tensor> {
        match (others, &self.augmentation) {
            (None, None) => scale_images(g, s),
            (Some([c, t]), None) => combine_images([&self.input, g], [c, s, t]),
            (None, Some(by)) => augment_linear(&scale_images(g, s)?, by),
            (Some([c, t]), Some(by)) => {
                let channels = g.dims().last().copied().unwrap_or(1);
                let v = add_scaled_bias(&scale_images(g, s)?, t, &ones(channels, g)?)?;
                add(&scale_images(&self.input, c)?, &augment_linear(&v, by)?)
            }
        }
    }
}

/// The adjoint pass from a seed of one per image.
pub struct Linear {
    /// gᵢ = ∇ₓf(xᵢ), `[N, H, W, C]`.
    pub gradient: Tensor,
    pub(super) deltas: Vec<Option<Tensor>>,
}

impl Linear {
    /// Bytes that the pass keeps for those that follow.
    pub fn kept_bytes(&self) -> usize {
        bytes_of(self.deltas.iter().flatten()) + bytes_of([&self.gradient])
    }
}

/// The derivatives of a loss by what the first two passes give.
pub struct Cotangents {
    /// sᵢ of ∂L/∂gᵢ = sᵢ·gᵢ + tᵢ, `[N]`.
    pub scale: Tensor,
    /// cᵢ = ∂L/∂fᵢ, and tᵢ, which is added to each entry of an image, both `[N]`; without them zero.
    pub others: Option<[Tensor; 2]>,
}

/// Bytes of tensors, each counted once.
pub(crate) fn bytes_of<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> usize {
    let mut seen = std::collections::HashSet::new();
    let fresh = tensors.into_iter().filter(|t| seen.insert(t.id()));
    fresh.map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use super::super::Critic;
    use super::Cotangents;
    use crate::nn::augment::{NUMBERS, drawn};
    use crate::nn::image::squared_distance;
    use crate::nn::store::overwrite;
    use crate::nn::testing::{central_difference, device, dot, random};
    use crate::rng::Stream;

    /// Σ cᵢ·fᵢ + ½·Σ sᵢ·‖gᵢ‖² + Σ tᵢ·Σ gᵢ.
    #[test]
    fn gradients_behind_an_augmentation_are_central_differences() {
        let mut stream = Stream::new(0, "pass", 0);
        let critic = Critic::new("cnn32", 0.03, 1, false, &mut stream, DType::F64, device()).unwrap();
        // Biases of zero would put black pixels on the kink of the activation.
        overwrite(critic.params.flat(), &(random("params", critic.params.flat().dims()) * 0.3).unwrap()).unwrap();
        let n = 4;
        let x = random("x", &[n, 32, 32, 3]);
        let by = Tensor::from_vec(drawn(&mut stream, n, 32, 1.0), (n, NUMBERS), device()).unwrap();
        let by = by.to_dtype(DType::F64).unwrap();
        let [c, s, t] = ["c", "s", "t"].map(|name| random(name, &[n]));
        let loss = |critic: &Critic, x: &Tensor| {
            let pass = critic.forward_augmented((x, Some(&by)), None, true)?;
            let g = critic.input_gradient(&pass)?;
            let sums = g.flatten_from(1)?.sum(1)?;
            Ok(dot(&c, &pass.scalar()?) + 0.5 * dot(&s, &squared_distance(&g, 0.0)?) + dot(&t, &sums))
        };
        let pass = critic.forward_augmented((&x, Some(&by)), None, true).unwrap();
        let linear = critic.linearise(&pass).unwrap();
        let gradients = critic.params.zeros_like().unwrap();
        let cotangents = Cotangents { scale: s.clone(), others: Some([c.clone(), t.clone()]) };
        critic.second_order(&pass, &linear, &cotangents, &gradients).unwrap();
        let params = critic.params.flat().clone();
        let v = random("v", params.dims());
        let at = |p: &Tensor| {
            overwrite(critic.params.flat(), p)?;
            loss(&critic, &x)
        };
        central_difference(at, &params.copy().unwrap(), &v, gradients.flat());
    }
}
