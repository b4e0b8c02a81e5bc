//! What is compared: ways to normalise, constrain or penalise a critic. One file each, its equation and source on top.
//!
//! Notation: f(x) the critic's output for one image, g = ∇ₓf(x), ‖·‖ the L2 norm over all entries of one image, f̂ what
//! enters the loss.

mod gn;
mod gp0;
mod gp1;
mod none;
mod normalisation;
mod penalty;
mod pgn;
mod pgn_theory;
mod r1;
mod r1r2;
mod sn;
mod wgan;

use crate::error::{self, Error};
use crate::losses::Loss;
pub use normalisation::{Bounded, Normalisation, Normalised};
pub use penalty::{OnBatch, PENALTY_WEIGHT, Penalised, Penalty, ZeroCentred};

/// Weight of consistency regularisation in the paper.
pub const CR_WEIGHT: f64 = 5.0;

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

    /// The penalty on the gradient at the images of the batch.
    fn zero_centred(&self) -> Option<ZeroCentred> {
        None
    }

    /// Whether a regularisation of another source may be added: consistency (Zhang et al. 2020), or R1 and R2.
    fn takes_more(&self) -> bool {
        false
    }
}

/// A method, and what is added to it.
pub struct Choice {
    /// The method.
    pub method: Box<dyn Method>,
    /// Whether λ·E(f̂(T(x)) − f̂(x))² over real images is added: `+cr`.
    pub consistency: bool,
    /// The penalty at the images of the batch, the method's own or added: `+r1r2`.
    pub zero_centred: Option<ZeroCentred>,
}

impl Choice {
    /// Whether g is computed for the images of the batch.
    pub fn linearises(&self) -> bool {
        self.method.normalisation().is_some() || self.zero_centred.is_some()
    }
}

const ALL: [fn() -> Box<dyn Method>; 10] = [
    || Box::new(none::Plain),
    || Box::new(wgan::Wgan),
    || Box::new(sn::SpectralNorm),
    || Box::new(gn::GradientNorm),
    || Box::new(pgn::PenaltyGradientNorm),
    || Box::new(pgn_theory::PgnTheory),
    || Box::new(gp1::OneGradientPenalty),
    || Box::new(gp0::ZeroGradientPenalty),
    || Box::new(r1::R1),
    || Box::new(r1r2::R1R2),
];
/// What may be added.
const MORE: [&str; 2] = ["+cr", "+r1r2"];

/// Every id that [`find`] knows.
pub fn ids() -> Vec<String> {
    let methods = || ALL.iter().map(|make| make());
    let more =
        MORE.iter().flat_map(|more| methods().filter(|m| m.takes_more()).map(move |m| format!("{}{more}", m.id())));
    methods().map(|m| m.id().to_owned()).chain(more).collect()
}

/// The method of an id such as `pgn` or `pgn+cr`.
pub fn find(id: &str) -> Option<Choice> {
    let (base, more) = id.split_at(id.find('+').unwrap_or(id.len()));
    let method = ALL.iter().map(|make| make()).find(|m| m.id() == base)?;
    let is_known = more.is_empty() || method.takes_more() && MORE.contains(&more);
    if !is_known {
        return None;
    }
    let added = (more == "+r1r2").then_some(ZeroCentred::Both);
    Some(Choice { consistency: more == "+cr", zero_centred: method.zero_centred().or(added), method })
}

/// The method of an id.
///
/// # Errors
/// When there is none; the message names those there are.
pub fn require(id: &str) -> error::Result<Choice> {
    find(id).ok_or_else(|| Error::invalid(format!("unknown method `{id}`; known: {}", ids().join(", "))))
}

/// The method of docs/howto/own-method.md, where it would stand.
#[cfg(test)]
#[path = "../../docs/howto/method.rs"]
mod guide;

#[cfg(test)]
mod tests {
    use candle_core::{Result, Tensor};

    use super::*;
    use crate::nn::op::number;
    use crate::nn::testing::{central_difference, random, tensors_close};

    fn sum(t: &Tensor) -> Result<f64> {
        t.sum_all()?.to_scalar()
    }

