//! Training steps on the CPU, update by update, of batches that threads make ahead.

use candle_core::{DType, Tensor};

use super::feed::{drawn_augmentation, drawn_mix};
use super::step::{CriticBatch, GeneratorBatch, State};
use crate::config::Cell;
use crate::data::loader::{Batch, Loader, Plan};
use crate::error::{Error, Result};
use crate::generators::{Latents, Mode};
use crate::losses::Loss;
use crate::methods::Choice;
use crate::nn::augment::NUMBERS;
use crate::nn::image::one_hot;
use crate::nn::op::numbers;

/// The updates of a run on the CPU.
pub struct Direct {
    cell: Cell,
    loss: Loss,
    loader: Loader,
    /// Real images for the generator's updates, where a loss compares pairs.
    of_generator: Option<Loader>,
}

/// Classes of real images, for conditional networks.
fn labels(state: &State, batch: &Batch) -> Result<Option<Tensor>> {
    let classes = state.generator.classes;
    Ok(classes.map(|k| one_hot(&batch.labels, k, DType::F32, batch.real.device())).transpose()?)
}

impl Direct {
    /// Starts making batches from a step on.
    pub fn start(cell: &Cell, loss: Loss, plan: Plan, step: u64) -> Self {
        let t = &cell.train;
        let of_generator = loss.pairs().then(|| Loader::start(plan.of_generator(t.generator_batch), step));
        Self { cell: cell.clone(), loss, loader: Loader::start(plan, step * t.critic_steps), of_generator }
    }

    /// How `n` images of an update are augmented, where they are.
    fn augmentation(&self, purpose: &str, number: u64, n: usize, step: u64) -> Result<Option<Tensor>> {
        let Some(p) = self.cell.train.augment(step) else { return Ok(None) };
        let numbers = drawn_augmentation(self.cell.seed, purpose, number, [n, self.cell.image_size], p);
        Ok(Some(Tensor::from_vec(numbers, (n, NUMBERS), &candle_core::Device::Cpu)?))
    }

    /// n_dis critic updates, one generator update, the moving average. What they measured, in the order of
    /// [`MEASURED`](super::recorded::MEASURED), those of the last critic update.
    ///
    /// # Errors
    /// When a batch cannot be made, or the networks fail.
    pub fn step(&self, state: &mut State, choice: &Choice, step: u64) -> Result<Vec<f64>> {
        let (cell, t, loss) = (&self.cell, &self.cell.train, self.loss);
        let mut report = None;
        for k in 0..t.critic_steps {
            let number = step * t.critic_steps + k;
            let batch = self.loader.next_batch()?;
            let generator = &state.generator;
            let latents = generator.latents(cell.seed, "critic/latents", number, t.critic_batch)?;
            let mix = choice.method.penalty().map(|_| drawn_mix(cell.seed, number, t.critic_batch));
            let real_labels = labels(state, &batch)?;
            let latents = if loss.pairs() { Latents { labels: real_labels.clone(), ..latents } } else { latents };
            let batch = CriticBatch {
                fake: generator.images(&latents, Mode::Train)?,
                labels: real_labels.zip(latents.labels).map(|(real, fake)| [real, fake]),
                mix: mix.map(|mix| Tensor::from_vec(mix, t.critic_batch, batch.real.device())).transpose()?,
                augmented: batch.augmented,
                augmentation: self.augmentation("critic", number, 2 * t.critic_batch, step)?,
                gamma: Some(numbers(&[t.gamma(step)], &batch.real)?),
                real: batch.real,
            };
            report = Some(state.critic_update(choice, loss, &batch, t.critic_pace(step))?);
        }
        let mut latents = state.generator.latents(cell.seed, "generator/latents", step, t.generator_batch)?;
        let mut real = None;
        if let Some(loader) = &self.of_generator {
            let batch = loader.next_batch()?;
            latents.labels = labels(state, &batch)?;
            real = Some(batch.real);
        }
        let seen = t.generator_batch * if real.is_some() { 2 } else { 1 };
        let augmentation = self.augmentation("generator", step, seen, step)?;
        let batch = GeneratorBatch { latents, real, augmentation };
        let generator_loss = state.generator_update(choice, loss, &batch, t.generator_pace(step))?;
        state.update_average(t.average_decay(step))?;
        let [critic_norm, generator_norm] = state.gradient_norms()?;
        let Some(report) = report else { return Err(Error::invalid("n_dis is zero")) };
        let all = [
            Some(report.loss),
            Some(generator_loss),
            report.penalty,
            report.consistency,
            Some(critic_norm),
            Some(generator_norm),
            report.input_gradient_norm,
        ];
        let value = |t: Option<Tensor>| t.map_or(Ok(0.0), |t| t.to_scalar());
        Ok(all.into_iter().map(value).collect::<candle_core::Result<_>>()?)
    }
}
