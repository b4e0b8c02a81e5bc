//! Penalties on the norm of the gradient: at images between real and generated ones, and at these themselves.

use candle_core::{DType, Result, Tensor};

use super::normalisation::{Normalisation, Normalised, over_norm};
use crate::critic::Cotangents;
use crate::nn::op::{either, number, same_dims};
use crate::words;

/// Weight of the gradient penalties in the paper.
pub const PENALTY_WEIGHT: f64 = 10.0;

/// A penalty λ·E(‖g‖ − k)² on interpolated images.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Penalty {
    /// k.
    pub centre: f64,
}

/// What a penalty is and how it changes the gradient.
pub struct Penalised {
    /// The penalty, without dimensions.
    pub value: Tensor,
    /// E‖g‖, without dimensions.
    pub norm: Tensor,
    /// Derivatives of the penalty, or of the loss with it.
    pub cotangents: Cotangents,
}

impl Penalty {
    /// The penalty of ‖g‖² `[N]`, λ the paper's.
    ///
    /// # Errors
    /// When the device fails.
    pub fn apply(&self, squared_norm: &Tensor) -> Result<Penalised> {
        let n = squared_norm.elem_count();
        let cpu = || {
            let norm = squared_norm.sqrt()?;
            let (value, by_norm) = match self.centre {
                0.0 => (norm.sqr()?, (&norm * 2.0)?),
                k => {
                    let off = (&norm - k)?;
                    (off.sqr()?, (off * 2.0)?)
                }
            };
            let by_norm = (by_norm * (PENALTY_WEIGHT / n as f64))?;
            let mean = |t: &Tensor| t.mean_all()?.to_dtype(DType::F64);
            let cotangents = Cotangents { scale: over_norm(&by_norm, &norm)?, others: None };
            Ok(Penalised { value: (mean(&value)? * PENALTY_WEIGHT)?, norm: mean(&norm)?, cotangents })
        };
        either([squared_norm], cpu, |tape, [squared_norm]| {
            let (scale, value, norm) = (tape.alloc(&[n])?, tape.alloc(&[])?, tape.alloc(&[])?);
            let [to_scale, to_value, to_norm] = [tape.memory(&scale)?, tape.memory(&value)?, tape.memory(&norm)?];
            let words = words![n, squared_norm, self.centre, PENALTY_WEIGHT, to_scale, to_value, to_norm];
            tape.blocks("penalty", 1, words)?;
            Ok(Penalised { value, norm, cotangents: Cotangents { scale, others: None } })
        })
    }
}

/// A penalty γ/2·E‖∇f̂‖² on the images of the batch: since n and ∂f̂/∂f do not change around an image, ∇f̂ = (∂f̂/∂f)·g.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZeroCentred {
    /// On real images: R1 (Mescheder, Geiger and Nowozin 2018).
    Real,
    /// On real and on generated images, a mean over each: R1 and R2.
    Both,
}

/// What a critic call gives a zero-centred penalty.
pub struct OnBatch<'a> {
    /// f, `[N]`.
    pub f: &'a Tensor,
    /// ‖g‖², `[N]`.
    pub squared_norm: &'a Tensor,
    /// The normalisation and what it gave; without it f̂ = f.
    pub normalised: Option<(Normalisation, &'a Normalised)>,
}

