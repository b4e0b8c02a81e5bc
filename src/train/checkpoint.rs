//! The whole state of a run in one safetensors file: networks, moving average, buffers, Adam moments, and (as JSON in the
//! metadata) the step and all scalars. Written whole or not at all. Random numbers need no saving: they are functions of
//! (seed, purpose, step).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::step::State;
use crate::config::Cell;
use crate::critic::Critic;
use crate::error::{AtPath, Error, Result};
use crate::files::write_bytes;
use crate::generators::Generator;

/// Name of a run's checkpoint in its folder.
pub const FILE: &str = "checkpoint.safetensors";

const KEY: &str = "pgn-bench";
/// Labels are bytes.
const CLASSES: usize = 256;

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
}

fn tensors(state: &State) -> BTreeMap<&'static str, Tensor> {
    let flat = [
        ("critic.params", state.critic.params.flat()),
        ("critic.buffers", state.critic.buffers.flat()),
        ("critic.adam.m", &state.critic_adam.moments[0]),
        ("critic.adam.v", &state.critic_adam.moments[1]),
        ("generator.params", state.generator.params.flat()),
        ("generator.buffers", state.generator.buffers.flat()),
        ("generator.adam.m", &state.generator_adam.moments[0]),
        ("generator.adam.v", &state.generator_adam.moments[1]),
        ("average.params", state.average.params.flat()),
        ("average.buffers", state.average.buffers.flat()),
    ];
    flat.into_iter().map(|(name, t)| (name, t.clone())).collect()
}

/// Writes the checkpoint.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, state: &State, progress: &Progress) -> Result<()> {
    let json = serde_json::to_string(progress).map_err(|e| Error::content(path, format!("cannot serialise: {e}")))?;
    let metadata = HashMap::from([(KEY.to_owned(), json)]);
    let bytes = safetensors::serialize(tensors(state), Some(metadata))
        .map_err(|e| Error::content(path, format!("cannot serialise: {e}")))?;
    write_bytes(path, &bytes)
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
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
        let json =
            header.metadata().as_ref().and_then(|m| m.get(KEY)).ok_or_else(|| bad(format!("no `{KEY}` metadata")))?;
        let progress: Progress = serde_json::from_str(json).map_err(|e| bad(e.to_string()))?;
        progress.cell.check(path)?;
        if !(1..=CLASSES).contains(&progress.classes) {
            return Err(bad(format!("{} classes", progress.classes)));
        }
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
        for (name, target) in tensors(state) {
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
                crate::nn::store::overwrite(&target, &value.to_device(target.device())?)?;
            }
        }
        [state.critic_adam.updates, state.generator_adam.updates] = self.progress.updates;
        Ok(self.progress)
    }
}
