//! Adam, the learning-rate schedule and the moving average, each one sweep over a network's flat buffer.

use candle_core::{Result, Tensor};

use crate::machine::cpu::real::Real;
use crate::nn::op::{InPlace, either, number, update};
use crate::words;

/// Adam (Kingma and Ba 2015) with bias correction, for any β.
#[derive(Debug)]
pub struct Adam {
    /// First and second moments, each like the parameters.
    pub moments: [Tensor; 2],
    /// Updates made so far.
    pub updates: u64,
    beta1: f64,
}

/// What may move of its settings.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pace {
    /// Learning rate.
    pub rate: f64,
    /// Decay β₂ of the second moment.
    pub beta2: f64,
}

/// Guard of the denominator, as in PyTorch.
const EPSILON: f64 = 1e-8;

struct FirstMoment(f64);

impl InPlace<1> for FirstMoment {
    const NAME: &'static str = "adam_first_moment";
    fn element<T: Real>(&self, m: T, [g]: [T; 1]) -> T {
        T::from_f64(self.0) * m + T::from_f64(1.0 - self.0) * g
    }
}

/// Its decay and what that leaves.
struct SecondMoment([f64; 2]);

impl InPlace<1> for SecondMoment {
    const NAME: &'static str = "adam_second_moment";
    fn element<T: Real>(&self, v: T, [g]: [T; 1]) -> T {
        T::from_f64(self.0[0]) * v + T::from_f64(self.0[1]) * g * g
    }
}

struct Step {
    rate: f64,
    second_correction: f64,
}

impl InPlace<2> for Step {
    const NAME: &'static str = "adam_step";
    fn element<T: Real>(&self, x: T, [m, v]: [T; 2]) -> T {
        x - T::from_f64(self.rate) * m / (Real::sqrt(v) / T::from_f64(self.second_correction) + T::from_f64(EPSILON))
    }
}

impl Adam {
    /// An optimiser of `params` `[elements]`.
    ///
    /// # Errors
    /// When the device refuses the memory.
    pub fn new(params: &Tensor, beta1: f64) -> Result<Self> {
        Ok(Self { moments: [params.zeros_like()?, params.zeros_like()?], updates: 0, beta1 })
    }

    /// What changes from update to update: the rate over the correction of the first moment, the root of that of the second, both by the
    /// decays of update `number`, counted from one, β₂ and what it leaves.
    pub fn schedule(beta1: f64, number: u64, Pace { rate, beta2 }: Pace) -> [f64; 4] {
        let [first, second] = [beta1, beta2].map(|b| 1.0 - b.powi(i32::try_from(number).unwrap_or(i32::MAX)));
        [rate / first, second.sqrt(), beta2, 1.0 - beta2]
    }

    /// The decay of the first moment.
    pub fn beta1(&self) -> f64 {
        self.beta1
    }

    /// Moves `params` against `gradient`; `schedule` is that of the update as a tensor whose first numbers it is
    /// ([`crate::nn::op::numbers`]).
    ///
    /// # Errors
    /// When sizes differ.
    pub fn step(&mut self, params: &Tensor, gradient: &Tensor, schedule: &Tensor) -> Result<()> {
        self.updates += 1;
        let [m, v] = &self.moments;
        let cpu = || {
            let (rate, second_correction) = (number(schedule, 0)?, number(schedule, 1)?);
            let second = [number(schedule, 2)?, number(schedule, 3)?];
            update(&FirstMoment(self.beta1), m, [gradient])?;
            update(&SecondMoment(second), v, [gradient])?;
            update(&Step { rate, second_correction }, params, [m, v])
        };
        either([params, gradient, m, v], cpu, |tape, [x, g, m, v]| {
            let (b, schedule) = (self.beta1, tape.memory(schedule)?);
            tape.each("adam", x.len(), words![x, g, m, v, schedule, b, 1.0 - b, EPSILON])
        })
    }
}

struct Average([f64; 2]);

impl InPlace<1> for Average {
    const NAME: &'static str = "moving_average";
    fn element<T: Real>(&self, average: T, [x]: [T; 1]) -> T {
        T::from_f64(self.0[0]) * average + T::from_f64(self.0[1]) * x
    }
}

/// `average ← decay·average + (1 − decay)·x`; `decay` has the decay and what it leaves ([`crate::nn::op::numbers`]).
///
/// # Errors
/// When sizes differ.
pub fn moving_average(average: &Tensor, x: &Tensor, decay: &Tensor) -> Result<()> {
    if x.elem_count() == 0 {
        return Ok(());
    }
    let cpu = || update(&Average([number(decay, 0)?, number(decay, 1)?]), average, [x]);
    either([average, x], cpu, |tape, [average, x]| {
        tape.each("moving_average", average.len(), words![average, x, tape.array(decay)?])
    })
}

struct Clip(f64);

impl InPlace<0> for Clip {
    const NAME: &'static str = "clip";
    fn element<T: Real>(&self, x: T, []: [T; 0]) -> T {
        let bound = T::from_f64(self.0);
        if x > bound {
            bound
        } else if x < -bound {
            -bound
        } else {
            x
        }
    }
    fn values(&self) -> [f64; 3] {
        [self.0, 0.0, 0.0]
    }
}

/// Clips every element to `[−bound, bound]`.
///
/// # Errors
/// On a dtype other than F32 and F64.
pub fn clip(x: &Tensor, bound: f64) -> Result<()> {
    update(&Clip(bound), x, [])
}

/// Learning-rate factor of linear decay to zero: 1 − max(step − start, 0) / max(total − start, 1).
pub fn linear_decay(step: u64, start: u64, total: u64) -> f64 {
    1.0 - step.saturating_sub(start) as f64 / total.saturating_sub(start).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn decay_starts_late_and_ends_at_zero() {
        assert_eq!(linear_decay(0, 0, 4), 1.0);
        assert_eq!(linear_decay(1, 0, 4), 0.75);
        assert_eq!(linear_decay(4, 0, 4), 0.0);
        assert_eq!(linear_decay(5, 10, 20), 1.0);
        assert_eq!(linear_decay(15, 10, 20), 0.5);
    }

    #[test]
    fn first_adam_step_is_the_learning_rate() -> Result<()> {
        let x = Tensor::new(&[1.0f64, -2.0], &Device::Cpu)?;
        let mut adam = Adam::new(&x, 0.5)?;
        let schedule = Tensor::new(&Adam::schedule(adam.beta1(), 1, Pace { rate: 0.1, beta2: 0.9 }), &Device::Cpu)?;
        adam.step(&x, &Tensor::new(&[0.3f64, -7.0], &Device::Cpu)?, &schedule)?;
        let got = x.to_vec1::<f64>()?;
        assert!((got[0] - 0.9).abs() < 1e-7 && (got[1] + 1.9).abs() < 1e-7, "{got:?}");
        clip(&x, 1.0)?;
        assert_eq!(x.to_vec1::<f64>()?[1], -1.0);
        Ok(())
    }
}