impl ZeroCentred {
    /// The penalty, and the derivatives by f and g of a loss with it: `derivative` `[N]` is that of the loss by f̂, the first `real` images
    /// are the real ones, `gamma` has one element.
    ///
    /// # Errors
    /// When sizes differ.
    pub fn apply(self, at: &OnBatch, derivative: &Tensor, real: usize, gamma: &Tensor) -> Result<Penalised> {
        let n = derivative.elem_count();
        if real > n {
            candle_core::bail!("{real} real images of {n}")
        }
        let tensors = [derivative, at.f, at.squared_norm];
        let cpu = || self.on_cpu(at, derivative, real, gamma);
        either(tensors, cpu, |tape, [derivative, f, squared_norm]| {
            same_dims("zero_centred", &[n], f.dims)?;
            same_dims("zero_centred", &[n], squared_norm.dims)?;
            let (all, value, norm) = (tape.alloc(&[3, n])?, tape.alloc(&[])?, tape.alloc(&[])?);
            let [to_all, to_value, to_norm] = [tape.memory(&all)?, tape.memory(&value)?, tape.memory(&norm)?];
            let (both, gamma) = (self == Self::Both, tape.memory(gamma)?);
            let norms = at.normalised.map(|(_, of)| tape.memory(&of.norm)).transpose()?;
            let ([slope, offset], target) = line(at);
            let words = words![
                n,
                real,
                both,
                gamma,
                derivative,
                f,
                squared_norm,
                norms,
                slope,
                offset,
                target,
                to_all,
                to_value,
                to_norm
            ];
            tape.blocks("zero_centred", 1, words)?;
            let others = Some([all.get(0)?, all.get(2)?]);
            Ok(Penalised { value, norm, cotangents: Cotangents { scale: all.get(1)?, others } })
        })
    }

    fn on_cpu(self, at: &OnBatch, derivative: &Tensor, real: usize, gamma: &Tensor) -> Result<Penalised> {
        let values = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
        let (d, f, q) = (values(derivative)?, values(at.f)?, values(at.squared_norm)?);
        let norms = at.normalised.map(|(_, of)| values(&of.norm)).transpose()?;
        let ([slope, offset], target) = line(at);
        let (n, gamma) = (d.len(), number(gamma, 0)?);
        let [mut c, mut scale, mut shift] = [vec![0.0; n], vec![0.0; n], vec![0.0; n]];
        let mut value = 0.0;
        for i in 0..n {
            let penalised = i < real || self == Self::Both;
            let weight = if penalised { gamma / (if i < real { real } else { n - real }) as f64 } else { 0.0 };
            let of = Slopes::new(slope * f[i] + offset, slope, norms.as_ref().map(|norms| norms[i]));
            value += 0.5 * weight * of.by_f.powi(2) * q[i];
            c[i] = d[i] * of.by_f + weight * of.by_f * of.by_ff * q[i];
            let by_norm = (d[i] * of.by_norm + weight * of.by_f * of.by_f_norm * q[i]) * of.over_norm;
            scale[i] = weight * of.by_f.powi(2) + by_norm;
            shift[i] = -by_norm * target;
        }
        let tensor = |of: Vec<f64>| Tensor::new(of, derivative.device())?.to_dtype(derivative.dtype());
        let scalar = |of: f64| Tensor::new(of, derivative.device());
        let norm = q.iter().map(|q| q.sqrt()).sum::<f64>() / n as f64;
        let cotangents = Cotangents { scale: tensor(scale)?, others: Some([tensor(c)?, tensor(shift)?]) };
        Ok(Penalised { value: scalar(value)?, norm: scalar(norm)?, cotangents })
    }
}

fn line(at: &OnBatch) -> ([f64; 2], f64) {
    at.normalised.map_or(([1.0, 0.0], 0.0), |(of, _)| (of.of.line(), of.target))
}

/// Derivatives of f̂ = a/(n + |a|), with a = ±f + offset; without n those of f̂ = f.
struct Slopes {
    by_f: f64,
    by_norm: f64,
    by_ff: f64,
    by_f_norm: f64,
    /// 1/n, zero where n is.
    over_norm: f64,
}

impl Slopes {
    fn new(a: f64, slope: f64, norm: Option<f64>) -> Self {
        let Some(n) = norm else {
            return Self { by_f: 1.0, by_norm: 0.0, by_ff: 0.0, by_f_norm: 0.0, over_norm: 0.0 };
        };
        let denominator = n + a.abs();
        Self {
            by_f: slope * n / denominator.powi(2),
            by_norm: -a / denominator.powi(2),
            by_ff: -2.0 * n * a.signum() / denominator.powi(3),
            by_f_norm: slope * (a.abs() - n) / denominator.powi(3),
            over_norm: if n > 0.0 { 1.0 / n } else { 0.0 },
        }
    }
}
