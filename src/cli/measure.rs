//! `pgn-bench fid`, `is`, `kid`, `pr`, `stats`: one measure of collections of images, whoever made them.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use candle_core::Tensor;
use serde_json::{Value, json};

use super::collection::{Collection, Options, orders, remark_statistics, shown};
use super::progress::bar;
use super::replicates;
use super::setup::Choice;
use super::terminal::{remark, say};
use crate::data::source::arrays::Arrays;
use crate::files::{check_output, has_extension};
use crate::metrics::collect::{Collected, Needs};
use crate::metrics::frechet::{Gaussian, Reference};
use crate::metrics::inception_score::SPLITS;
use crate::metrics::manifold::Manifold;
use crate::metrics::npz::{self, Protocol, Statistics};
use crate::metrics::scores::{Family, RANK_DEFICIENT, SMALL_SUBSETS, SUBSETS};
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
    family: Family,
    extractor: OnceCell<Box<dyn Extractor>>,
}

impl<'a> Measure<'a> {
    /// Of these collections.
    fn new(options: &'a Options, of: &[&OsStr]) -> Result<Self> {
        options.check_streams(of)?;
        let choice = options.only()?;
        Ok(Self { options, choice, family: choice.family(), extractor: OnceCell::new() })
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

    /// Says which options have no effect on a measure of images that has no use for logits.
    fn remark_unused(&self) {
        self.options.remark_unused(&[self.family], false);
    }

    /// Prints a result over images.
    fn print(&self, result: (&str, &[&OsStr]), values: Value, text: &str, warning: Option<&str>) -> Result<()> {
        self.print_over(&[Some(self.protocol()?)], result, values, text, warning);
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
        let order = known.first().zip(known.last()).map(|(a, b)| orders(Some(&a.order), Some(&b.order)));
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

/// Fréchet and kernel distances have names of their own over Inception, as they are written.
fn written(name: &str) -> String {
    if matches!(name, "fid" | "kid") { name.to_uppercase() } else { name.to_owned() }
}

/// Images of a subset: as many as asked for, or 1000 by custom, or all of the smaller side where it has fewer, which is said.
pub(super) fn subset(asked: Option<usize>, fewest: usize) -> Result<usize> {
    match asked {
        Some(size) if size > fewest => bail!(
            "--size {size}: a subset cannot be larger than the smaller collection, which has {fewest} images; give --size {fewest} or less, or \
             leave it out"
        ),
        Some(size) => Ok(size),
        None => Ok(SUBSETS[1].min(fewest)),
    }
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
        if holds_images {
            let name = shown(name);
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

pub(super) fn fid(options: &Options, of @ [real, generated]: [&OsStr; 2], bootstrap: usize) -> Result<()> {
    let m = Measure::new(options, &of)?;
    let (of_real, of_generated) = (Side::open(&m, real)?, Side::open(&m, generated)?);
    match [&of_real, &of_generated] {
        [Side::Given(_), Side::Given(_)] if options.n.is_some() => {
            bail!("-n takes some of the images, and both sides are statistics")
        }
        [Side::Given(_), Side::Of(images)] if options.n.is_some() => remark_statistics(&shown(real), &images.name),
        [Side::Of(images), Side::Given(_)] if options.n.is_some() => remark_statistics(&shown(generated), &images.name),
        _ => {}
    }
    let [(dim, real_protocol), (generated_dim, generated_protocol)] =
        [of_real.protocol(&m)?, of_generated.protocol(&m)?];
    let protocols = [real_protocol, generated_protocol];
    check_comparable(of, [dim, generated_dim], &protocols)?;
    let is_of_images = matches!([&of_real, &of_generated], [Side::Of(_), _] | [_, Side::Of(_)]);
    options.remark_unused(if is_of_images { std::slice::from_ref(&m.family) } else { &[] }, false);
    // Statistics say what they are of, whatever was asked for.
    let family = protocols.iter().flatten().next().map_or(m.family, |protocol| Family::of(&protocol.extractor));
    if bootstrap > 0 && matches!(of_generated, Side::Given(_)) {
        bail!("--bootstrap draws images of {} again, but it has none", shown(generated));
    }
    let of_real = of_real.gaussian(&m)?;
    let (of_generated, features) = match of_generated {
        Side::Of(of) if bootstrap > 0 => {
            let taken = m.collect(&of, Needs { gaussian: true, keep: of.n, ..Needs::default() })?;
            (taken.gaussian.ok_or_else(|| anyhow!("{} gave no statistics", of.name))?, taken.kept)
        }
        side => (side.gaussian(&m)?, None),
    };
    let reference = Reference::new(&of_real)?;
    let value = reference.distance(&of_generated)?;
    let drawing = bar("bootstrap", bootstrap as u64, "replicates");
    let error = features.map(|f| reference.bootstrap(&f, bootstrap, 0, &mut || drawing.inc(1))).transpose()?;
    drawing.finish_and_clear();
    // A foreign npz does not say how many images it was taken from.
    let numbers = [&of_real, &of_generated].map(|of| (of.n > 0).then_some(of.n));
    let warning = numbers.iter().flatten().min().filter(|&&n| n <= dim).map(|_| RANK_DEFICIENT);
    let (text, interval) = with_interval(value, error);
    let name = family.named("fd");
    let values = json!({&name: value, "interval": interval, "n": numbers});
    m.print_over(&protocols, (&name, &of), values, &format!("{} {text}", written(&name)), warning);
    Ok(())
}

pub(super) fn inception_score(options: &Options, a: &OsStr) -> Result<()> {
    let m = Measure::new(options, &[a])?;
    if m.family != Family::Inception {
        bail!("the Inception Score is of Inception's classes, and {} has none: leave --extractor out", m.family.name());
    }
    options.remark_unused(&[m.family], true);
    let Some(classes) = m.extractor()?.classes() else {
        bail!("the weights have no `fc.weight`, which the Inception Score needs: give a file with it as --head");
    };
    let images = m.open(a, SPLITS)?;
    let of = m.collect(&images, Needs { classes: Some(classes), ..Needs::default() })?;
    let Some(score) = of.inception else { bail!("{} gave no score", images.name) };
    let values = json!({"is_mean": score.mean, "is_std": score.std, "n": images.n, "splits": SPLITS});
    let protocol = Protocol { sha256: m.extractor()?.logits_sha256().to_owned(), ..m.protocol()? };
    let text = format!("IS {:.6} ± {:.6}", score.mean, score.std);
    m.print_over(&[Some(protocol)], ("is", &[a]), values, &text, None);
    Ok(())
}

/// Subsets of the Kernel Inception Distance, and bootstrap replicates.
#[derive(clap::Args)]
pub(super) struct Subsets {
    /// Random subsets
    #[arg(long, default_value_t = SUBSETS[0])]
    subsets: usize,
    /// Images of a subset; if not given 1000, or all of the smaller collection where it has fewer, with a warning
    #[arg(long)]
    size: Option<usize>,
    /// Give a 95 % interval from N bootstrap replicates of the generated images (20 at least)
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = replicates)]
    bootstrap: usize,
}

pub(super) fn kernel_distance(options: &Options, of: [&OsStr; 2], how: &Subsets) -> Result<()> {
    let &Subsets { subsets, size, bootstrap } = how;
    if subsets == 0 || size.is_some_and(|size| size < PAIR) {
        bail!("--subsets is at least 1, and --size at least {PAIR}");
    }
    let m = Measure::new(options, &of)?;
    m.remark_unused();
    let (real, generated) = (m.open(of[0], PAIR)?, m.open(of[1], PAIR)?);
    let size = subset(size, real.n.min(generated.n))?;
    let (x, y) = (m.features(&real)?, m.features(&generated)?);
    let all = kid::mmd2(&x, &y)?;
    let error = if bootstrap > 0 { Some(kid::bootstrap(&x, &y, bootstrap, 0)?) } else { None };
    let over_subsets = kid::over_subsets(&x, &y, subsets, size, 0)?;
    let (over_all, interval) = with_interval(all, error);
    let name = m.family.named("kd");
    let [mean, std, of_all] = ["mean", "std", "all"].map(|part| format!("{name}_{part}"));
    let values = json!({
        mean: over_subsets.mean, std: over_subsets.std, of_all: all, "interval": interval, "subsets": subsets, "size": size,
    });
    let text = format!(
        "{} {:.6} ± {:.6} ({subsets} subsets of {size}), {over_all} over all images",
        written(&name),
        over_subsets.mean,
        over_subsets.std
    );
    let warning = (how.size.is_none() && size < SUBSETS[1]).then_some(SMALL_SUBSETS);
    m.print((&name, &of), values, &text, warning)
}

pub(super) fn precision_recall(options: &Options, of: [&OsStr; 2], k: usize) -> Result<()> {
    if k == 0 {
        bail!("-k 0: balls reach to the k-th neighbour, and k is at least 1");
    }
    let m = Measure::new(options, &of)?;
    m.remark_unused();
    // The k-th neighbour of an image is another one.
    let (real, generated) = (m.open(of[0], k.saturating_add(1))?, m.open(of[1], k.saturating_add(1))?);
    let shares = manifold::manifold(&m.features(&real)?, &m.features(&generated)?, k)?;
    let Manifold { precision, recall, density, coverage } = shares;
    let values = json!({"precision": precision, "recall": recall, "density": density, "coverage": coverage, "k": k});
    let text = format!(
        "precision {precision:.4}, recall {recall:.4}, density {density:.4}, coverage {coverage:.4} (k = {k}, {} real, {} generated)",
        real.name, generated.name
    );
    m.print((&m.family.named("pr"), &of), values, &text, None)
}

pub(super) fn statistics(options: &Options, a: &OsStr, output: &Path) -> Result<()> {
    check_output(output, Some("npz"))?;
    if npz::are_in(Path::new(a)) {
        bail!("{} holds statistics already: give the images to take others from", shown(a));
    }
    let m = Measure::new(options, &[a])?;
    m.remark_unused();
    let spatial = m.choice == Choice::Inception;
    let of = m.collect(&m.open(a, PAIR)?, Needs { gaussian: true, spatial, ..Needs::default() })?;
    let Some(gaussian) = &of.gaussian else { bail!("{} gave no statistics", shown(a)) };
    npz::write(output, gaussian, of.spatial.as_ref(), None, &m.protocol()?)?;
    let file = output.display().to_string();
    let text = format!("{} images: mean and covariance in {file}", of.images);
    m.print(("stats", &[a]), json!({"n": of.images, "file": file}), &text, None)
}
