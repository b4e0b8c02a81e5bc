//! The per-step log: one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{AtPath, Error, Result};
use crate::files::write_bytes;

/// Name of a run's log in its folder.
pub const FILE: &str = "log.jsonl";

/// One training step. Losses and norms are those of the step's last critic update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Generator updates made, this one included.
    pub step: u64,
    /// Adversarial loss of the critic.
    pub critic_loss: f64,
    /// Loss of the generator.
    pub generator_loss: f64,
    /// Weighted gradient penalty.
    pub penalty: f64,
    /// Weighted consistency regularisation.
    pub consistency: f64,
    /// Mean ‖∇ₓf‖ over the critic's images, where the method computes it.
    pub input_gradient_norm: Option<f64>,
    /// Norm of the critic's parameter gradient.
    pub critic_gradient_norm: f64,
    /// Norm of the generator's parameter gradient.
    pub generator_gradient_norm: f64,
    /// Seconds the step took.
    pub step_s: f64,
}

impl Line {
    /// What is not finite in the step, if anything.
    pub fn fault(&self) -> Option<String> {
        [
            ("the critic's loss", self.critic_loss),
            ("the generator's loss", self.generator_loss),
            ("the gradient penalty", self.penalty),
            ("the consistency term", self.consistency),
            ("the critic's gradient", self.critic_gradient_norm),
            ("the generator's gradient", self.generator_gradient_norm),
        ]
        .into_iter()
        .find(|(_, value)| !value.is_finite())
        .map(|(what, value)| format!("step {}: {what} is {value}", self.step))
    }
}

/// An open log.
pub struct Log {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Log {
    /// Opens the log of a run that goes on from `step`: later lines are dropped. Also gives the lines after `evaluated`.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path, step: u64, evaluated: u64) -> Result<(Self, Vec<Line>)> {
        let (mut kept, mut recent) = (Vec::new(), Vec::new());
        if step > 0 && path.is_file() {
            for line in BufReader::new(File::open(path).at("open", path)?).lines() {
                let line = line.at("read", path)?;
                // A line cut short by a crash is later than the checkpoint.
                let Ok(parsed) = serde_json::from_str::<Line>(&line) else { break };
                if parsed.step > step {
                    break;
                }
                writeln!(kept, "{line}").at("copy", path)?;
                if parsed.step > evaluated {
                    recent.push(parsed);
                }
            }
        }
        write_bytes(path, &kept)?;
        let file = OpenOptions::new().append(true).open(path).at("open", path)?;
        Ok((Self { path: path.to_path_buf(), file: BufWriter::new(file) }, recent))
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, line: &Line) -> Result<()> {
        let json = serde_json::to_string(line).map_err(|e| Error::content(&self.path, e.to_string()))?;
        writeln!(self.file, "{json}").at("write", &self.path)
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().at("write", &self.path)
    }
}
