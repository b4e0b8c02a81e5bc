//! What is compared: ways to normalise, constrain or penalise a critic. One file each, its equation and source on top.
//!
//! Notation: f(x) the critic's output for one image, g = ∇ₓf(x), ‖·‖ the L2 norm over all entries of one image, f̂ what
//! enters the loss.

mod gn;
mod gp0;
mod gp1;
mod none;
mod pgn;
mod pgn_theory;
mod sn;
mod wgan;

use candle_core::{DType, Result, Tensor};

use crate::error::{self, Error};
use crate::losses::Loss;
use crate::nn::op::{either, same_dims};
use crate::words;

/// Weight of consistency regularisation in the paper.
pub const CR_WEIGHT: f64 = 5.0;
/// Weight of the gradient penalties in the paper.
pub const PENALTY_WEIGHT: f64 = 10.0;

/// f̂ and its partial derivatives, all `[N]`.
pub struct Normalised {
    /// f̂.
    pub f_hat: Tensor,
    /// ∂f̂/∂f.
    pub by_f: Tensor,
    /// ∂f̂/∂n.
    pub by_norm: Tensor,
    /// n.
    pub norm: Tensor,
}

/// A normalisation by the gradient: f̂ = a/(n + |a|) with n = ‖g − t‖.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Normalisation {
    /// t, subtracted from every entry of g.
    pub target: f64,
    /// What is bounded.
    pub of: Bounded,
}

/// What a normalisation bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bounded {
    /// a = f.
    Output,
    /// a = 1 − f.
    OneMinusOutput,
}

/// A penalty λ·E(‖g‖ − k)² on interpolated images.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Penalty {
    /// k.
    pub centre: f64,
}

/// What a penalty is and how it changes the gradient.
pub struct Penalised {
    /// λ·E(‖g‖ − k)², without dimensions.
    pub value: Tensor,
    /// E‖g‖, without dimensions.
    pub norm: Tensor,
    /// ∂value/∂gᵢ as a multiple of gᵢ, `[N]`; zero where gᵢ is.
    pub scale: Tensor,
}

impl Normalisation {
    /// f̂ of f `[N]` and n² `[N]`.
    ///
    /// # Errors
    /// When their sizes differ.
    pub fn apply(&self, f: &Tensor, squared_norm: &Tensor) -> Result<Normalised> {
        let (slope, offset) = match self.of {
            Bounded::Output => (1.0, 0.0),
            Bounded::OneMinusOutput => (-1.0, 1.0),
        };
        let cpu = || {
            let norm = squared_norm.sqrt()?;
            let a = if self.of == Bounded::Output { f.clone() } else { (1.0 - f)? };
            let denominator = (&norm + a.abs()?)?;
            let square = denominator.sqr()?;
            let by_a = (&norm / &square)?;
            Ok(Normalised {
                f_hat: (&a / &denominator)?,
                by_f: if slope < 0.0 { by_a.neg()? } else { by_a },
                by_norm: (a / square)?.neg()?,
                norm,
            })
        };
        either([f, squared_norm], cpu, |tape, [f, squared_norm]| {
            let n = f.len();
            same_dims("bounded_ratio", &[n], squared_norm.dims)?;
            let all = tape.alloc(&[4, n])?;
            tape.each("bounded_ratio", n, words![tape.memory(&all)?, f, squared_norm, slope, offset])?;
            Ok(Normalised { f_hat: all.get(0)?, by_f: all.get(1)?, by_norm: all.get(2)?, norm: all.get(3)? })
        })
    }
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
            let scale = over_norm(&by_norm, &norm)?;
            Ok(Penalised { value: (mean(&value)? * PENALTY_WEIGHT)?, norm: mean(&norm)?, scale })
        };
        either([squared_norm], cpu, |tape, [squared_norm]| {
            let (scale, value, norm) = (tape.alloc(&[n])?, tape.alloc(&[])?, tape.alloc(&[])?);
            let [to_scale, to_value, to_norm] = [tape.memory(&scale)?, tape.memory(&value)?, tape.memory(&norm)?];
            let words = words![n, squared_norm, self.centre, PENALTY_WEIGHT, to_scale, to_value, to_norm];
            tape.blocks("penalty", 1, words)?;
            Ok(Penalised { value, norm, scale })
        })
    }
}

/// The derivative by a norm n = ‖g − t‖ as a multiple of g − t, `[N]`; zero where n is.
fn over_norm(by_norm: &Tensor, norm: &Tensor) -> Result<Tensor> {
    let floor = (norm.zeros_like()? + f64::from(f32::MIN_POSITIVE))?;
    by_norm / norm.maximum(&floor)?
}

/// A loss's derivatives by f, and by g as a multiple of g − t, from that by f̂; all `[N]`.
///
/// # Errors
/// When sizes differ.
pub fn cotangents(derivative: &Tensor, of: &Normalised) -> Result<[Tensor; 2]> {
    let cpu = || Ok([(derivative * &of.by_f)?, over_norm(&(derivative * &of.by_norm)?, &of.norm)?]);
    either([derivative, &of.by_f, &of.by_norm, &of.norm], cpu, |tape, [derivative, by_f, by_norm, norm]| {
        let n = derivative.len();
        same_dims("cotangents", &[n], by_f.dims)?;
        let both = tape.alloc(&[2, n])?;
        tape.each("cotangents", n, words![tape.memory(&both)?, derivative, by_f, by_norm, norm])?;
        Ok([both.get(0)?, both.get(1)?])
    })
}

