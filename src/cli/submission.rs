//! What was submitted, as a file beside the runs and as the tasks that engines start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::config::Cell;
use crate::error::{AtPath, Error};
use crate::files::{named, write_bytes};

/// Name of the file that describes a submission.
const FILE: &str = "submission.json";
/// Folder of a submission beside the runs: its description, the experiment as it was, the tasks' output.
pub(super) const FOLDER: &str = "submission";

/// Where the tasks of a submission are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Engine {
    /// A Slurm job of this number.
    Slurm(String),
    /// A pool of this process.
    Pool(u32),
}

/// What was submitted; the position of a cell is its task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Submission {
    pub(super) engine: Engine,
    pub(super) cells: Vec<Cell>,
    /// Where the tasks of a pool run, or ran last.
    #[serde(default)]
    pub(super) devices: BTreeMap<usize, String>,
}

impl Submission {
    /// The submissions below a results folder, each with its own.
    pub(super) fn find(results: &Path) -> Result<Vec<(PathBuf, Self)>> {
        let mut found = Vec::new();
        for path in named(results, &[FILE])? {
            let text = std::fs::read_to_string(&path).at("read", &path)?;
            let submission: Self = serde_json::from_str(&text)
                .map_err(|e| Error::content(&path, format!("not a submission of this version: {e}")))?;
            submission.cells.iter().try_for_each(|cell| cell.check(&path))?;
            found.push((path, submission));
        }
        Ok(found)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        Ok(write_bytes(&folder.join(FILE), &serde_json::to_vec_pretty(self)?)?)
    }
}

/// A task, as both engines start it.
pub(super) struct Task {
    /// `pgn-bench run …`, without the device and the number of the cell.
    pub(super) command: Vec<String>,
    /// A task gets one of these, of which there is one at least.
    pub(super) devices: Vec<String>,
    /// Folder of the submission, where the tasks' output goes.
    pub(super) folder: PathBuf,
}

impl Task {
    /// The command on one of the devices.
    pub(super) fn on(&self, device: &str) -> Vec<String> {
        self.command.iter().map(String::as_str).chain(["--device", device]).map(str::to_owned).collect()
    }
}