    #[test]
    fn the_method_of_the_guide_is_one() {
        let page = include_str!("../../docs/howto/own-method.md");
        assert!(
            page.contains(include_str!("../../docs/howto/method.rs")),
            "docs/howto/own-method.md shows another code"
        );
        let registered: fn() -> Box<dyn Method> = || Box::new(guide::SpectralGradientNorm);
        let method = registered();
        assert!(find(method.id()).is_none() && page.contains(&format!("methods: [sn, gn, {}]", method.id())));
        let (f, n) = (random("f", &[5]), (random("n", &[5]).abs().unwrap() + 0.5).unwrap());
        let f_hat = method.normalisation().unwrap().apply(&f, &n.sqr().unwrap()).unwrap().f_hat;
        tensors_close(&f_hat, &(&f / (&n + f.abs().unwrap()).unwrap()).unwrap(), 1e-14);
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
                let cotangents = normalisation.cotangents(&derivative, &at).unwrap();
                let [by_f, offset] = cotangents.others.unwrap();
                tensors_close(&by_f, &(&derivative * &at.by_f).unwrap(), 1e-15);
                tensors_close(&(&cotangents.scale * &n).unwrap(), &(derivative * &at.by_norm).unwrap(), 1e-14);
                tensors_close(&offset, &(cotangents.scale * -normalisation.target).unwrap(), 1e-15);
            }
            if let Some(penalty) = m.penalty() {
                let value = |n: &Tensor| number(&penalty.apply(&n.sqr()?)?.value, 0);
                let at = penalty.apply(&n.sqr().unwrap()).unwrap();
                central_difference(value, &n, &v, &(at.cotangents.scale * &n).unwrap());
                let mean = n.mean_all().unwrap().to_scalar::<f64>().unwrap();
                assert!((number(&at.norm, 0).unwrap() - mean).abs() < 1e-14);
            }
        }
    }

    /// Σ dᵢ·f̂ᵢ and the penalty, of outputs `[N]` and gradients `[N, 3]` as they stand.
    fn penalised(choice: &Choice, f: &Tensor, g: &Tensor) -> Result<(Tensor, Penalised)> {
        let (derivative, gamma) = (random("derivative", &[5]), (random("gamma", &[1]).abs()? + 0.1)?);
        let squared = |t: f64| (g - t)?.sqr()?.sum(1);
        let normalisation = choice.method.normalisation();
        let normalised = normalisation.map(|of| of.apply(f, &squared(of.target)?)).transpose()?;
        let squared_norm = &squared(0.0)?;
        let at = OnBatch { f, squared_norm, normalised: normalisation.zip(normalised.as_ref()) };
        let of = choice.zero_centred.unwrap().apply(&at, &derivative, 2, &gamma)?;
        let f_hat = normalised.as_ref().map_or(f, |of| &of.f_hat);
        Ok(((derivative * f_hat)?.sum_all()?, of))
    }

    #[test]
    fn zero_centred_penalties_have_the_derivatives_of_their_values() {
        let (f, g) = (random("f", &[5]), random("g", &[5, 3]));
        for id in ["r1", "r1r2", "sn+r1r2", "gn+r1r2", "pgn+r1r2"] {
            let choice = find(id).unwrap();
            let value = |f: &Tensor, g: &Tensor| {
                let (loss, of) = penalised(&choice, f, g)?;
                Ok(number(&loss, 0)? + number(&of.value, 0)?)
            };
            let (_, at) = penalised(&choice, &f, &g).unwrap();
            let [c, offset] = at.cotangents.others.unwrap();
            central_difference(|f| value(f, &g), &f, &random("v", &[5]), &c);
            let by_g = g.broadcast_mul(&at.cotangents.scale.unsqueeze(1).unwrap()).unwrap();
            let by_g = by_g.broadcast_add(&offset.unsqueeze(1).unwrap()).unwrap();
            central_difference(|g| value(&f, g), &g, &random("v", &[5, 3]), &by_g);
            let norm = g.sqr().unwrap().sum(1).unwrap().sqrt().unwrap().mean_all().unwrap();
            tensors_close(&at.norm, &norm, 1e-14);
        }
        // Without a normalisation it is what the name says.
        let mean = |first: usize, n: usize| g.narrow(0, first, n).unwrap().sqr().unwrap().sum_all().unwrap() / n as f64;
        let gamma = number(&(random("gamma", &[1]).abs().unwrap() + 0.1).unwrap(), 0).unwrap();
        for (id, want) in [("r1", mean(0, 2).unwrap()), ("r1r2", (mean(0, 2).unwrap() + mean(2, 3).unwrap()).unwrap())]
        {
            let value = penalised(&find(id).unwrap(), &f, &g).unwrap().1.value;
            tensors_close(&value, &(want * (gamma / 2.0)).unwrap(), 1e-14);
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
        for unknown in ["wgan+cr", "none+r1r2", "r1+cr", "pgn+cr+r1r2", "PGN", "pgn+"] {
            assert!(find(unknown).is_none(), "{unknown}");
        }
        assert!(find("pgn+cr").is_some_and(|c| c.consistency && c.zero_centred.is_none()));
        assert!(find("gn+r1r2").is_some_and(|c| !c.consistency && c.zero_centred == Some(ZeroCentred::Both)));
        assert_eq!(ids().len(), 16);
    }
}
