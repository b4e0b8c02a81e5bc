//! The whole state of a run in one safetensors file: networks, moving average, buffers, Adam moments, and (as JSON in the
//! metadata) the step and all scalars. Written whole or not at all. Random numbers need no saving: they are functions of
//! (seed, purpose, step).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::tensor::Metadata;
use serde::{Deserialize, Serialize};

use super::step::State;
use crate::config::{Cell, Weights};
use crate::critic::Critic;
use crate::data::source::Labels;
use crate::error::{AtPath, Error, Result};
use crate::files::write_bytes;
use crate::generators::Generator;
use crate::nn::store::{Store, overwrite};

/// Name of a run's checkpoint in its folder.
pub const FILE: &str = "checkpoint.safetensors";

const KEY: &str = "pgn-bench";

/// The scalars of a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// What is trained.
    pub cell: Cell,
    /// Classes of the data set.
    pub classes: usize,
    /// SHA-256 of the training images' pixels; empty where they are not known (an import).
    pub images_sha256: String,
    /// Generator updates made.
    pub step: u64,
    /// Hash of the resolved configuration.
    pub config_hash: String,
    /// Adam updates of critic and generator.
    pub updates: [u64; 2],
    /// Seconds of training so far, evaluation excluded.
    pub train_s: f64,
    /// Updates made elsewhere, whose seconds are not known.
    #[serde(default)]
    pub untimed: u64,
    /// Most memory resident while training so far, in bytes; 0 where it is not known.
    pub peak_bytes: u64,
    /// Why the run ended early, when it diverged after this checkpoint.
    pub diverged: Option<String>,
    /// What the file that it was imported from lacked: training cannot go on from it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lacking: BTreeSet<Part>,
}

impl Progress {
    /// Before the first update.
    ///
    /// # Errors
    /// Never for a resolved cell.
    pub fn untrained(cell: &Cell, classes: usize) -> Result<Self> {
        Ok(Self {
            cell: cell.clone(),
            classes,
            images_sha256: String::new(),
            step: 0,
            config_hash: cell.hash()?,
            updates: [0, 0],
            train_s: 0.0,
            untimed: 0,
            peak_bytes: 0,
            diverged: None,
            lacking: BTreeSet::new(),
        })
    }

    /// Whether a generator is there.
    pub fn has(&self, weights: Weights) -> bool {
        !self.lacking.contains(&Part::of(weights))
    }

    /// The generators that the run evaluates, of those that are there; else the one that is.
    pub fn generators(&self) -> Vec<Weights> {
        let there = |of: &[Weights]| of.iter().copied().filter(|w| self.has(*w)).collect();
        let own: Vec<Weights> = there(&self.cell.eval.weights);
        if own.is_empty() { there(&[Weights::Raw, Weights::Ema]) } else { own }
    }

    /// Refuses what needs a part that was never there.
    ///
    /// # Errors
    /// When the file that the checkpoint at `path` was imported from lacked one of `parts`.
    pub fn require(&self, path: &Path, parts: &[Part]) -> Result<()> {
        match parts.iter().find(|part| self.lacking.contains(part)) {
            None => Ok(()),
            Some(part) => {
                Err(Error::content(path, format!("imported from a file without {}, which this needs", part.key())))
            }
        }
    }

    /// Refuses to train on from networks or optimisers that were never there.
    ///
    /// # Errors
    /// When the file that the checkpoint at `path` was imported from lacked some.
    pub fn refuse_partial(&self, path: &Path) -> Result<()> {
        if self.lacking.is_empty() {
            return Ok(());
        }
        let what =
            format!("imported from a file without {}, so training cannot go on from it", Part::list(&self.lacking));
        Err(Error::content(path, format!("{what}: import one that has all, or start again with --overwrite")))
    }
}

/// A part of a checkpoint of the released code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Part {
    /// The generator.
    Generator,
    /// Its moving average.
    Average,
    /// The critic.
    Critic,
    /// The generator's optimiser.
    GeneratorAdam,
    /// The critic's optimiser.
    CriticAdam,
}

impl Part {
    /// The generator of these weights.
    pub fn of(weights: Weights) -> Self {
        match weights {
            Weights::Raw => Self::Generator,
            Weights::Ema => Self::Average,
        }
    }

    /// Its key in the file.
    pub fn key(self) -> &'static str {
        match self {
            Self::Generator => "net_G",
            Self::Average => "ema_G",
            Self::Critic => "net_D",
            Self::GeneratorAdam => "optim_G",
            Self::CriticAdam => "optim_D",
        }
    }

    /// The keys of some.
    pub fn list(of: &BTreeSet<Self>) -> String {
        of.iter().map(|part| part.key()).collect::<Vec<_>>().join(", ")
    }
}

