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

use candle_core::{Result, Tensor};

use crate::error::{self, Error};
use crate::losses::Loss;

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
}

/// A normalisation by the gradient: f̂ as a function of f and n = ‖g − t‖.
#[derive(Clone, Copy)]
pub struct Normalisation {
    /// t, subtracted from every entry of g.
    pub target: f64,
    /// f̂ of f `[N]` and n `[N]`.
    pub apply: fn(&Tensor, &Tensor) -> Result<Normalised>,
}

/// A penalty p(‖g‖) on interpolated images: its value and derivative, both `[N]`.
pub type Penalty = fn(&Tensor) -> Result<[Tensor; 2]>;

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

/// f / (n + |f|).
fn bounded_ratio(f: &Tensor, norm: &Tensor) -> Result<Normalised> {
    let denominator = (norm + f.abs()?)?;
    let square = denominator.sqr()?;
    Ok(Normalised { f_hat: (f / &denominator)?, by_f: (norm / &square)?, by_norm: (f / &square)?.neg()? })
}

/// (1 − f) / (n + |1 − f|).
fn bounded_ratio_of_one_minus(f: &Tensor, norm: &Tensor) -> Result<Normalised> {
    let of_difference = bounded_ratio(&(1.0 - f)?, norm)?;
    Ok(Normalised { by_f: of_difference.by_f.neg()?, ..of_difference })
}

#[cfg(test)]
mod tests {
    use super::*;
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
            if let Some(Normalisation { apply, .. }) = m.normalisation() {
                let at = apply(&f, &n).unwrap();
                central_difference(|f| sum(&apply(f, &n)?.f_hat), &f, &v, &at.by_f);
                central_difference(|n| sum(&apply(&f, n)?.f_hat), &n, &v, &at.by_norm);
            }
            if let Some(penalty) = m.penalty() {
                central_difference(|n| sum(&penalty(n)?[0]), &n, &v, &penalty(&n).unwrap()[1]);
            }
        }
    }

    #[test]
    fn normalised_outputs_are_bounded_and_gn_is_scale_free() {
        let (f, n) = ((random("f", &[50]) * 100.0).unwrap(), (random("n", &[50]).abs().unwrap() + 1e-3).unwrap());
        for id in ["gn", "pgn", "pgn-theory"] {
            let apply = find(id).unwrap().method.normalisation().unwrap().apply;
            let f_hat: Vec<f64> = apply(&f, &n).unwrap().f_hat.to_vec1().unwrap();
            assert!(f_hat.iter().all(|x| x.abs() < 1.0), "{id}");
        }
        let gn = find("gn").unwrap().method.normalisation().unwrap().apply;
        let scaled = gn(&(&f * 3.0).unwrap(), &(&n * 3.0).unwrap()).unwrap().f_hat;
        tensors_close(&scaled, &gn(&f, &n).unwrap().f_hat, 1e-14);
    }

    #[test]
    fn only_listed_ids_exist() {
        assert!(find("wgan+cr").is_none());
        assert!(find("pgn+cr").is_some_and(|c| c.consistency));
        assert!(find("PGN").is_none());
        assert_eq!(ids().len(), 11);
    }
}
