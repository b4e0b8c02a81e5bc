//! A resolved cell: what one training run depends on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::keys::{Eval, LrDecay, Train};
use super::read;
use super::schedule::Schedule;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::files::sha256;
use crate::losses::Loss;
use crate::optim::{Pace, linear_decay};

/// Everything a training run depends on (besides the program): its canonical JSON is hashed into every row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Experiment.
    pub experiment: String,
    /// Scale the file was resolved at.
    pub scale: String,
    /// Data set.
    pub dataset: Dataset,
    /// Split that is trained on.
    pub split: Split,
    /// Side of the images in pixels.
    pub image_size: usize,
    /// Architecture of both networks.
    pub arch: String,
    /// Method, `+cr` included.
    pub method: String,
    /// Seed.
    pub seed: u64,
    /// Training.
    pub train: Train,
    /// Evaluation.
    pub eval: Eval,
    /// What was changed while it was trained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// A setting that a run was resumed with another value of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Steps made before.
    pub step: u64,
    /// The setting, such as `train.steps`.
    pub key: String,
    /// Its value before.
    pub old: serde_json::Value,
    /// Its value since.
    pub new: serde_json::Value,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} changed from {} to {} at step {}", self.key, self.old, self.new, self.step)
    }
}

impl Train {
    /// Real images that the critic has seen after so many steps.
    pub fn images_seen(&self, steps: u64) -> u64 {
        steps * self.critic_steps * self.critic_batch as u64
    }

    /// What Adam is given at a step by a learning rate.
    fn pace(&self, lr: Schedule, step: u64) -> Pace {
        let seen = self.images_seen(step);
        let factor = match self.lr_decay {
            LrDecay::None => 1.0,
            LrDecay::Linear => linear_decay(step, 0, self.steps),
        };
        Pace { rate: lr.at(seen) * factor, beta2: self.beta2.at(seen) }
    }

    /// What the critic's optimiser is given at a step.
    pub fn critic_pace(&self, step: u64) -> Pace {
        self.pace(self.critic_lr, step)
    }

    /// What the generator's optimiser is given at a step.
    pub fn generator_pace(&self, step: u64) -> Pace {
        self.pace(self.generator_lr, step)
    }

    /// γ at a step; zero where there is none.
    pub fn gamma(&self, step: u64) -> f64 {
        self.gamma.map_or(0.0, |gamma| gamma.at(self.images_seen(step)))
    }

    /// Probability of each augmentation at a step, where there are any.
    pub fn augment(&self, step: u64) -> Option<f64> {
        self.augment.map(|augment| augment.at(self.images_seen(step)))
    }

    /// Decay of the generator's average after a step: zero, which copies the generator, before it starts.
    pub fn average_decay(&self, step: u64) -> f64 {
        if step + 1 >= self.ema_start { self.ema_decay.decay(self.images_seen(step), self.images_seen(1)) } else { 0.0 }
    }
}

fn json(of: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(of).map_err(|e| Error::invalid(format!("cannot serialise a cell: {e}")))
}

fn digest(json: &str) -> String {
    sha256(json.as_bytes())[..16].to_owned()
}

impl Cell {
    /// Folder of the run below the experiment's, and the cell's name in messages.
    pub fn name(&self) -> String {
        format!("{}-{}-s{}", self.arch, self.method, self.seed)
    }

    /// Folder of the experiment below the results.
    pub fn group(&self) -> String {
        format!("{}-{}", self.experiment, self.scale)
    }

    /// Checks a cell that was read from a file.
    ///
    /// # Errors
    /// With all values that no experiment file could have; they are of `file`.
    pub fn check(&self, file: &Path) -> Result<()> {
        let faults = read::faults(self).map_err(|e| Error::content(file, e.to_string()))?;
        if faults.is_empty() { Ok(()) } else { Err(Error::Config { file: file.display().to_string(), faults }) }
    }

    /// Canonical JSON.
    ///
    /// # Errors
    /// Never for a resolved cell.
    pub fn json(&self) -> Result<String> {
        json(self)
    }

    /// First 16 digits of the SHA-256 of the canonical JSON.
    ///
    /// # Errors
    /// As for [`Cell::json`].
    pub fn hash(&self) -> Result<String> {
        Ok(digest(&self.json()?))
    }

    /// [`Cell::hash`] without the seed: the same for cells that differ in nothing else.
    ///
    /// # Errors
    /// As for [`Cell::json`].
    pub fn family(&self) -> Result<String> {
        Self { seed: 0, ..self.clone() }.hash()
    }

    /// Hash of what runs of one data set, architecture and protocol must share to be compared: how they are trained, the loss and γ
    /// excepted, and the images generated at a time.
    ///
    /// # Errors
    /// As for [`Cell::json`].
    pub fn settings(&self) -> Result<String> {
        let train = Train { loss: Loss::Hinge, gamma: None, ..self.train.clone() };
        Ok(digest(&json(&(train, self.eval.batch))?))
    }
}
