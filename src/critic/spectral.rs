//! Spectral normalisation (Miyato et al. 2018) as a reparametrisation outside the four passes: they see W̄ = W/σ with
//! σ = uᵀWv, W reshaped to `[O, rest]` and u, v from one power iteration, constant in the gradient.

use candle_core::{Result, Tensor};

use super::layer::Affine;
use crate::nn::store::Store;

/// Guard of the normalisation of u and v, as in PyTorch's `spectral_norm` for a critic.
const EPSILON: f64 = 1e-12;

/// What an affine layer multiplies with.
pub struct Weight {
    /// Effective weight `[O, I, Kh, Kw]`.
    pub w: Tensor,
    /// Bias `[O]`.
    pub bias: Tensor,
    normalised: Option<Normalised>,
}

struct Normalised {
    u: Tensor,
    v: Tensor,
    sigma: f64,
}

fn unit(x: &Tensor) -> Result<Tensor> {
    let norm = x.sqr()?.sum_all()?.sqrt()?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
    x / norm.max(EPSILON)
}

impl Weight {
    pub(super) fn of(affine: &Affine, params: &Store, buffers: &Store, training: bool) -> Result<Self> {
        let stored = params.get(affine.weight)?;
        let bias = params.get(affine.bias)?;
        let Some([u_id, v_id]) = affine.spectral else {
            return Ok(Self { w: stored.reshape(&affine.shape)?, bias, normalised: None });
        };
        let matrix = stored.flatten_from(1)?;
        let (mut u, mut v) = (buffers.get(u_id)?.copy()?, buffers.get(v_id)?.copy()?);
        if training {
            v = unit(&matrix.t()?.matmul(&u.unsqueeze(1)?)?.squeeze(1)?)?;
            u = unit(&matrix.matmul(&v.unsqueeze(1)?)?.squeeze(1)?)?;
            buffers.set(u_id, &u)?;
            buffers.set(v_id, &v)?;
        }
        let wv = matrix.matmul(&v.unsqueeze(1)?)?.squeeze(1)?;
        let sigma = (&u * &wv)?.sum_all()?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
        let w = (matrix / sigma)?.reshape(&affine.shape)?;
        Ok(Self { w, bias, normalised: Some(Normalised { u, v, sigma }) })
    }

    /// ∂L/∂W of the stored weight from ∂L/∂W̄: (∂L/∂W̄ − ⟨∂L/∂W̄, W̄⟩·u vᵀ)/σ.
    pub(super) fn pull_back(&self, gradient: &Tensor) -> Result<Tensor> {
        let Some(n) = &self.normalised else { return Ok(gradient.clone()) };
        let inner = (gradient * &self.w)?.sum_all()?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
        let outer = (n.u.unsqueeze(1)?.matmul(&n.v.unsqueeze(0)?)? * inner)?;
        (gradient.flatten_from(1)? - outer)? / n.sigma
    }
}
