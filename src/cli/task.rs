//! A task of a submission, as both engines start it.

use std::path::PathBuf;

pub(super) struct Task {
    /// `pgn-bench run …`, without the number of the cell.
    pub(super) command: Vec<String>,
    /// Folder of the submission, where the tasks' output goes.
    pub(super) folder: PathBuf,
}