/// Every vector of a state by name, with the store whose layout it has.
fn vectors(state: &State) -> [(&'static str, &Tensor, &Store); 10] {
    let (critic, generator, average) = (&state.critic, &state.generator, &state.average);
    let [critic_m, critic_v] = &state.critic_adam.moments;
    let [generator_m, generator_v] = &state.generator_adam.moments;
    [
        ("critic.params", critic.params.flat(), &critic.params),
        ("critic.buffers", critic.buffers.flat(), &critic.buffers),
        ("critic.adam.m", critic_m, &critic.params),
        ("critic.adam.v", critic_v, &critic.params),
        ("generator.params", generator.params.flat(), &generator.params),
        ("generator.buffers", generator.buffers.flat(), &generator.buffers),
        ("generator.adam.m", generator_m, &generator.params),
        ("generator.adam.v", generator_v, &generator.params),
        ("average.params", average.params.flat(), &average.params),
        ("average.buffers", average.buffers.flat(), &average.buffers),
    ]
}

/// Writes the checkpoint.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, state: &State, progress: &Progress) -> Result<()> {
    let metadata = scalars(progress).map_err(|e| Error::content(path, format!("cannot serialise: {e}")))?;
    let in_order = |(name, flat, store): (&'static str, &Tensor, &Store)| Ok((name, store.to_file(flat)?));
    let tensors = vectors(state).into_iter().map(in_order).collect::<Result<BTreeMap<_, _>>>()?;
    let bytes = safetensors::serialize(tensors, Some(metadata))
        .map_err(|e| Error::content(path, format!("cannot serialise: {e}")))?;
    write_bytes(path, &bytes)
}

/// The scalars as the metadata of a safetensors file.
///
/// # Errors
/// Never for a run's.
pub fn scalars(progress: &Progress) -> serde_json::Result<HashMap<String, String>> {
    Ok(HashMap::from([(KEY.to_owned(), serde_json::to_string(progress)?)]))
}

/// The checked scalars of a safetensors file, and what it says of its tensors; `bad` makes an error of a fault.
///
/// # Errors
/// When there are none, or they are not those of a run.
pub fn read_scalars(path: &Path, bytes: &[u8], bad: &dyn Fn(String) -> Error) -> Result<(Progress, Metadata)> {
    let (_, header) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| bad(e.to_string()))?;
    let json =
        header.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| bad(format!("no `{KEY}` metadata")))?;
    let progress: Progress = serde_json::from_str(json).map_err(|e| bad(e.to_string()))?;
    progress.cell.check(path)?;
    if !(1..=Labels::MOST).contains(&progress.classes) {
        return Err(bad(format!("{} classes", progress.classes)));
    }
    if progress.generators().is_empty() {
        return Err(bad("it has no generator".to_owned()));
    }
    Ok((progress, header))
}

/// A checkpoint file, its scalars read.
pub struct Stored {
    path: PathBuf,
    bytes: Vec<u8>,
    /// The scalars.
    pub progress: Progress,
}

impl Stored {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no checkpoint of this program.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).at("read", path)?;
        let bad = |what: String| Error::content(path, format!("not a checkpoint of this program: {what}"));
        let (progress, header) = read_scalars(path, &bytes, &bad)?;
        // Before networks are built of a size that the file does not have.
        let (arch, width) = (&progress.cell.arch, progress.cell.train.width);
        for (name, needed) in [
            ("critic.params", Critic::parameters(arch, width, progress.classes)?),
            ("generator.params", Generator::parameters(arch, width, progress.classes)?),
        ] {
            let stored: usize = header.info(name).map_or(0, |tensor| tensor.shape.iter().product());
            if stored != needed {
                return Err(bad(format!("{stored} numbers in `{name}`, but {arch} of width {width} has {needed}")));
            }
        }
        Ok(Self { path: path.to_path_buf(), bytes, progress })
    }

    /// Puts its tensors into a state of the same networks.
    ///
    /// # Errors
    /// When the file is damaged or belongs to other networks; the state may then be partly overwritten.
    pub fn restore(self, state: &mut State) -> Result<Progress> {
        let bad = |what: String| Error::content(&self.path, format!("not a checkpoint of these networks: {what}"));
        let mut stored =
            candle_core::safetensors::load_buffer(&self.bytes, &Device::Cpu).map_err(|e| bad(e.to_string()))?;
        for (name, target, store) in vectors(state) {
            let Some(value) = stored.remove(name) else { return Err(bad(format!("tensor `{name}` is missing"))) };
            if value.dims() != target.dims() || value.dtype() != target.dtype() {
                return Err(bad(format!(
                    "tensor `{name}` is {:?} {:?}, expected {:?} {:?}",
                    value.dtype(),
                    value.dims(),
                    target.dtype(),
                    target.dims()
                )));
            }
            if target.elem_count() > 0 {
                overwrite(target, &store.from_file(&value.to_device(target.device())?)?)?;
            }
        }
        [state.critic_adam.updates, state.generator_adam.updates] = self.progress.updates;
        Ok(self.progress)
    }
}
