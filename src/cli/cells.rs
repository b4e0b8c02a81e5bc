//! Which cells of an experiment a command is about.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::embedded;
use crate::config::{Cell, Experiment, only};
use crate::yaml;

/// An experiment file and what narrows it.
#[derive(clap::Args)]
pub(super) struct Cells {
    /// The experiment's YAML file; where there is none of this name, an experiment of the program: demo, cifar10, stl10, …
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
    /// The experiment's text: of the file or, where there is none, of the experiment of that name.
    pub(super) fn text(&self) -> Result<Cow<'static, str>> {
        let name = &self.experiment;
        match (name.is_file(), name.to_str().and_then(embedded::experiment)) {
            (false, Some(text)) => Ok(text.into()),
            (true, _) => Ok(yaml::read(name)?.into()),
            (false, None) => yaml::read(name).map(Cow::from).map_err(|e| {
                anyhow!(
                    "{e}; `pgn-bench init NAME` writes one to start from, and these are in the program: {}",
                    embedded::names()
                )
            }),
        }
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
        self.narrowing.of(&Experiment::parse(
            &self.experiment.display().to_string(),
            &self.text()?,
            &self.narrowing.set,
        )?)
    }
}

impl Narrowing {
    /// The cells that are left of an experiment's file.
    pub(super) fn resolve(&self, file: &Path) -> Result<Vec<Cell>> {
        self.of(&Experiment::read(file, &self.set)?)
    }

    fn of(&self, experiment: &Experiment) -> Result<Vec<Cell>> {
        Ok(only(experiment.resolve(&self.scale)?, &self.only)?)
    }

    /// Whether cells or settings are named.
    pub(super) fn names_some(&self) -> bool {
        !self.only.is_empty() || !self.set.is_empty()
    }
}
