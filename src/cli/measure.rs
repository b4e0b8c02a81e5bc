//! `pgn-bench fid`, `is`, `kid`, `pr`, `stats`: measures of collections of images, whoever made them.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use candle_core::Tensor;
use serde_json::json;

use super::progress::bar;
use crate::data::source::Source;
use crate::metrics::frechet::{FeatureSums, Gaussian, distance};
use crate::metrics::inception::Inception;
use crate::metrics::inception::resize::Resize;
use crate::metrics::inception::weights::OFFICIAL;
use crate::metrics::inception_score::{ProbabilitySums, SPLITS};
use crate::metrics::{BATCH, Extractor, kid, manifold, npz};

/// Fewer images than features leave a covariance without full rank.
const FULL_RANK: &str = "fewer images than features: the covariance is rank-deficient, and the distance biased upwards";

/// What every measure takes.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Inception weights with pytorch-fid's names (.safetensors, .pth); else the official ones that `fetch inception` left
    #[arg(long)]
    weights: Option<PathBuf>,
    /// A file with `fc.weight`, when the weights have none (needed for the Inception Score only)
    #[arg(long)]
    head: Option<PathBuf>,
    /// How images are brought to 299×299 pixels
    #[arg(long, value_parser = resize, default_value = "tf")]
    resize: Resize,
    /// Only the first N images of each collection
    #[arg(short, long)]
    n: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn resize(name: &str) -> std::result::Result<Resize, String> {
    let all = [Resize::Tf, Resize::Torch, Resize::Clean];
    all.into_iter().find(|r| r.id() == name).ok_or_else(|| "expected tf, torch or clean".to_owned())
}

/// Images to measure, opened before any work starts.
struct Collection {
    name: String,
    source: Source,
    n: usize,
}

/// Statistics to compare: given, or still to be taken.
enum Statistics {
    Known(Gaussian),
    Of(Collection),
}

/// The extractor and what results say of it.
struct Measure<'a> {
    options: &'a Options,
    inception: Inception,
}

impl<'a> Measure<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let weights = match (&options.weights, OFFICIAL.cached()) {
            (Some(file), _) => file.clone(),
            (None, Some(_)) => OFFICIAL.fetch()?,
            (None, None) => bail!("no Inception weights: run `pgn-bench fetch inception`, or give a file as --weights"),
        };
        let inception = Inception::from_file(&weights, options.head.as_deref(), options.resize)?;
        Ok(Self { options, inception })
    }

    /// Opens a collection and checks that it has as many images as asked for.
    fn open(&self, name: &str) -> Result<Collection> {
        let source = Source::open(name)?;
        let n = self.options.n.unwrap_or(source.len());
        if n > source.len() {
            bail!("{name} has {} images, fewer than -n {n}", source.len());
        }
        Ok(Collection { name: name.to_owned(), source, n })
    }

    /// Shows each batch's features to `each`.
    fn stream(&self, of: &Collection, mut each: impl FnMut(Tensor, Option<Tensor>) -> Result<()>) -> Result<()> {
        let progress = bar(&of.name, of.n as u64, "images");
        for first in (0..of.n).step_by(BATCH) {
            let pictures = of.source.read(first, BATCH.min(of.n - first))?;
            let (features, logits) = self.inception.features_and_logits(&pictures)?;
            each(features, logits)?;
            progress.inc(pictures.len() as u64);
        }
        progress.finish_and_clear();
        Ok(())
    }

    fn features(&self, of: &Collection) -> Result<Tensor> {
        let mut parts = Vec::new();
        self.stream(of, |features, _| {
            parts.push(features);
            Ok(())
        })?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// A collection, or the statistics in an npz file.
    fn open_statistics(&self, name: &str) -> Result<Statistics> {
        let path = Path::new(name);
        if path.extension().is_some_and(|e| e == "npz") {
            return Ok(Statistics::Known(npz::read(path)?));
        }
        Ok(Statistics::Of(self.open(name)?))
    }

    fn gaussian(&self, statistics: Statistics) -> Result<Gaussian> {
        let collection = match statistics {
            Statistics::Known(gaussian) => return Ok(gaussian),
            Statistics::Of(collection) => collection,
        };
        let mut sums = FeatureSums::new(self.inception.dim())?;
        self.stream(&collection, |features, _| Ok(sums.add(&features)?))?;
        Ok(sums.finish()?)
    }

    fn print(&self, metric: &str, of: &[&str], values: serde_json::Value, text: &str, warning: Option<&str>) {
        if let Some(warning) = warning {
            eprintln!("warning: {warning}");
        }
        if self.options.json {
            let line = json!({
                "metric": metric, "of": of, "values": values, "extractor": self.inception.id(),
                "extractor_sha256": self.inception.weights_sha256(), "resize": self.inception.resize(),
                "warning": warning,
            });
            println!("{line}");
        } else {
            println!("{text}");
            let (id, sha) = (self.inception.id(), &self.inception.weights_sha256()[..8]);
            println!("over {id} ({sha}…), resize {}", self.inception.resize());
        }
    }
}

