//! What measuring starts from: device, extractor, reference.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};

use super::choice;
use super::progress::{bar, followed};
use super::terminal::remark;
use crate::config::{Cell, ExtractorKind};
use crate::data::{Images, Split, load};
use crate::machine::compute::Compute;
use crate::machine::precision::Precision;
use crate::metrics::Extractor;
use crate::metrics::classifier::Classifier;
use crate::metrics::inception::resize::Resize;
use crate::metrics::inception::{Inception, OFFICIAL};
use crate::train::evaluate::Bench;

/// Files of the Inception network.
#[derive(clap::Args)]
pub(super) struct Weights {
    /// Inception weights with pytorch-fid's names (.safetensors, .pth); else the official ones that `fetch inception` left
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// A file with `fc.weight`, when the weights have none (needed for the Inception Score only)
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
}

impl Weights {
    /// The files that were given, with the options that name them.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let named = [("--weights", &self.weights), ("--head", &self.head)];
        named.into_iter().filter_map(|(option, file)| Some((option, file.as_deref()?)))
    }

    pub(super) fn inception(&self, resize: Resize, compute: &Compute) -> Result<Inception> {
        let weights = match (&self.weights, OFFICIAL.cached()) {
            (Some(file), _) => file.clone(),
            (None, Some(_)) => OFFICIAL.fetch()?,
            (None, None) => bail!("no Inception weights: run `pgn-bench fetch inception`, or give a file as --weights"),
        };
        // Distances are of f32 features, however the networks are trained.
        let compute = compute.with(Precision::F32);
        Ok(Inception::from_file(&weights, self.head.as_deref(), resize, compute)?)
    }
}

/// Where to compute, and how.
#[derive(clap::Args)]
pub(super) struct Place {
    /// Where to compute: cpu, cuda or cuda:N (a GPU needs a build with `--features cuda`)
    #[arg(long, default_value = "cpu")]
    pub(super) device: String,
    /// What products are computed in; tf32, the default of a GPU, and bf16 are a GPU's only
    #[arg(long, value_parser = choice(&Precision::ALL))]
    pub(super) precision: Option<Precision>,
    /// Let a GPU use only algorithms that give the same bits every time; the cpu always does
    #[arg(long)]
    deterministic: bool,
    /// Make a device's training updates call by call, without recording them
    #[arg(long)]
    no_graph: bool,
}

impl Place {
    /// The arguments after the device.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(precision) = self.precision {
            words.extend(["--precision".to_owned(), precision.id().to_owned()]);
        }
        words.extend(self.deterministic.then(|| "--deterministic".to_owned()));
        words.extend(self.no_graph.then(|| "--no-graph".to_owned()));
        words
    }

    pub(super) fn open(&self) -> Result<Compute> {
        self.open_on(&self.device)
    }

    /// Another device in its place.
    pub(super) fn open_on(&self, device: &str) -> Result<Compute> {
        let open = Compute::open(device, self.precision, self.deterministic)?;
        Ok(Compute { graph: !self.no_graph, ..open })
    }
}

/// Data, extractor and reference that all cells of an experiment share.
pub(super) fn bench(cell: &Cell, weights: &Weights, compute: &Compute) -> Result<Bench> {
    // The file that may be missing comes before the work.
    let inception = match cell.eval.extractor {
        ExtractorKind::Inception => Some(weights.inception(cell.eval.resize, compute)?),
        ExtractorKind::Classifier => None,
    };
    let train = loaded(cell, cell.split)?;
    let reference = if cell.eval.reference == cell.split { train.clone() } else { loaded(cell, cell.eval.reference)? };
    let extractor: Box<dyn Extractor> = match inception {
        Some(inception) => Box::new(inception),
        None => {
            train.labelled()?;
            let classifier = followed("training the feature classifier", "steps", |progress| {
                Ok(Classifier::cached(&train, &mut |step, of| progress(step as usize, of as usize))?)
            })?;
            let accuracy = 100.0 * classifier.accuracy_on(&reference)?;
            remark(format_args!(
                "extractor {} classifies {accuracy:.1} % of {} rightly",
                classifier.id(),
                reference.name
            ));
            Box::new(classifier)
        }
    };
    let taking = bar(&format!("features of {}", reference.name), reference.len() as u64, "images");
    let bench = Bench::new(cell, train, &reference, extractor, compute, &mut |done| taking.set_position(done as u64))?;
    taking.finish_and_clear();
    Ok(bench)
}

/// A split of a cell's data set, with a bar while it is decoded.
pub(super) fn loaded(cell: &Cell, split: Split) -> Result<Arc<Images>> {
    let what = format!("{}:{split} at {} pixels", cell.dataset.name(), cell.image_size);
    let images = followed(&what, "images", |progress| Ok(load(&cell.dataset, split, cell.image_size, progress)?))?;
    if !images.converted.is_empty() {
        remark(format_args!("{}: {} images were made RGB", images.name, images.converted));
    }
    Ok(images)
}
