//! What measuring starts from: device, extractor, reference.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};

use super::choice;
use super::progress::{bar, followed};
use super::terminal::remark;
use crate::config::{Cell, ExtractorKind};
use crate::data::hub::Pinned;
use crate::data::{Images, Split, load};
use crate::error::AtPath;
use crate::machine::compute::Compute;
use crate::machine::precision::Precision;
use crate::metrics::Extractor;
use crate::metrics::classifier::Classifier;
use crate::metrics::inception::resize::Resize;
use crate::metrics::inception::{Inception, OFFICIAL};
use crate::metrics::scores::Family;
use crate::metrics::vit::{clip, dinov2};
use crate::train::evaluate::{Bench, families};

/// A feature extractor by name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Inception,
    Dinov2(dinov2::Resize),
    Clip,
}

impl Choice {
    pub(super) const ALL: [(&str, Self); 6] = [
        ("inception", Self::Inception),
        ("dinov2", Self::Dinov2(dinov2::Resize::Pil)),
        ("dinov2-pil", Self::Dinov2(dinov2::Resize::Pil)),
        ("dinov2-float", Self::Dinov2(dinov2::Resize::Float)),
        ("dinov2-tf", Self::Dinov2(dinov2::Resize::Tf)),
        ("clip", Self::Clip),
    ];

    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, choice)| *choice == self).map_or("unknown", |(name, _)| name)
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::Inception => Family::Inception,
            Self::Dinov2(_) => Family::Dinov2,
            Self::Clip => Family::Clip,
        }
    }
}

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

/// Files of other extractors.
#[derive(clap::Args)]
pub(super) struct Transformers {
    /// DINOv2 weights with transformers' names (model.safetensors of facebook/dinov2-small, -base or -large); else what `fetch dinov2` left
    #[arg(long, value_name = "FILE")]
    dinov2: Option<PathBuf>,
    /// CLIP weights with transformers' names (of openai/clip-vit-large-patch14-336: .safetensors, or its pytorch_model.bin); else what `fetch
    /// clip` left
    #[arg(long, value_name = "FILE")]
    clip: Option<PathBuf>,
}

/// What an extractor's weights are called: by name, by `fetch`, by option.
type Names = [&'static str; 3];

const DINOV2: Names = ["DINOv2", "dinov2", "--dinov2"];
const CLIP: Names = ["CLIP", "clip", "--clip"];

/// The published weights that `fetch` brings under a name.
pub(super) fn published(what: &str) -> Option<Pinned> {
    match what {
        "inception" => Some(OFFICIAL),
        "dinov2" => Some(dinov2::OFFICIAL[0].1),
        "clip" => Some(clip::OFFICIAL),
        _ => {
            let size = what.strip_prefix("dinov2-")?;
            dinov2::OFFICIAL.iter().find(|(name, _)| *name == size).map(|(_, weights)| *weights)
        }
    }
}

/// A file of weights: the given one, or what `fetch` left of the published ones. Its content is not seen.
fn found(given: Option<&PathBuf>, [network, fetched, option]: Names) -> Result<PathBuf> {
    if let Some(file) = given {
        File::open(file).at("open", file)?;
        return Ok(file.clone());
    }
    match published(fetched).and_then(|weights| weights.cached()) {
        Some(cached) => Ok(cached),
        None => bail!("no {network} weights: run `pgn-bench fetch {fetched}`, or give a file as {option}"),
    }
}

/// The same, published ones with their content checked.
fn checked(given: Option<&PathBuf>, names: Names) -> Result<PathBuf> {
    let file = found(given, names)?;
    if let (None, Some(weights)) = (given, published(names[1])) {
        weights.check(&file)?;
    }
    Ok(file)
}

impl Weights {
    const NAMES: Names = ["Inception", "inception", "--weights"];

    /// The files that were given, with the options that name them.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let named = [("--weights", &self.weights), ("--head", &self.head)];
        named.into_iter().filter_map(|(option, file)| Some((option, file.as_deref()?)))
    }

    pub(super) fn inception(&self, resize: Resize, compute: &Compute) -> Result<Inception> {
        let weights = checked(self.weights.as_ref(), Self::NAMES)?;
        // Distances are of f32 features, however the networks are trained.
        let compute = compute.with(Precision::F32);
        Ok(Inception::from_file(&weights, self.head.as_deref(), resize, compute)?)
    }
}

