//! Spectral normalisation (Miyato et al. 2018) as a reparametrisation outside the layers: they see W̄ = W/σ with σ = uᵀWv,
//! W reshaped to `[O, rest]` and u, v from one power iteration in each training pass, constant in the gradient.

use candle_core::{DType, Result, Tensor};

use super::init::Init;
use super::store::{Builder, Id, Store};

/// Vectors of the power iteration, in a store of buffers.
#[derive(Clone, Debug)]
pub struct Spectral {
    /// `[O]`.
    u: Id,
    /// `[rest]`.
    v: Id,
    /// Guard of the vectors' normalisation.
    epsilon: f64,
}

/// What a layer multiplies with.
pub struct Weight {
    /// Effective weight, as the layer takes it.
    pub w: Tensor,
    normalised: Option<Normalised>,
}

struct Normalised {
    w: Tensor,
    u: Tensor,
    v: Tensor,
    sigma: f64,
}

fn unit(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    let norm = scalar(&x.sqr()?.sum_all()?.sqrt()?)?;
    x / norm.max(epsilon)
}

fn scalar(t: &Tensor) -> Result<f64> {
    t.to_dtype(DType::F64)?.to_scalar()
}

impl Spectral {
    /// Declares the vectors of the weight `name` of `shape` under PyTorch's names.
    pub fn declare(buffers: &mut Builder, name: &str, shape: &[usize], epsilon: f64) -> Self {
        let rest = shape[1..].iter().product();
        Self {
            u: buffers.add(format!("{name}.weight_u"), &shape[..1], Init::UnitVector),
            v: buffers.add(format!("{name}.weight_v"), &[rest], Init::UnitVector),
            epsilon,
        }
    }
}

impl Weight {
    /// The weight of a layer from the stored one; `training` takes a power iteration, which moves the vectors.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of(stored: &Tensor, spectral: Option<&Spectral>, buffers: &Store, training: bool) -> Result<Self> {
        let Some(of) = spectral else { return Ok(Self { w: stored.clone(), normalised: None }) };
        let matrix = stored.flatten_from(1)?;
        let (mut u, mut v) = (buffers.get(of.u)?.copy()?, buffers.get(of.v)?.copy()?);
        if training {
            v = unit(&matrix.t()?.matmul(&u.unsqueeze(1)?)?.squeeze(1)?, of.epsilon)?;
            u = unit(&matrix.matmul(&v.unsqueeze(1)?)?.squeeze(1)?, of.epsilon)?;
            buffers.set(of.u, &u)?;
            buffers.set(of.v, &v)?;
        }
        let wv = matrix.matmul(&v.unsqueeze(1)?)?.squeeze(1)?;
        let sigma = scalar(&(&u * &wv)?.sum_all()?)?;
        let w = (stored / sigma)?;
        Ok(Self { w: w.clone(), normalised: Some(Normalised { w, u, v, sigma }) })
    }

    /// ∂L/∂W of the stored weight, `[O, rest]` or its shape, from ∂L/∂W̄: (∂L/∂W̄ − ⟨∂L/∂W̄, W̄⟩·u vᵀ)/σ.
    ///
    /// # Errors
    /// When the gradient has another shape.
    pub fn pull_back(&self, gradient: &Tensor) -> Result<Tensor> {
        let Some(n) = &self.normalised else { return Ok(gradient.clone()) };
        let inner = scalar(&(gradient.flatten_all()? * n.w.flatten_all()?)?.sum_all()?)?;
        let outer = (n.u.unsqueeze(1)?.matmul(&n.v.unsqueeze(0)?)? * inner)?;
        (gradient.flatten_from(1)? - outer)? / n.sigma
    }
}
