//! What a training step costs: operations counted, memory from what the passes keep of two images, time from a short
//! measured step.

use std::time::Instant;

use candle_core::{Device, Tensor};

use super::run::networks;
use super::step::{CriticBatch, GeneratorBatch, State};
use crate::config::Cell;
use crate::error::Result;
use crate::generators::Mode;
use crate::losses::Loss;
use crate::methods::Choice;
use crate::nn::op::numbers;
use crate::optim::Pace;

/// Operations that the calibration's step may take for each of its two parts.
const CALIBRATION_FLOPS: u64 = 60_000_000_000;
/// Moves nothing.
const STILL: Pace = Pace { rate: 0.0, beta2: 0.9 };
/// Fewest images that a network is given.
const FEWEST: usize = 2;

/// The cost of a cell.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Parameters of generator and critic.
    pub parameters: [usize; 2],
    /// Floating-point operations of the convolutions and linear layers of one training step.
    pub step_flops: u64,
    /// Bytes of the networks, their optimisers and what the larger of the two updates keeps.
    pub memory_bytes: usize,
    /// Seconds of one training step, extrapolated from a smaller one on this machine.
    pub step_s: f64,
}

/// Measures a cell over a data set of `classes` classes.
///
/// # Errors
/// When the cell's networks cannot be made.
pub fn measure(cell: &Cell, classes: usize, device: &Device) -> Result<Cost> {
    let (choice, mut state) = networks(cell, classes, device)?;
    let parameters = [state.generator.params.len(), state.critic.params.len()];
    let (t, loss) = (&cell.train, super::rows::loss(cell)?);
    let [critic, generator_flops] = update_flops(&choice, loss, &state, [t.critic_batch, t.generator_batch])?;
    let critic_flops = critic + state.generator.flops(t.critic_batch)?;
    let memory_bytes = memory(cell, &choice, &state)?;
    let part = |batch: usize, flops: u64| {
        let images = batch as u64 * CALIBRATION_FLOPS / flops.max(1);
        usize::try_from(images).unwrap_or(batch).clamp(FEWEST.min(batch), batch)
    };
    let [few_real, few_fake] = [part(t.critic_batch, critic_flops), part(t.generator_batch, generator_flops)];
    let [critic_s, generator_s] = timed(cell, &choice, &mut state, [few_real, few_fake])?;
    let scale = |batch: usize, few: usize| batch as f64 / few as f64;
    let step_s = t.critic_steps as f64 * critic_s * scale(t.critic_batch, few_real)
        + generator_s * scale(t.generator_batch, few_fake);
    let step_flops = t.critic_steps * critic_flops + generator_flops;
    Ok(Cost { parameters, step_flops, memory_bytes, step_s })
}

/// Operations of one critic update, on as many given images as real ones, and one generator update.
///
/// # Errors
/// Never for networks that fit each other.
pub fn update_flops(
    choice: &Choice,
    loss: Loss,
    state: &State,
    [critic_batch, generator_batch]: [usize; 2],
) -> Result<[u64; 2]> {
    let side = state.generator.side;
    let pass = |images: usize| state.critic.flops([images, side, side, 3]);
    // forward, adjoint (also the image gradient), tangent, weight gradient; without g: forward, adjoint, weight gradient
    let passes = if choice.linearises() { 4 } else { 3 };
    let mut critic = passes * pass(2 * critic_batch)?;
    if choice.consistency {
        critic += passes * pass(critic_batch)?;
    }
    if choice.method.penalty().is_some() {
        critic += 4 * pass(critic_batch)?;
    }
    // forward, adjoint; of the real images that a loss of pairs compares with: forward, adjoint where f̂ needs g
    let of_real = match (loss.pairs(), choice.method.normalisation()) {
        (false, _) => 0,
        (true, None) => 1,
        (true, Some(_)) => 2,
    };
    Ok([critic, 3 * state.generator.flops(generator_batch)? + (2 + of_real) * pass(generator_batch)?])
}

fn memory(cell: &Cell, choice: &Choice, state: &State) -> Result<usize> {
    let t = &cell.train;
    let latents = state.generator.latents(0, "cost", 0, FEWEST)?;
    let made = state.generator.forward(&latents, Mode::Batch)?;
    let pass = state.critic.forward(&made.images, latents.labels.as_ref(), false)?;
    let linear = state.critic.linearise(&pass)?.kept_bytes();
    let per_image = |bytes: usize, images: usize| bytes / FEWEST * images;
    let critic_image = pass.kept_bytes() + if choice.linearises() { linear } else { 0 };
    let critic_images = 2 * t.critic_batch + if choice.consistency { t.critic_batch } else { 0 };
    let mut critic = per_image(critic_image, critic_images);
    if choice.method.penalty().is_some() {
        critic = critic.max(per_image(pass.kept_bytes() + linear, t.critic_batch));
    }
    let generator = per_image(made.kept_bytes() + pass.kept_bytes(), t.generator_batch);
    // Weights, two moments, gradients; the generator's average too.
    let size = std::mem::size_of::<f32>();
    let networks = size * (5 * state.generator.params.len() + 4 * state.critic.params.len());
    Ok(networks + critic.max(generator))
}

/// Seconds of a critic update with its generated images, and of a generator update, each the second of two.
fn timed(cell: &Cell, choice: &Choice, state: &mut State, [few_real, few_fake]: [usize; 2]) -> Result<[f64; 2]> {
    let loss = super::rows::loss(cell)?;
    let device = state.generator.params.flat().device().clone();
    let mut seconds = [0.0; 2];
    for round in 0..2 {
        let start = Instant::now();
        let latents = state.generator.latents(0, "cost/critic", round, few_real)?;
        let fake = state.generator.images(&latents, Mode::Train)?;
        let labels = latents.labels.map(|l| [l.clone(), l]);
        let mix = Some(Tensor::full(0.5f32, few_real, &device)?);
        let gamma = Some(numbers(&[1.0], &fake)?);
        let [real, augmented] = [fake.clone(), fake.clone()];
        let batch = CriticBatch { real, fake, labels, mix, augmented: Some(augmented), augmentation: None, gamma };
        state.critic_update(choice, loss, &batch, STILL)?;
        device.synchronize()?;
        seconds[0] = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let latents = state.generator.latents(0, "cost/generator", round, few_fake)?;
        let real = loss.pairs().then(|| state.generator.images(&latents, Mode::Train)).transpose()?;
        state.generator_update(choice, loss, &GeneratorBatch { latents, real, augmentation: None }, STILL)?;
        device.synchronize()?;
        seconds[1] = start.elapsed().as_secs_f64();
    }
    Ok(seconds)
}