pub(super) fn fid(options: &Options, a: &str, b: &str) -> Result<()> {
    let m = Measure::new(options)?;
    let (of_a, of_b) = (m.open_statistics(a)?, m.open_statistics(b)?);
    let (of_a, of_b) = (m.gaussian(of_a)?, m.gaussian(of_b)?);
    let value = distance(&of_a, &of_b)?;
    // An npz does not say how many images it was taken from.
    let fewest = [&of_a, &of_b].into_iter().map(|g| g.n).filter(|&n| n > 0).min();
    let warning = fewest.filter(|&n| n <= of_a.mean.len()).map(|_| FULL_RANK);
    m.print("fid", &[a, b], json!({"fid": value, "n": [of_a.n, of_b.n]}), &format!("FID {value:.6}"), warning);
    Ok(())
}

pub(super) fn inception_score(options: &Options, a: &str) -> Result<()> {
    let m = Measure::new(options)?;
    let images = m.open(a)?;
    let n = images.n;
    let Some(classes) = m.inception.head_classes() else {
        bail!("the weights have no `fc.weight`, which the Inception Score needs: give a file with it as --head");
    };
    let mut sums = ProbabilitySums::new(n, classes);
    m.stream(&images, |_, logits| match logits {
        Some(logits) => Ok(sums.add(&logits)?),
        None => bail!("the network gave no logits"),
    })?;
    let score = sums.finish()?;
    let values = json!({"is_mean": score.mean, "is_std": score.std, "n": n, "splits": SPLITS});
    m.print("is", &[a], values, &format!("IS {:.6} ± {:.6}", score.mean, score.std), None);
    Ok(())
}

pub(super) fn kernel_distance(options: &Options, a: &str, b: &str, subsets: usize, size: usize) -> Result<()> {
    let m = Measure::new(options)?;
    let (of_a, of_b) = (m.open(a)?, m.open(b)?);
    let fewest = of_a.n.min(of_b.n);
    if size > fewest {
        bail!("--size {size}: a subset cannot be larger than the smaller collection, which has {fewest} images");
    }
    let (x, y) = (m.features(&of_a)?, m.features(&of_b)?);
    let all = kid::mmd2(&x, &y)?;
    let of = kid::over_subsets(&x, &y, subsets, size, 0)?;
    let values = json!({"kid_mean": of.mean, "kid_std": of.std, "kid_all": all, "subsets": subsets, "size": size});
    let text = format!("KID {:.6} ± {:.6} ({subsets} subsets of {size}), {all:.6} over all images", of.mean, of.std);
    m.print("kid", &[a, b], values, &text, None);
    Ok(())
}

pub(super) fn precision_recall(options: &Options, a: &str, b: &str, k: usize) -> Result<()> {
    let m = Measure::new(options)?;
    let (of_a, of_b) = (m.open(a)?, m.open(b)?);
    let of = manifold::manifold(&m.features(&of_a)?, &m.features(&of_b)?, k)?;
    let values = json!({
        "precision": of.precision, "recall": of.recall, "density": of.density, "coverage": of.coverage, "k": k,
    });
    let text = format!(
        "precision {:.4}, recall {:.4}, density {:.4}, coverage {:.4} (k = {k}, {a} real, {b} generated)",
        of.precision, of.recall, of.density, of.coverage
    );
    m.print("pr", &[a, b], values, &text, None);
    Ok(())
}

pub(super) fn statistics(options: &Options, a: &str, output: &Path) -> Result<()> {
    let m = Measure::new(options)?;
    let of = m.gaussian(m.open_statistics(a)?)?;
    npz::write(output, &of)?;
    let text = format!("{} images: mean and covariance in {}", of.n, output.display());
    m.print("stats", &[a], json!({"n": of.n, "file": output}), &text, None);
    Ok(())
}
