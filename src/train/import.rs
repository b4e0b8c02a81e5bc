//! Checkpoints of the released GN and PGN code (`net_G`, `ema_G`, `net_D`, `optim_G`, `optim_D`, `step`, by `torch.save`) as
//! the state of a run here, so that they can be evaluated, sampled and trained on.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use pytorch_reader::PytorchReader;
use serde::Deserialize;

use super::checkpoint::Progress;
use super::run::networks;
use super::step::State;
use crate::config::Cell;
use crate::error::{Error, Result};
use crate::nn::store::{Store, overwrite};
use crate::optim::Adam;
use crate::weights;

/// The count that PyTorch's batch normalisation keeps and nothing reads.
const UNREAD: &str = "num_batches_tracked";

#[derive(Deserialize)]
struct Scalars {
    step: u64,
}

/// Reads `path` into the networks of `cell`, over a data set of `classes` classes.
///
/// # Errors
/// When the file cannot be read, or its networks are not the cell's.
pub fn read(path: &Path, cell: &Cell, classes: usize, device: &Device) -> Result<(State, Progress)> {
    let mut tensors = weights::read(path)?;
    let (_, mut state) = networks(cell, classes, device)?;
    let bad = |what: String| {
        Error::content(path, format!("not a checkpoint of the released code with {} at this width: {what}", cell.arch))
    };
    for (prefix, stores) in [
        ("net_G.", [&state.generator.params, &state.generator.buffers]),
        ("ema_G.", [&state.average.params, &state.average.buffers]),
        ("net_D.", [&state.critic.params, &state.critic.buffers]),
    ] {
        for store in stores {
            store.take_from(&mut tensors, prefix).map_err(|e| bad(e.to_string()))?;
        }
        let unused = |name: &&String| name.starts_with(prefix) && !name.ends_with(UNREAD);
        if let Some(name) = tensors.keys().find(unused) {
            return Err(bad(format!("tensor `{name}` has no place in the network")));
        }
    }
    let scalars: Scalars =
        PytorchReader::load_config(path, None).map_err(|e| bad(format!("no training step in it: {e}")))?;
    let critic_updates = scalars.step.checked_mul(cell.train.critic_steps);
    let critic_updates = critic_updates.ok_or_else(|| bad(format!("it claims {} steps", scalars.step)))?;
    let updates = [critic_updates, scalars.step];
    moments(&mut tensors, "optim_D.", &state.critic.params, &state.critic_adam).map_err(bad)?;
    moments(&mut tensors, "optim_G.", &state.generator.params, &state.generator_adam).map_err(bad)?;
    [state.critic_adam.updates, state.generator_adam.updates] = updates;
    let progress = Progress {
        cell: cell.clone(),
        classes,
        images_sha256: String::new(),
        step: scalars.step,
        config_hash: cell.hash()?,
        updates,
        train_s: 0.0,
        untimed: scalars.step,
        peak_bytes: 0,
        diverged: None,
    };
    Ok((state, progress))
}

/// Parameters in PyTorch's order, which optimisers count in: that of their declaration, but for spectral normalisation,
/// which declares the weight anew after the bias.
fn order(params: &Store) -> Vec<(&str, &[usize])> {
    let mut order: Vec<_> = params.layout().collect();
    for i in 1..order.len() {
        let [(weight, _), (bias, _)] = [order[i - 1], order[i]];
        if weight.strip_suffix(".weight_orig").is_some_and(|layer| bias.strip_suffix(".bias") == Some(layer)) {
            order.swap(i - 1, i);
        }
    }
    order
}

/// Adam's two moments.
fn moments(
    tensors: &mut BTreeMap<String, Tensor>,
    prefix: &str,
    params: &Store,
    adam: &Adam,
) -> std::result::Result<(), String> {
    for (target, kind) in adam.moments.iter().zip(["exp_avg", "exp_avg_sq"]) {
        let mut named = BTreeMap::new();
        for (index, (name, _)) in order(params).into_iter().enumerate() {
            let key = format!("{prefix}state.{index}.{kind}");
            let Some(value) = tensors.remove(&key) else { return Err(format!("tensor `{key}` is missing")) };
            named.insert(name.to_owned(), value);
        }
        let stored = params.zeros_like().map_err(|e| e.to_string())?;
        stored.take_from(&mut named, "").map_err(|e| format!("{prefix}{kind}: {e}"))?;
        overwrite(target, stored.flat()).map_err(|e| e.to_string())?;
    }
    Ok(())
}