/// A way to normalise, constrain or penalise a critic.
pub trait Method: Send + Sync {
    /// Name in configurations and result rows.
    fn id(&self) -> &'static str;

    /// How f̂ depends on the gradient; without it f̂ = f.
    fn normalisation(&self) -> Option<Normalisation> {
        None
    }

    /// Whether every critic weight is spectrally normalised.
    fn spectral(&self) -> bool {
        false
    }

    /// The bound that every critic weight is clipped to after an update.
    fn clip(&self) -> Option<f64> {
        None
    }

    /// The penalty on the gradient at interpolated images.
    fn penalty(&self) -> Option<Penalty> {
        None
    }

    /// The loss that the method's source defines it with, which an experiment's own setting then does not replace.
    fn loss(&self) -> Option<Loss> {
        None
    }

    /// Whether consistency regularisation (Zhang et al. 2020) may be added.
    fn takes_cr(&self) -> bool {
        false
    }
}

/// A method with or without consistency regularisation.
pub struct Choice {
    /// The method.
    pub method: Box<dyn Method>,
    /// Whether λ·E(f̂(T(x)) − f̂(x))² over real images is added.
    pub consistency: bool,
}

const ALL: [fn() -> Box<dyn Method>; 8] = [
    || Box::new(none::Plain),
    || Box::new(wgan::Wgan),
    || Box::new(sn::SpectralNorm),
    || Box::new(gn::GradientNorm),
    || Box::new(pgn::PenaltyGradientNorm),
    || Box::new(pgn_theory::PgnTheory),
    || Box::new(gp1::OneGradientPenalty),
    || Box::new(gp0::ZeroGradientPenalty),
];

/// Every id that [`find`] knows.
pub fn ids() -> Vec<String> {
    let plain = ALL.iter().map(|make| make().id().to_owned());
    let with_cr = ALL.iter().map(|make| make()).filter(|m| m.takes_cr()).map(|m| format!("{}+cr", m.id()));
    plain.chain(with_cr).collect()
}

/// The method of an id such as `pgn` or `pgn+cr`.
pub fn find(id: &str) -> Option<Choice> {
    let (base, consistency) = match id.strip_suffix("+cr") {
        Some(base) => (base, true),
        None => (id, false),
    };
    let method = ALL.iter().map(|make| make()).find(|m| m.id() == base)?;
    (!consistency || method.takes_cr()).then_some(Choice { method, consistency })
}

/// The method of an id.
///
/// # Errors
/// When there is none; the message names those there are.
pub fn require(id: &str) -> error::Result<Choice> {
    find(id).ok_or_else(|| Error::invalid(format!("unknown method `{id}`; known: {}", ids().join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::op::number;
    use crate::nn::testing::{central_difference, random, tensors_close};

    fn sum(t: &Tensor) -> Result<f64> {
        t.sum_all()?.to_scalar()
    }

    #[test]
    fn derivatives_are_central_differences() {
        for id in ids() {
            let m = find(&id).unwrap().method;
            let (f, n) = (random("f", &[5]), (random("n", &[5]).abs().unwrap() + 0.5).unwrap());
            let v = random("v", &[5]);
            if let Some(normalisation) = m.normalisation() {
                let apply = |f: &Tensor, n: &Tensor| normalisation.apply(f, &n.sqr()?);
                let at = apply(&f, &n).unwrap();
                central_difference(|f| sum(&apply(f, &n)?.f_hat), &f, &v, &at.by_f);
                central_difference(|n| sum(&apply(&f, n)?.f_hat), &n, &v, &at.by_norm);
                let derivative = random("derivative", &[5]);
                let [by_f, scale] = cotangents(&derivative, &at).unwrap();
                tensors_close(&by_f, &(&derivative * &at.by_f).unwrap(), 1e-15);
                tensors_close(&(scale * &n).unwrap(), &(derivative * &at.by_norm).unwrap(), 1e-14);
            }
            if let Some(penalty) = m.penalty() {
                let value = |n: &Tensor| number(&penalty.apply(&n.sqr()?)?.value, 0);
                let at = penalty.apply(&n.sqr().unwrap()).unwrap();
                central_difference(value, &n, &v, &(at.scale * &n).unwrap());
                let mean = n.mean_all().unwrap().to_scalar::<f64>().unwrap();
                assert!((number(&at.norm, 0).unwrap() - mean).abs() < 1e-14);
            }
        }
    }

    #[test]
    fn normalised_outputs_are_bounded_and_gn_is_scale_free() {
        let (f, n) = ((random("f", &[50]) * 100.0).unwrap(), (random("n", &[50]).abs().unwrap() + 1e-3).unwrap());
        let of = |id: &str| find(id).unwrap().method.normalisation().unwrap();
        for id in ["gn", "pgn", "pgn-theory"] {
            let f_hat: Vec<f64> = of(id).apply(&f, &n).unwrap().f_hat.to_vec1().unwrap();
            assert!(f_hat.iter().all(|x| x.abs() < 1.0), "{id}");
        }
        // f and ‖g‖ both times three.
        let scaled = of("gn").apply(&(&f * 3.0).unwrap(), &(&n * 9.0).unwrap()).unwrap().f_hat;
        tensors_close(&scaled, &of("gn").apply(&f, &n).unwrap().f_hat, 1e-14);
    }

    #[test]
    fn only_listed_ids_exist() {
        assert!(find("wgan+cr").is_none());
        assert!(find("pgn+cr").is_some_and(|c| c.consistency));
        assert!(find("PGN").is_none());
        assert_eq!(ids().len(), 11);
    }
}
