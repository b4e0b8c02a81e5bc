//! `pgn-bench fid`, `is`, `kid`, `pr`, `stats`: one measure of collections of images, whoever made them.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use candle_core::Tensor;
use serde_json::{Value, json};

use super::collection::{Collection, Options, shown};
use super::progress::bar;
use super::setup::Choice;
use super::terminal::{remark, say};
use crate::data::source::arrays::Arrays;
use crate::files::{check_output, has_extension};
use crate::metrics::collect::{Collected, Needs};
use crate::metrics::frechet::{Gaussian, Reference};
use crate::metrics::inception_score::SPLITS;
use crate::metrics::npz::{self, Protocol, Statistics};
use crate::metrics::scores::RANK_DEFICIENT;
use crate::metrics::{Extractor, kid, manifold};
use crate::train::rows::interval;

/// Images that a covariance needs.
const PAIR: usize = 2;

/// A side of a comparison: statistics that were given, or images to take them from.
enum Side {
    Given(Statistics),
    Of(Collection),
}

/// How images are measured. The extractor is read when the first images are met: statistics need none.
struct Measure<'a> {
    options: &'a Options,
    choice: Choice,
    extractor: OnceCell<Box<dyn Extractor>>,
}

impl<'a> Measure<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        Ok(Self { options, choice: options.only()?, extractor: OnceCell::new() })
    }

    fn extractor(&self) -> Result<&dyn Extractor> {
        if self.extractor.get().is_none() {
            let opened = self.options.open_extractor(self.choice)?;
            self.extractor.get_or_init(|| opened);
        }
        self.extractor.get().map(AsRef::as_ref).ok_or_else(|| anyhow!("no extractor"))
    }

    fn protocol(&self) -> Result<Protocol> {
        Ok(Protocol::of(self.extractor()?, self.options.order))
    }

    fn open(&self, name: &OsStr, needed: usize) -> Result<Collection> {
        // What may be missing comes before what takes long.
        self.extractor()?;
        self.options.open(name, needed)
    }

    fn collect(&self, of: &Collection, needs: Needs) -> Result<Collected> {
        self.options.collect(of, (self.extractor()?, needs))
    }

    fn features(&self, of: &Collection) -> Result<Tensor> {
        let needs = Needs { keep: of.n, ..Needs::default() };
        self.collect(of, needs)?.kept.ok_or_else(|| anyhow!("{} has no image", of.name))
    }

    fn gaussian(&self, of: &Collection) -> Result<Gaussian> {
        let taken = self.collect(of, Needs { gaussian: true, ..Needs::default() })?;
        taken.gaussian.ok_or_else(|| anyhow!("{} gave no statistics", of.name))
    }

    /// Prints a result over images.
    fn print(&self, metric: &str, of: &[&OsStr], values: Value, text: &str) -> Result<()> {
        self.print_over(&[Some(self.protocol()?)], (metric, of), values, text, None);
        Ok(())
    }

    /// Prints a result with the protocol of each side; `None` is one that a file does not say.
    fn print_over(
        &self,
        protocols: &[Option<Protocol>],
        (metric, of): (&str, &[&OsStr]),
        values: Value,
        text: &str,
        warning: Option<&str>,
    ) {
        if let Some(warning) = warning {
            remark(format_args!("warning: {warning}"));
        }
        let of: Vec<String> = of.iter().map(|name| shown(name)).collect();
        let known: Vec<&Protocol> = protocols.iter().flatten().collect();
        let unknown: Vec<&String> =
            of.iter().zip(protocols).filter(|(_, p)| p.is_none()).map(|(name, _)| name).collect();
        let mut orders: Vec<&str> = known.iter().map(|p| p.order.as_str()).collect();
        orders.dedup();
        let order = (!orders.is_empty()).then(|| orders.join(" and "));
        if self.options.json {
            let protocol = known.first();
            say(json!({
                "metric": metric, "of": of, "values": values, "extractor": protocol.map(|p| &p.extractor),
                "extractor_sha256": protocol.map(|p| &p.sha256), "resize": protocol.map(|p| &p.resize), "order": order,
                "unknown_protocol": unknown, "warning": warning,
            }));
            return;
        }
        say(text);
        if let (Some(protocol), Some(order)) = (known.first(), order) {
            say(format_args!("over {protocol}, order {order}"));
        }
        for name in unknown {
            say(format_args!("over features of unknown protocol: {name} does not say how they were made"));
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

/// Standard deviations need two values.
fn check_replicates(bootstrap: usize) -> Result<()> {
    if bootstrap == 1 {
        bail!("--bootstrap 1: a standard error needs at least 2 replicates");
    }
    Ok(())
}

impl Side {
    /// Opens a file of statistics or a collection of images. A file of both is compared by its statistics.
    fn open(m: &Measure, name: &OsStr) -> Result<Self> {
        let path = Path::new(name);
        let is_array = ["npz", "npy"].iter().any(|extension| has_extension(path, extension));
        let holds_images = is_array && Arrays::open(path).is_ok();
        if !is_array || !path.is_file() || (holds_images && !npz::are_in(path)) {
            return Ok(Self::Of(m.open(name, PAIR)?));
        }
        let name = shown(name);
        if m.options.n.is_some() {
            bail!("-n takes some of the images, and {name} is compared by its statistics, not by images");
        }
        if holds_images {
            remark(format_args!("{name} holds statistics and images: its statistics are compared"));
        }
        Ok(Self::Given(npz::read(path)?))
    }

    /// Width of the features, and what they are made with.
    fn protocol(&self, m: &Measure) -> Result<(usize, Option<Protocol>)> {
        match self {
            Self::Given(of) => Ok((of.gaussian.mean.len(), of.protocol.clone())),
            Self::Of(_) => Ok((m.extractor()?.dim(), Some(m.protocol()?))),
        }
    }

    fn gaussian(self, m: &Measure) -> Result<Gaussian> {
        match self {
            Self::Given(of) => Ok(of.gaussian),
            Self::Of(of) => m.gaussian(&of),
        }
    }
}

/// Checks that two sides may be compared: their names, the widths of their features, their protocols.
fn check_comparable([a, b]: [&OsStr; 2], dims: [usize; 2], protocols: &[Option<Protocol>; 2]) -> Result<()> {
    let [a, b] = [a, b].map(shown);
    if dims[0] != dims[1] {
        bail!("{a} has features of {} dimensions, {b} of {}: they cannot be compared", dims[0], dims[1]);
    }
    if let [Some(of_a), Some(of_b)] = protocols
        && !of_a.agrees(of_b)
    {
        bail!("{a} is over {of_a}, {b} over {of_b}: no distance between them means anything; measure both in one way");
    }
    Ok(())
}

pub(super) fn fid(options: &Options, a: &OsStr, b: &OsStr, bootstrap: usize) -> Result<()> {
    check_replicates(bootstrap)?;
    let m = Measure::new(options)?;
    let (side_a, side_b) = (Side::open(&m, a)?, Side::open(&m, b)?);
    let [(dim_a, protocol_a), (dim_b, protocol_b)] = [side_a.protocol(&m)?, side_b.protocol(&m)?];
    let protocols = [protocol_a, protocol_b];
    check_comparable([a, b], [dim_a, dim_b], &protocols)?;
    let (of_a, features) = match side_a {
        Side::Given(_) if bootstrap > 0 => bail!("--bootstrap draws images of {} again, but it has none", shown(a)),
        Side::Of(of) if bootstrap > 0 => {
            let taken = m.collect(&of, Needs { gaussian: true, keep: of.n, ..Needs::default() })?;
            (taken.gaussian.ok_or_else(|| anyhow!("{} gave no statistics", of.name))?, taken.kept)
        }
        side => (side.gaussian(&m)?, None),
    };
    let of_b = side_b.gaussian(&m)?;
    let reference = Reference::new(&of_b)?;
    let value = reference.distance(&of_a)?;
    let drawing = bar("bootstrap", bootstrap as u64, "replicates");
    let error = features.map(|f| reference.bootstrap(&f, bootstrap, 0, &mut || drawing.inc(1))).transpose()?;
    drawing.finish_and_clear();
    // A foreign npz does not say how many images it was taken from.
    let numbers = [&of_a, &of_b].map(|of| (of.n > 0).then_some(of.n));
    let warning = numbers.iter().flatten().min().filter(|&&n| n <= of_a.mean.len()).map(|_| RANK_DEFICIENT);
    let (text, interval) = with_interval(value, error);
    let values = json!({"fid": value, "interval": interval, "n": numbers});
    m.print_over(&protocols, ("fid", &[a, b]), values, &format!("FID {text}"), warning);
    Ok(())
}

pub(super) fn inception_score(options: &Options, a: &OsStr) -> Result<()> {
    let m = Measure::new(options)?;
    let Some(classes) = m.extractor()?.classes() else {
        bail!("the weights have no `fc.weight`, which the Inception Score needs: give a file with it as --head");
    };
    let images = m.open(a, SPLITS)?;
    let of = m.collect(&images, Needs { classes: Some(classes), ..Needs::default() })?;
    let Some(score) = of.inception else { bail!("{} gave no score", images.name) };
    let values = json!({"is_mean": score.mean, "is_std": score.std, "n": images.n, "splits": SPLITS});
    m.print("is", &[a], values, &format!("IS {:.6} ± {:.6}", score.mean, score.std))
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

pub(super) fn kernel_distance(options: &Options, a: &OsStr, b: &OsStr, of: &Subsets) -> Result<()> {
    let &Subsets { subsets, size, bootstrap } = of;
    check_replicates(bootstrap)?;
    if subsets == 0 || size < PAIR {
        bail!("{subsets} subsets of {size} images: --subsets is at least 1, and --size at least {PAIR}");
    }
    let m = Measure::new(options)?;
    let (of_a, of_b) = (m.open(a, PAIR)?, m.open(b, PAIR)?);
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
    m.print("kid", &[a, b], values, &text)
}

pub(super) fn precision_recall(options: &Options, a: &OsStr, b: &OsStr, k: usize) -> Result<()> {
    if k == 0 {
        bail!("-k 0: balls reach to the k-th neighbour, and k is at least 1");
    }
    let m = Measure::new(options)?;
    // The k-th neighbour of an image is another one.
    let (of_a, of_b) = (m.open(a, k.saturating_add(1))?, m.open(b, k.saturating_add(1))?);
    let of = manifold::manifold(&m.features(&of_a)?, &m.features(&of_b)?, k)?;
    let values = json!({
        "precision": of.precision, "recall": of.recall, "density": of.density, "coverage": of.coverage, "k": k,
    });
    let text = format!(
        "precision {:.4}, recall {:.4}, density {:.4}, coverage {:.4} (k = {k}, {} real, {} generated)",
        of.precision, of.recall, of.density, of.coverage, of_a.name, of_b.name
    );
    m.print("pr", &[a, b], values, &text)
}

pub(super) fn statistics(options: &Options, a: &OsStr, output: &Path) -> Result<()> {
    check_output(output, Some("npz"))?;
    if npz::are_in(Path::new(a)) {
        bail!("{} holds statistics already: give the images to take others from", shown(a));
    }
    let m = Measure::new(options)?;
    let spatial = m.choice == Choice::Inception;
    let of = m.collect(&m.open(a, PAIR)?, Needs { gaussian: true, spatial, ..Needs::default() })?;
    let Some(gaussian) = &of.gaussian else { bail!("{} gave no statistics", shown(a)) };
    npz::write(output, gaussian, of.spatial.as_ref(), None, &m.protocol()?)?;
    let file = output.display().to_string();
    let text = format!("{} images: mean and covariance in {file}", of.images);
    m.print("stats", &[a], json!({"n": of.images, "file": file}), &text)
}
