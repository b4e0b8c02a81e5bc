//! Which cells of an experiment a command is about.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::config::{Cell, Experiment, only};

/// An experiment file and what narrows it.
#[derive(clap::Args)]
pub(super) struct Cells {
    /// The experiment's YAML file
    experiment: PathBuf,
    #[command(flatten)]
    narrowing: Narrowing,
}

/// What narrows an experiment.
#[derive(clap::Args)]
pub(super) struct Narrowing {
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
        let Narrowing { scale, only, set } = &self.narrowing;
        let mut words = vec!["--scale".to_owned(), scale.clone()];
        words.extend(only.iter().flat_map(|o| ["--only".to_owned(), o.clone()]));
        words.extend(set.iter().flat_map(|s| ["--set".to_owned(), s.clone()]));
        words
    }

    pub(super) fn resolve(&self) -> Result<Vec<Cell>> {
        self.narrowing.resolve(&self.experiment)
    }
}

impl Narrowing {
    /// The cells that are left of an experiment's file.
    pub(super) fn resolve(&self, file: &Path) -> Result<Vec<Cell>> {
        let experiment = Experiment::read(file, &self.set)?;
        Ok(only(experiment.resolve(&self.scale)?, &self.only)?)
    }

    /// Whether cells or settings are named.
    pub(super) fn names_some(&self) -> bool {
        !self.only.is_empty() || !self.set.is_empty()
    }
}
