//! What of a run's settings has no column of its own: penalties' γ, augmentation, what moves, and what its neighbours have otherwise.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::config::Cell;
use crate::methods;

/// Settings that tables have columns for.
const SHOWN: [&str; 2] = ["width", "loss"];
/// Settings that are off unless an experiment asks for them.
const EXTRA: [&str; 2] = ["gamma", "augment"];

/// What there is to say of each configuration, by its hash; nothing of those that have nothing peculiar.
pub(super) fn notable(cells: &[Cell]) -> BTreeMap<String, String> {
    let all: Vec<(&Cell, Map<String, Value>)> = cells.iter().map(|cell| (cell, training(cell))).collect();
    let mut by_hash = BTreeMap::new();
    for (cell, train) in &all {
        let place = |c: &Cell| (c.experiment.clone(), c.scale.clone(), c.arch.clone(), c.train.width.to_bits());
        let peers: Vec<&Map<String, Value>> =
            all.iter().filter(|(c, _)| place(c) == place(cell)).map(|(_, train)| train).collect();
        let says = |key: &str, value: &Value| {
            let moves = value.is_object() || (key == "lr_decay" && value != "none");
            // What a peer does not have is said where it is.
            moves || EXTRA.contains(&key) || peers.iter().any(|p| p.get(key).is_some_and(|other| other != value))
        };
        let words: Vec<String> = train
            .iter()
            .filter(|(key, value)| says(key, value))
            .map(|(key, value)| format!("{} {}", key.replace('_', " ").replace("gamma", "γ"), words(value)))
            .collect();
        if let (false, Ok(hash)) = (words.is_empty(), cell.hash()) {
            by_hash.insert(hash, words.join(", "));
        }
    }
    by_hash
}

/// The settings of training that the method has a use for and no column has.
fn training(cell: &Cell) -> Map<String, Value> {
    let Ok(Value::Object(mut train)) = serde_json::to_value(&cell.train) else { return Map::new() };
    let is_penalised = methods::find(&cell.method).is_some_and(|choice| choice.zero_centred.is_some());
    train.retain(|key, _| !SHOWN.contains(&key.as_str()) && (key != "gamma" || is_penalised));
    train
}

/// A number, or how it moves.
fn words(value: &Value) -> String {
    let part = |key: &str| value.get(key).map(words);
    match (part("from"), part("to"), part("images"), part("half_life")) {
        (Some(from), Some(to), Some(images), _) => format!("{from} to {to} over {images} images"),
        (.., Some(half_life)) if value["half_life"].is_number() => format!("halved by {half_life} images"),
        (.., Some(half_life)) => format!("halved by so many images: {half_life}"),
        _ => value.as_str().map_or_else(|| short(value), str::to_owned),
    }
}

/// A whole number without its point.
fn short(value: &Value) -> String {
    let text = value.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Experiment;

    #[test]
    fn penalties_augmentation_schedules_and_differences_are_said() {
        let text = "
name: e
dataset: cifar10
image_size: 32
methods: [gn, r1r2]
seeds: [0]
train: {steps: 100, critic_steps: 1, critic_batch: 8, generator_batch: 8, critic_lr: {from: 2e-4, to: 5e-5, images: 2e7},
  generator_lr: 1e-3, beta1: 0, beta2: 0.9, lr_decay: none, ema_decay: {half_life: 500000}, ema_start: 0, width: 0.25, loss: hinge,
  gamma: 0.05}
architectures: {cnn32: }
eval: {every: 100, images: 300, reference: test, batch_norm: batch, weights: [raw], extractor: classifier}
scales: {smoke: }
";
        let of = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
            Experiment::parse("e.yaml", text, &set).unwrap().resolve("smoke").unwrap()
        };
        let said = |cells: &[Cell]| {
            let by = notable(cells);
            cells.iter().map(|c| by.get(&c.hash().unwrap()).cloned().unwrap_or_default()).collect::<Vec<_>>()
        };
        let moving = "critic lr 0.0002 to 0.00005 over 20000000 images";
        let average = "ema decay halved by 500000 images";
        assert_eq!(said(&of(&[])), [format!("{moving}, {average}"), format!("{moving}, {average}, γ 0.05")]);
        // What differs between two runs is said of both.
        let plain = ["train.critic_lr=1e-3", "train.ema_decay=0.9", "methods=[gn]"];
        let two = [of(&plain), of(&[&plain[..], &["train.steps=50", "train.augment=0.2"]].concat())].concat();
        assert_eq!(said(&two), ["steps 100", "augment 0.2, steps 50"]);
        assert_eq!(said(&two[..1]), [""]);
    }
}
