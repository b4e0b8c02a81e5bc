//! Which cells of an experiment a command is about.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::config::{Cell, Experiment, only};

/// An experiment file and what narrows it.
#[derive(clap::Args)]
pub(super) struct Cells {
    /// The experiment's YAML file
    experiment: PathBuf,
    /// Which of the file's scales
    #[arg(long, default_value = "full")]
    scale: String,
    /// Only the cells with these values, such as method=pgn,seed=0
    #[arg(long, value_name = "KEY=VALUE,…")]
    only: Vec<String>,
    /// Replace a setting, such as train.steps=1000 (given last, it wins)
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
}

impl Cells {
    pub(super) fn file(&self) -> &Path {
        &self.experiment
    }

    /// The arguments after the file.
    pub(super) fn narrowing(&self) -> Vec<String> {
        let mut words = vec!["--scale".to_owned(), self.scale.clone()];
        words.extend(self.only.iter().flat_map(|o| ["--only".to_owned(), o.clone()]));
        words.extend(self.set.iter().flat_map(|s| ["--set".to_owned(), s.clone()]));
        words
    }

    pub(super) fn resolve(&self) -> Result<Vec<Cell>> {
        let experiment = Experiment::read(&self.experiment, &self.set)?;
        Ok(only(experiment.resolve(&self.scale)?, &self.only)?)
    }
}
