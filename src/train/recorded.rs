//! Training steps on a device: each kind of update is made once, recorded, and then made again with the next numbers in the same
//! places ([`crate::machine::program`]).

use candle_core::{Result, Tensor};

use super::feed::{Feed, STRETCH};
use super::step::{CriticBatch, State};
use crate::generators::Mode;
use crate::losses::Loss;
use crate::machine::program::{Loaded, Program, record};
use crate::methods::Choice;
use crate::nn::image::norm;
use crate::nn::op::either;
use crate::words;

/// What a step measures, in this order: losses of critic and generator, penalty, consistency, gradient norms of critic and
/// generator, mean norm of the input gradient where the method computes it.
pub const MEASURED: usize = 7;

/// The updates of a run on a device.
pub struct Recorded {
    feed: Feed,
    /// Whether updates are recorded; else each is made call by call.
    graph: bool,
    critic: Option<Loaded>,
    generator: Option<Loaded>,
    /// What the last critic update measured: loss, penalty, consistency, gradient norm, input gradient norm.
    report: Tensor,
    /// What the steps of a stretch measured, `[STRETCH, MEASURED]`.
    measured: Tensor,
}

/// Copies numbers (absent: zero) into a row of `table`: the one of the row that was last taken from `by`, or the first.
fn put_row(table: &Tensor, by: Option<&Tensor>, numbers: &[Option<Tensor>]) -> Result<()> {
    let cpu = || candle_core::bail!("rows are put on devices only");
    either([table], cpu, |tape, [table]| {
        let by = by.map(|t| tape.memory(t)).transpose()?;
        let mut words = words![table, by].to_vec();
        for number in numbers {
            words.push(number.as_ref().map(|t| tape.memory(t)).transpose()?.into());
        }
        tape.each("put_row", numbers.len(), &words)
    })
}

impl Recorded {
    /// Of a run that is fed; without `graph` nothing is recorded.
    ///
    /// # Errors
    /// When the device has not the memory.
    pub fn new(feed: Feed, state: &State, graph: bool) -> Result<Self> {
        let like = state.critic.params.flat();
        let zeros = |dims: &[usize]| Tensor::zeros(dims, like.dtype(), like.device());
        let (report, measured) = (zeros(&[5])?, zeros(&[STRETCH, MEASURED])?);
        Ok(Self { feed, graph, critic: None, generator: None, report, measured })
    }

    /// Sends what the next steps need, [`STRETCH`] at most.
    ///
    /// # Errors
    /// When drawing or the device fails.
    pub fn send(&self, steps: usize) -> crate::error::Result<()> {
        self.feed.send(steps)
    }

    /// One critic update, with its images generated.
    ///
    /// # Errors
    /// When the device fails.
    pub fn critic_update(&mut self, state: &mut State, choice: &Choice, loss: Loss) -> Result<()> {
        if let Some(loaded) = &self.critic {
            loaded.run()?;
            state.critic_adam.updates += 1;
        } else if self.graph {
            self.critic = Some(self.record_critic(state, choice, loss)?.load()?);
        } else {
            self.make_critic(state, choice, loss)?;
        }
        Ok(())
    }

    /// One generator update, the average, and what the step measured.
    ///
    /// # Errors
    /// When the device fails.
    pub fn generator_update(&mut self, state: &mut State, choice: &Choice, loss: Loss) -> Result<()> {
        if let Some(loaded) = &self.generator {
            loaded.run()?;
            state.generator_adam.updates += 1;
        } else if self.graph {
            self.generator = Some(self.record_generator(state, choice, loss)?.load()?);
        } else {
            self.make_generator(state, choice, loss)?;
        }
        Ok(())
    }

    /// Makes and records a critic update.
    ///
    /// # Errors
    /// When the device fails, or an update reads memory that is not its own.
    pub fn record_critic(&self, state: &mut State, choice: &Choice, loss: Loss) -> Result<Program> {
        record(self.feed.device(), self.memory(state), || self.make_critic(state, choice, loss))
    }

    /// Makes and records a generator update.
    ///
    /// # Errors
    /// As for [`Recorded::record_critic`].
    pub fn record_generator(&self, state: &mut State, choice: &Choice, loss: Loss) -> Result<Program> {
        record(self.feed.device(), self.memory(state), || self.make_generator(state, choice, loss))
    }

    /// What the first steps of the stretch measured.
    ///
    /// # Errors
    /// When the device fails.
    pub fn measured(&self, steps: usize) -> Result<Vec<Vec<f64>>> {
        let host = self.measured.to_device(&candle_core::Device::Cpu)?;
        let mut rows: Vec<Vec<f64>> = host.to_dtype(candle_core::DType::F64)?.to_vec2()?;
        rows.truncate(steps);
        Ok(rows)
    }

    fn memory(&self, state: &State) -> Vec<Tensor> {
        let own = [self.report.clone(), self.measured.clone()];
        state.memory().into_iter().chain(self.feed.memory()).chain(own).collect()
    }

    fn make_critic(&self, state: &mut State, choice: &Choice, loss: Loss) -> Result<()> {
        let inputs = self.feed.critic()?;
        let fake = state.generator.images(&inputs.latents, Mode::Train)?;
        let batch = CriticBatch {
            real: inputs.real,
            fake,
            labels: inputs.labels.zip(inputs.latents.labels).map(|(real, fake)| [real, fake]),
            mix: inputs.mix,
            augmented: inputs.augmented,
            augmentation: inputs.augmentation,
            gamma: Some(inputs.gamma),
        };
        let report = state.scheduled_critic_update(choice, loss, &batch, &inputs.schedule)?;
        let norm = norm(state.gradients()[0])?;
        let numbers = [Some(report.loss), report.penalty, report.consistency, Some(norm), report.input_gradient_norm];
        put_row(&self.report, None, &numbers)
    }

    fn make_generator(&self, state: &mut State, choice: &Choice, loss: Loss) -> Result<()> {
        let inputs = self.feed.generator()?;
        let value = state.scheduled_generator_update(choice, loss, &inputs.batch, &inputs.schedule)?;
        state.scheduled_average(&inputs.decay)?;
        let norm = norm(state.gradients()[1])?;
        let of_critic = |k: usize| self.report.narrow(0, k, 1).map(Some);
        let numbers =
            [of_critic(0)?, Some(value), of_critic(1)?, of_critic(2)?, of_critic(3)?, Some(norm), of_critic(4)?];
        put_row(&self.measured, Some(&self.feed.generator_table()?), &numbers)
    }
}