impl Transformers {
    /// The files that were given, with the options that name them.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let named = [("--dinov2", &self.dinov2), ("--clip", &self.clip)];
        named.into_iter().filter_map(|(option, file)| Some((option, file.as_deref()?)))
    }

    /// The extractor of a name, in single precision: distances are of f32 features, however networks are trained.
    pub(super) fn extractor(
        &self,
        which: Choice,
        (inception, resize): (&Weights, Resize),
        compute: &Compute,
    ) -> Result<Box<dyn Extractor>> {
        let compute = compute.with(Precision::F32);
        Ok(match which {
            // What the network makes on the way costs nothing, so it is given whoever asks.
            Choice::Inception => Box::new(inception.inception(resize, &compute)?.with_spatial()),
            Choice::Dinov2(resize) => {
                Box::new(dinov2::from_file(&checked(self.dinov2.as_ref(), DINOV2)?, resize, compute)?)
            }
            Choice::Clip => Box::new(clip::from_file(&checked(self.clip.as_ref(), CLIP)?, compute)?),
        })
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

/// Says which options of extractors have no effect where only these are asked for; `is_scored` where logits are too.
pub(super) fn remark_unused(
    (weights, transformers): (&Weights, &Transformers),
    is_resized: bool,
    families: &[Family],
    is_scored: bool,
) {
    let has = |family: Family| families.contains(&family);
    let unused = [
        ("--weights", weights.weights.is_some(), Family::Inception, has(Family::Inception)),
        ("--head", weights.head.is_some(), Family::Inception, has(Family::Inception)),
        ("--resize", is_resized, Family::Inception, has(Family::Inception)),
        ("--dinov2", transformers.dinov2.is_some(), Family::Dinov2, has(Family::Dinov2)),
        ("--clip", transformers.clip.is_some(), Family::Clip, has(Family::Clip)),
    ];
    for (option, is_given, family, is_asked) in unused {
        if is_given && !is_asked {
            remark(format_args!("{option} has no effect: nothing here is measured over {}", family.name()));
        }
    }
    if weights.head.is_some() && has(Family::Inception) && !is_scored {
        remark("--head has no effect: no Inception Score is asked for");
    }
}

/// Refuses what the evaluations of a cell would stumble over, and says which options they have no use for. Nothing is read. Where only a
/// plan is wanted, Inception's published weights may still be fetched.
pub(super) fn check(cell: &Cell, weights: &Weights, transformers: &Transformers, is_plan: bool) -> Result<()> {
    let mut families = families(cell)?;
    families.retain(|(family, _)| (*family, cell.eval.extractor) != (Family::Inception, ExtractorKind::Classifier));
    for (family, _) in &families {
        match family {
            Family::Inception => match found(weights.weights.as_ref(), Weights::NAMES) {
                Err(missing) if is_plan && weights.weights.is_none() => remark(missing),
                found => drop(found?),
            },
            Family::Dinov2 => drop(found(transformers.dinov2.as_ref(), DINOV2)?),
            Family::Clip => drop(found(transformers.clip.as_ref(), CLIP)?),
        }
    }
    let is_scored = families.iter().any(|(_, measures)| measures.iter().any(|m| m.is_of_one()));
    let asked: Vec<Family> = families.into_iter().map(|(family, _)| family).collect();
    remark_unused((weights, transformers), false, &asked, is_scored);
    Ok(())
}

/// Data, extractors and reference that all cells of an experiment share.
pub(super) fn bench(
    cell: &Cell,
    (weights, transformers): (&Weights, &Transformers),
    compute: &Compute,
) -> Result<Bench> {
    // The files that may be missing come before the work.
    let open = |family: Family| {
        match (family, cell.eval.extractor) {
            (Family::Inception, ExtractorKind::Classifier) => Ok(None),
            (Family::Inception, ExtractorKind::Inception) => Ok(Some(Choice::Inception)),
            (Family::Dinov2, _) => Ok(Some(Choice::Dinov2(dinov2::Resize::Pil))),
            (Family::Clip, _) => Ok(Some(Choice::Clip)),
        }
        .and_then(|choice| {
            choice.map(|choice| transformers.extractor(choice, (weights, cell.eval.resize), compute)).transpose()
        })
    };
    let opened = families(cell)?.iter().map(|(family, _)| open(*family)).collect::<Result<Vec<_>>>()?;
    let train = loaded(cell, cell.split)?;
    let reference = if cell.eval.reference == cell.split { train.clone() } else { loaded(cell, cell.eval.reference)? };
    let mut extractors: Vec<Box<dyn Extractor>> = Vec::new();
    for extractor in opened {
        extractors.push(match extractor {
            Some(extractor) => extractor,
            None => classifier(&train, &reference)?,
        });
    }
    let taking = bar(&format!("features of {}", reference.name), reference.len() as u64, "images");
    let bench = Bench::new(cell, train, &reference, extractors, compute, &mut |done| taking.set_position(done as u64))?;
    taking.finish_and_clear();
    Ok(bench)
}

/// The classifier of a data set, trained where it is not there yet.
fn classifier(train: &Images, reference: &Images) -> Result<Box<dyn Extractor>> {
    train.labelled()?;
    let classifier = followed("training the feature classifier", "steps", |progress| {
        Ok(Classifier::cached(train, &mut |step, of| progress(step as usize, of as usize))?)
    })?;
    let accuracy = 100.0 * classifier.accuracy_on(reference)?;
    remark(format_args!("extractor {} classifies {accuracy:.1} % of {} rightly", classifier.id(), reference.name));
    Ok(Box::new(classifier))
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
