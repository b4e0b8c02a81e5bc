//! What measuring starts from: device, extractor, reference.

use std::path::PathBuf;

use anyhow::{Result, bail};
use candle_core::Device;

use super::progress::bar;
use crate::config::{Cell, ExtractorKind};
use crate::data::{Split, load};
use crate::metrics::Extractor;
use crate::metrics::classifier::Classifier;
use crate::metrics::inception::Inception;
use crate::metrics::inception::resize::Resize;
use crate::metrics::inception::weights::OFFICIAL;
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
    pub(super) fn inception(&self, resize: Resize) -> Result<Inception> {
        let weights = match (&self.weights, OFFICIAL.cached()) {
            (Some(file), _) => file.clone(),
            (None, Some(_)) => OFFICIAL.fetch()?,
            (None, None) => bail!("no Inception weights: run `pgn-bench fetch inception`, or give a file as --weights"),
        };
        Ok(Inception::from_file(&weights, self.head.as_deref(), resize)?)
    }
}

pub(super) fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        other => bail!("--device {other}: this build computes on the cpu only"),
    }
}

/// Data, extractor and reference that all cells of an experiment share.
pub(super) fn bench(cell: &Cell, weights: &Weights, device: Device) -> Result<Bench> {
    // The file that may be missing comes before the work.
    let inception = match cell.eval.extractor {
        ExtractorKind::Inception => Some(weights.inception(cell.eval.resize)?),
        ExtractorKind::Classifier => None,
    };
    eprintln!("loading {} at {}×{}", cell.dataset, cell.image_size, cell.image_size);
    let train = load(&cell.dataset, Split::Train, cell.image_size)?;
    let test = load(&cell.dataset, Split::Test, cell.image_size)?;
    let extractor: Box<dyn Extractor> = match inception {
        Some(inception) => Box::new(inception),
        None => {
            let training = bar("training the feature classifier", 1, "steps");
            let classifier = Classifier::cached(&train, &test, &mut |step, of| {
                training.set_length(of);
                training.set_position(step);
            })?;
            training.finish_and_clear();
            eprintln!(
                "extractor {} classifies {:.1} % of the {} test images rightly",
                classifier.id(),
                100.0 * classifier.accuracy.unwrap_or(0.0),
                test.len()
            );
            Box::new(classifier)
        }
    };
    let reference = if cell.eval.reference == "test" { &test } else { &train };
    let taking = bar(&format!("features of {}", reference.name), reference.len() as u64, "images");
    let bench =
        Bench::new(cell, train.clone(), reference, extractor, device, &mut |done| taking.set_position(done as u64))?;
    taking.finish_and_clear();
    Ok(bench)
}
