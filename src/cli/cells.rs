//! Which cells of an experiment a command is about.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::embedded;
use crate::config::{Cell, Experiment, only};
use crate::yaml;

/// An experiment's text: of the file or, where there is none, of the program's experiment of that name.
fn text(name: &Path) -> Result<Cow<'static, str>> {
    match (name.is_file(), name.to_str().and_then(embedded::experiment)) {
        (false, Some(text)) => Ok(text.into()),
        (true, _) => Ok(yaml::read(name)?.into()),
        (false, None) => yaml::read(name).map(Cow::from).map_err(|e| {
            let beside = name.with_extension("yaml");
            if name.extension().is_none() && beside.is_file() {
                return anyhow!("{e}; there is {}", beside.display());
            }
            anyhow!(
                "{e}; `pgn-bench init NAME` writes one to start from, and these are in the program: {}",
                embedded::names()
            )
        }),
    }
}

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
    /// Only the cells with these values, such as method=gn,pgn,seed=0 (of gn or pgn, seed 0)
    #[arg(long, value_name = "KEY=VALUE,…")]
    only: Vec<String>,
    /// Replace a setting, such as train.steps=1000 (given last, it wins)
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<String>,
}

impl Cells {
    pub(super) fn text(&self) -> Result<Cow<'static, str>> {
        text(&self.experiment)
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
    /// The cells that are left of an experiment.
    pub(super) fn resolve(&self, experiment: &Path) -> Result<Vec<Cell>> {
        let read = Experiment::parse(&experiment.display().to_string(), &text(experiment)?, &self.set)?;
        Ok(only(read.resolve(&self.scale)?, &self.only)?)
    }

    /// Whether cells or settings are named.
    pub(super) fn names_some(&self) -> bool {
        !self.only.is_empty() || !self.set.is_empty()
    }
}
