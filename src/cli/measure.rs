//! `pgn-bench fid`, `is`, `kid`, `pr`, `stats`: measures of collections of images, whoever made them.

use std::path::Path;

use anyhow::{Result, bail};
use candle_core::Tensor;
use serde_json::json;

use super::choice;
use super::progress::{bar, followed};
use super::setup::{Place, Weights};
use super::terminal::{remark, say};
use crate::data::source::{self, Named, Picture};
use crate::metrics::collect::{Collected, Collector, Needs};
use crate::metrics::frechet::{Gaussian, Reference};
use crate::metrics::inception::Inception;
use crate::metrics::inception::resize::Resize;
use crate::metrics::inception_score::SPLITS;
use crate::metrics::{BATCH, Extractor, kid, manifold, npz, reference};
use crate::train::rows::{RANK_DEFICIENT, interval};

/// What every measure takes.
#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    weights: Weights,
    #[command(flatten)]
    place: Place,
    /// How images are brought to 299×299 pixels
    #[arg(long, value_parser = choice(&Resize::ALL), default_value = "tf")]
    resize: Resize,
    /// Only the first N images of each collection
    #[arg(short, long)]
    n: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Images to measure, opened before any work starts.
struct Collection {
    name: String,
    images: Named,
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
        Ok(Self { options, inception: options.weights.inception(options.resize, &options.place.open()?)? })
    }

    /// Opens a collection and checks that it has as many images as asked for.
    fn open(&self, name: &str) -> Result<Collection> {
        let images = followed(name, "images decoded", |progress| Ok(source::open(name.as_ref(), progress)?))?;
        let len = images.source().len();
        let n = self.options.n.unwrap_or(len);
        if n > len {
            bail!("{name} has {len} images, fewer than -n {n}");
        }
        Ok(Collection { name: name.to_owned(), images, n })
    }

    fn collect(&self, of: &Collection, needs: Needs) -> Result<Collected> {
        let progress = bar(&of.name, of.n as u64, "images");
        let mut collector = Collector::new(of.n, self.inception.dim(), needs)?;
        let mut left = of.n;
        for batch in of.images.source().batches((0..of.n).collect(), BATCH) {
            let mut pictures: Vec<Picture> = batch?;
            pictures.truncate(left);
            if pictures.is_empty() {
                break;
            }
            collector.add(&self.inception.extract(&pictures)?)?;
            progress.inc(pictures.len() as u64);
            left -= pictures.len();
        }
        progress.finish_and_clear();
        Ok(collector.finish()?)
    }

    fn features(&self, of: &Collection) -> Result<Tensor> {
        let needs = Needs { keep: of.n, ..Needs::default() };
        self.collect(of, needs)?.kept.ok_or_else(|| anyhow::anyhow!("{} has no image", of.name))
    }

    /// A collection, or the statistics in an npz file.
    fn open_statistics(&self, name: &str) -> Result<Statistics> {
        let path = Path::new(name);
        if path.extension().is_some_and(|e| e == "npz") {
            return Ok(Statistics::Known(npz::read(path)?.0));
        }
        Ok(Statistics::Of(self.open(name)?))
    }

    fn gaussian(&self, statistics: Statistics) -> Result<Gaussian> {
        let collection = match statistics {
            Statistics::Known(gaussian) => return Ok(gaussian),
            Statistics::Of(collection) => collection,
        };
        let of = if let Named::Split(images) = &collection.images {
            let progress = bar(&collection.name, collection.n as u64, "images");
            let done = &mut |done| progress.set_position(done as u64);
            let of = reference::statistics(&self.inception, images, collection.n, 0, done)?;
            progress.finish_and_clear();
            of
        } else {
            self.collect(&collection, Needs { gaussian: true, ..Needs::default() })?
        };
        of.gaussian.ok_or_else(|| anyhow::anyhow!("{} gave no statistics", collection.name))
    }

    fn print(&self, metric: &str, of: &[&str], values: serde_json::Value, text: &str, warning: Option<&str>) {
        if let Some(warning) = warning {
            remark(format_args!("warning: {warning}"));
        }
        if self.options.json {
            let line = json!({
                "metric": metric, "of": of, "values": values, "extractor": self.inception.id(),
                "extractor_sha256": self.inception.weights_sha256(), "resize": self.inception.resize(),
                "warning": warning,
            });
            say(line);
        } else {
            say(text);
            let (id, sha) = (self.inception.id(), &self.inception.weights_sha256()[..8]);
            say(format_args!("over {id} ({sha}…), resize {}", self.inception.resize()));
        }
    }
}

