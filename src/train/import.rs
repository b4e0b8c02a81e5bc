//! Checkpoints of the released GN and PGN code (`net_G`, `ema_G`, `net_D`, `optim_G`, `optim_D`, `step`, by `torch.save`) as
//! the state of a run here, so that they can be evaluated, sampled and, where all of these are there, trained on. Its scripts for many
//! GPUs put `module.` before the names of a network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{Device, Tensor};
use pytorch_reader::PytorchReader;
use serde::Deserialize;

use super::checkpoint::{Part, Progress};
use super::run::networks;
use super::step::State;
use crate::config::Cell;
use crate::error::{Error, Result};
use crate::nn::fir::is_filter;
use crate::nn::store::{Store, overwrite};
use crate::optim::Adam;
use crate::weights;

#[derive(Deserialize)]
struct Scalars {
    step: Option<u64>,
}

/// Reads `path` into the networks of `cell`, over a data set of `classes` classes.
///
/// Parts but for one generator may be missing: they are as new, and [`Progress::lacking`] names them. A file of one network without a
/// name is taken for the averaged generator, which is what is given away.
///
/// # Errors
/// When the file cannot be read, has no generator, or its networks are not the cell's.
pub fn read(path: &Path, cell: &Cell, classes: usize, device: &Device) -> Result<(State, Progress)> {
    let mut tensors = weights::read(path)?;
    let (_, mut state) = networks(cell, classes, device)?;
    let bad = |what: String| {
        Error::content(path, format!("not a checkpoint of the released code with {} at this width: {what}", cell.arch))
    };
    let mut lacking = BTreeSet::new();
    let networks = [
        (Part::Generator, [&state.generator.params, &state.generator.buffers]),
        (Part::Average, [&state.average.params, &state.average.buffers]),
        (Part::Critic, [&state.critic.params, &state.critic.buffers]),
    ];
    let has = |tensors: &BTreeMap<String, Tensor>, prefix: &str| tensors.keys().any(|name| name.starts_with(prefix));
    let named = networks.iter().any(|(part, _)| has(&tensors, &prefix(*part)));
    for (part, stores) in networks {
        let prefix = if named || part != Part::Average { prefix(part) } else { String::new() };
        if !has(&tensors, &prefix) {
            lacking.insert(part);
            continue;
        }
        weights::strip_wrappers(&mut tensors, &prefix, &weights::WRAPPERS);
        for store in stores {
            store.take_from(&mut tensors, &prefix).map_err(|e| bad(e.to_string()))?;
        }
        // Whole numbers are counts that PyTorch keeps and nothing reads.
        let unused = tensors.iter().filter(|(name, t)| name.starts_with(&prefix) && t.dtype().is_float());
        let unused: Vec<_> =
            unused.map(|(name, t)| Ok((name, is_filter(name, t)?))).collect::<candle_core::Result<_>>()?;
        if let Some((name, _)) = unused.into_iter().find(|(_, known)| !known) {
            return Err(bad(format!("tensor `{name}` has no place in the network")));
        }
    }
    if lacking.contains(&Part::Generator) && lacking.contains(&Part::Average) {
        return Err(bad("it has neither `net_G` nor `ema_G`".to_owned()));
    }
    for (part, params, adam) in [
        (Part::CriticAdam, &state.critic.params, &state.critic_adam),
        (Part::GeneratorAdam, &state.generator.params, &state.generator_adam),
    ] {
        if has(&tensors, &prefix(part)) {
            moments(&mut tensors, &prefix(part), params, adam).map_err(bad)?;
        } else {
            lacking.insert(part);
        }
    }
    let step = match PytorchReader::load_config(path, None) {
        Ok(Scalars { step: Some(step) }) => step,
        // What is given away to draw images often says nothing of its training.
        _ if !lacking.is_empty() => 0,
        Ok(_) => return Err(bad("no training step in it".to_owned())),
        Err(e) => return Err(bad(format!("no training step in it: {e}"))),
    };
    let critic_updates = step.checked_mul(cell.train.critic_steps);
    let critic_updates = critic_updates.ok_or_else(|| bad(format!("it claims {step} steps")))?;
    let updates = [critic_updates, step];
    [state.critic_adam.updates, state.generator_adam.updates] = updates;
    let progress = Progress { step, updates, untimed: step, lacking, ..Progress::untrained(cell, classes)? };
    Ok((state, progress))
}

/// What the names of a part's tensors begin with.
fn prefix(part: Part) -> String {
    format!("{}.", part.key())
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
