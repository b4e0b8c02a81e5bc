//! What a training step costs, counted in floating-point operations of its convolutions and linear layers.

use crate::config::Cell;
use crate::critic::Critic;
use crate::error::Result;
use crate::generators::Generator;
use crate::methods::Choice;

/// Operations of one training step of a cell: all critic updates and the generator's.
///
/// # Errors
/// When the networks do not fit the cell's images.
pub fn step_flops(cell: &Cell, choice: &Choice, critic: &Critic, generator: &Generator) -> Result<u64> {
    let t = &cell.train;
    let pass = |images: usize| critic.flops([images, cell.image_size, cell.image_size, 3]);
    // forward, adjoint (also the image gradient), tangent, weight gradient; without g: forward, adjoint, weight gradient
    let passes = if choice.method.normalisation().is_some() { 4 } else { 3 };
    let mut critic_update = passes * pass(2 * t.critic_batch)?;
    if choice.consistency {
        critic_update += passes * pass(t.critic_batch)?;
    }
    if choice.method.penalty().is_some() {
        critic_update += 4 * pass(t.critic_batch)?;
    }
    let fakes = generator.flops(t.critic_batch)?;
    let generator_update = 3 * generator.flops(t.generator_batch)? + 2 * pass(t.generator_batch)?;
    Ok(t.critic_steps * (critic_update + fakes) + generator_update)
}