/// A value with its 95 % interval, in text and JSON.
fn with_interval(value: f64, error: Option<f64>) -> (String, serde_json::Value) {
    let Some(error) = error else { return (format!("{value:.6}"), serde_json::Value::Null) };
    let [low, high] = interval(value, error);
    let text = format!("{value:.6} (95 % interval {low:.6} to {high:.6}, bootstrap)");
    (text, json!({"standard_error": error, "low": low, "high": high}))
}

pub(super) fn fid(options: &Options, a: &str, b: &str, bootstrap: usize) -> Result<()> {
    let m = Measure::new(options)?;
    let (of_a, of_b) = (m.open_statistics(a)?, m.open_statistics(b)?);
    let (of_a, features) = match of_a {
        Statistics::Known(_) if bootstrap > 0 => bail!("--bootstrap draws images of {a} again, but it has none"),
        Statistics::Of(collection) if bootstrap > 0 => {
            let of = m.collect(&collection, Needs { gaussian: true, classes: None, keep: collection.n })?;
            (of.gaussian.ok_or_else(|| anyhow::anyhow!("{a} gave no statistics"))?, of.kept)
        }
        statistics => (m.gaussian(statistics)?, None),
    };
    let of_b = m.gaussian(of_b)?;
    let reference = Reference::new(&of_b)?;
    let value = reference.distance(&of_a)?;
    let drawing = bar("bootstrap", bootstrap as u64, "replicates");
    let error = features.map(|f| reference.bootstrap(&f, bootstrap, 0, &mut || drawing.inc(1))).transpose()?;
    drawing.finish_and_clear();
    // A foreign npz does not say how many images it was taken from.
    let fewest = [&of_a, &of_b].into_iter().map(|g| g.n).filter(|&n| n > 0).min();
    let warning = fewest.filter(|&n| n <= of_a.mean.len()).map(|_| RANK_DEFICIENT);
    let (text, interval) = with_interval(value, error);
    let values = json!({"fid": value, "interval": interval, "n": [of_a.n, of_b.n]});
    m.print("fid", &[a, b], values, &format!("FID {text}"), warning);
    Ok(())
}

pub(super) fn inception_score(options: &Options, a: &str) -> Result<()> {
    let m = Measure::new(options)?;
    let images = m.open(a)?;
    let n = images.n;
    let Some(classes) = m.inception.classes() else {
        bail!("the weights have no `fc.weight`, which the Inception Score needs: give a file with it as --head");
    };
    let of = m.collect(&images, Needs { classes: Some(classes), ..Needs::default() })?;
    let Some(score) = of.inception else { bail!("{a} gave no score") };
    let values = json!({"is_mean": score.mean, "is_std": score.std, "n": n, "splits": SPLITS});
    m.print("is", &[a], values, &format!("IS {:.6} ± {:.6}", score.mean, score.std), None);
    Ok(())
}

/// Subsets of the Kernel Inception Distance, and bootstrap replicates.
#[derive(clap::Args)]
pub(super) struct Subsets {
    /// Random subsets
    #[arg(long, default_value_t = 100)]
    subsets: usize,
    /// Images of a subset
    #[arg(long, default_value_t = 1000)]
    size: usize,
    /// Give a 95 % interval from N bootstrap replicates of the first collection
    #[arg(long, value_name = "N", default_value_t = 0)]
    bootstrap: usize,
}

pub(super) fn kernel_distance(options: &Options, a: &str, b: &str, of: &Subsets) -> Result<()> {
    let &Subsets { subsets, size, bootstrap } = of;
    let m = Measure::new(options)?;
    let (of_a, of_b) = (m.open(a)?, m.open(b)?);
    let fewest = of_a.n.min(of_b.n);
    if size > fewest {
        bail!("--size {size}: a subset cannot be larger than the smaller collection, which has {fewest} images");
    }
    let (x, y) = (m.features(&of_a)?, m.features(&of_b)?);
    let all = kid::mmd2(&y, &x)?;
    let error = if bootstrap > 0 { Some(kid::bootstrap(&y, &x, bootstrap, 0)?) } else { None };
    let of = kid::over_subsets(&y, &x, subsets, size, 0)?;
    let (over_all, interval) = with_interval(all, error);
    let values = json!({
        "kid_mean": of.mean, "kid_std": of.std, "kid_all": all, "interval": interval, "subsets": subsets, "size": size,
    });
    let text = format!("KID {:.6} ± {:.6} ({subsets} subsets of {size}), {over_all} over all images", of.mean, of.std);
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
    npz::write(output, &of, None)?;
    let text = format!("{} images: mean and covariance in {}", of.n, output.display());
    m.print("stats", &[a], json!({"n": of.n, "file": output.to_string_lossy()}), &text, None);
    Ok(())
}
