//! Adversarial losses on the normalised outputs f̂ (r of real images, s of generated ones).

use candle_core::{DType, Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::nn::op::either;
use crate::words;

/// Which loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Critic E[max(0, 1−r)] + E[max(0, 1+s)], generator −E[s] (Lim and Ye 2017).
    Hinge,
    /// Binary cross-entropy of logits, non-saturating generator (Goodfellow et al. 2014).
    Bce,
    /// Critic −E[r] + E[s], generator −E[s] (Arjovsky et al. 2017).
    Wasserstein,
    /// Critic E[ln(1 + exp(s − r))], generator E[ln(1 + exp(r − s))], each generated image against the real one in its place (relativistic
    /// pairing, Jolicoeur-Martineau 2018).
    Relativistic,
}

/// A mean over images and its derivative in each.
pub struct Graded {
    /// Value, without dimensions: an f64 on the CPU, else of f̂'s type.
    pub value: Tensor,
    /// ∂value/∂f̂ᵢ, `[N]`.
    pub derivative: Tensor,
}

/// Each element's value and derivative.
type Pointwise = (Tensor, Tensor);

fn mean(f_hat: &Tensor, (value, derivative): Pointwise) -> Result<Graded> {
    let n = f_hat.elem_count() as f64;
    let value = value.mean_all()?.to_dtype(DType::F64)?;
    Ok(Graded { value, derivative: (derivative / n)? })
}

/// max(0, x).
fn positive_part(x: &Tensor) -> Result<Pointwise> {
    Ok((x.relu()?, x.gt(&x.zeros_like()?)?.to_dtype(x.dtype())?))
}

/// ln(1 + eˣ).
fn softplus(x: &Tensor) -> Result<Pointwise> {
    let tail = (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok(((x.relu()? + tail)?, candle_nn::ops::sigmoid(x)?))
}

impl Loss {
    /// The name in configurations and result rows.
    pub fn id(self) -> &'static str {
        match self {
            Self::Hinge => "hinge",
            Self::Bce => "bce",
            Self::Wasserstein => "wasserstein",
            Self::Relativistic => "relativistic",
        }
    }

    /// Whether generated images are compared with real ones, so that the generator's loss needs these too.
    pub fn pairs(self) -> bool {
        self == Self::Relativistic
    }

    /// The critic's loss of `f_hat` `[N]`, whose first `real` entries belong to real images.
    ///
    /// # Errors
    /// When `real` exceeds N, or is not half of it where pairs are compared.
    pub fn critic(self, f_hat: &Tensor, real: usize) -> Result<Graded> {
        if self.pairs() && 2 * real != f_hat.elem_count() {
            candle_core::bail!("{real} real images are no pairs with the others of {}", f_hat.elem_count())
        }
        let cpu = || {
            let (r, s) = (f_hat.narrow(0, 0, real)?, f_hat.narrow(0, real, f_hat.dim(0)? - real)?);
            let minus_r = r.neg()?;
            let (of_real, of_fake) = match self {
                Self::Hinge => (positive_part(&(minus_r + 1.0)?)?, positive_part(&(&s + 1.0)?)?),
                Self::Bce => (softplus(&minus_r)?, softplus(&s)?),
                Self::Wasserstein => ((minus_r, r.ones_like()?), (s.clone(), s.ones_like()?)),
                Self::Relativistic => {
                    let graded = mean(&r, softplus(&(&s - &r)?)?)?;
                    let derivative = Tensor::cat(&[&graded.derivative.neg()?, &graded.derivative], 0)?;
                    return Ok(Graded { derivative, ..graded });
                }
            };
            let (real, fake) = (mean(&r, of_real)?, mean(&s, of_fake)?);
            Ok(Graded {
                value: (real.value + fake.value)?,
                derivative: Tensor::cat(&[&real.derivative.neg()?, &fake.derivative], 0)?,
            })
        };
        self.graded(f_hat, cpu, (real, false, None))
    }

    /// The generator's loss of `f_hat` `[N]`, all of generated images; `real` `[N]` is that of the real images they are compared with.
    ///
    /// # Errors
    /// When pairs are compared and there is not a real image for each.
    pub fn generator(self, f_hat: &Tensor, real: Option<&Tensor>) -> Result<Graded> {
        let real = real.filter(|_| self.pairs());
        if self.pairs() && real.is_none_or(|real| real.dims() != f_hat.dims()) {
            candle_core::bail!("{} generated images need as many real ones to be compared with", f_hat.elem_count())
        }
        let cpu = || {
            let minus_s = f_hat.neg()?;
            let pointwise = match (self, real) {
                (_, Some(real)) => softplus(&(minus_s + real)?)?,
                (Self::Bce, _) => softplus(&minus_s)?,
                _ => (minus_s, f_hat.ones_like()?),
            };
            let graded = mean(f_hat, pointwise)?;
            Ok(Graded { derivative: graded.derivative.neg()?, ..graded })
        };
        self.graded(f_hat, cpu, (0, true, real))
    }

    fn graded(
        self,
        f_hat: &Tensor,
        cpu: impl FnOnce() -> Result<Graded>,
        (real, generator, other): (usize, bool, Option<&Tensor>),
    ) -> Result<Graded> {
        either([f_hat], cpu, |tape, [f_hat]| {
            let (n, kind) = (f_hat.len(), self as usize);
            if real > n {
                candle_core::bail!("{real} real images of {n}")
            }
            let (derivative, value) = (tape.alloc(&[n])?, tape.alloc(&[])?);
            let other = other.map(|t| tape.memory(t)).transpose()?;
            let words = words![n, tape.memory(&derivative)?, f_hat, real, kind, generator, tape.memory(&value)?, other];
            tape.blocks("loss", 1, words)?;
            Ok(Graded { value, derivative })
        })
    }
}
