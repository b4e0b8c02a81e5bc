//! `pgn-bench measure`: all measures of two collections of images, from one pass over each.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::json;
use sha2::Sha256;

use super::checkpoint::check_rows;
use super::collection::{Collection, Options, Wanted, orders, remark_statistics, shown};
use super::measure::subset;
use super::progress::bar;
use super::setup::Choice;
use super::terminal::{remark, say, show};
use super::{choice, replicates};
use crate::files::{file_digest, sha256};
use crate::metrics::Extractor;
use crate::metrics::collect::{Collected, Needs};
use crate::metrics::npz;
use crate::metrics::scores::{Comparison, Family, METRICS, Measure, Metric, SUBSETS, Score, Settings, needs};
use crate::report::images;
use crate::results::{self, Row, metric};
use crate::train::rows::interval;

/// Bytes of features that are worth a word.
const MUCH: usize = 1 << 30;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The real images, or an npz of their statistics
    real: OsString,
    /// The generated images
    generated: OsString,
    /// What to measure, several after commas; all is all that the extractors serve for
    #[arg(long, value_parser = choice(&NAMED), value_delimiter = ',', default_value = "all")]
    metrics: Vec<Asked>,
    /// Balls of precision and recall reach to the k-th neighbour [default: 3]
    #[arg(short, value_parser = clap::value_parser!(u32).range(1..))]
    k: Option<u32>,
    /// Random subsets of the kernel distance [default: 100]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    subsets: Option<u32>,
    /// Images of a subset; if not given 1000, or all of the smaller collection where it has fewer, with a warning
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    size: Option<u32>,
    /// Give 95 % intervals of the Fréchet and kernel distances from N bootstrap replicates of the generated images (20 at least)
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = replicates)]
    bootstrap: usize,
    /// Write the numbers as rows to this Parquet file too
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// A metric, or all.
type Asked = Option<Metric>;

const NAMED: [(&str, Asked); METRICS.len() + 1] = {
    let mut named = [("all", None); METRICS.len() + 1];
    let mut i = 0;
    while i < METRICS.len() {
        named[i + 1] = (METRICS[i].0, Some(METRICS[i].1));
        i += 1;
    }
    named
};

/// An extractor and its measures.
struct Part {
    family: Family,
    extractor: Box<dyn Extractor>,
    measures: Vec<Measure>,
}

/// The real side.
enum Real {
    Given(Box<Given>),
    Of(Collection),
}

/// Statistics in place of real images.
struct Given {
    collected: Collected,
    /// Of the file.
    sha256: String,
    order: Option<String>,
}

/// What rows say of both sides.
struct Sides {
    real_sha256: String,
    /// Of both, and of the generated one.
    orders: [String; 2],
    config_hash: String,
}

impl Args {
    fn settings(&self) -> Settings {
        Settings {
            neighbours: self.k.unwrap_or(3) as usize,
            subsets: self.subsets.map_or(SUBSETS[0], |n| n as usize),
            size: self.size.map_or(SUBSETS[1], |n| n as usize),
            most: usize::MAX,
            bootstrap: self.bootstrap,
            seed: 0,
        }
    }

    /// What is asked for, all extractors that were named in use.
    fn wanted(&self) -> Result<Vec<(&'static str, Metric)>> {
        let all = self.metrics.contains(&None);
        let is_wanted = |metric: Metric| {
            let named = self.metrics.contains(&Some(metric));
            named || (all && self.options.extractors().iter().any(|choice| choice.family() == metric.family))
        };
        let wanted: Vec<_> = METRICS.into_iter().filter(|(_, metric)| is_wanted(*metric)).collect();
        let mut families: Vec<Family> = wanted.iter().map(|(_, metric)| metric.family).collect();
        families.dedup();
        let unused = self.options.extractors_beside(&families);
        if !unused.is_empty() {
            bail!(
                "--extractor {}: none of --metrics is over it; `pgn-bench measure --help` names those that are",
                unused.join(",")
            );
        }
        let measures = |measure: Measure| wanted.iter().any(|(_, metric)| metric.measure == measure);
        self.options.remark_unused(&families, wanted.iter().any(|(_, metric)| metric.measure.is_of_one()));
        for (option, is_given, measure, what) in [
            ("-k", self.k.is_some(), Measure::Manifold, "pr"),
            ("--subsets", self.subsets.is_some(), Measure::Kd, "kid"),
            ("--size", self.size.is_some(), Measure::Kd, "kid"),
        ] {
            if is_given && !measures(measure) {
                remark(format_args!("{option} has no effect: it is of {what}, which is not asked for"));
            }
        }
        Ok(wanted)
    }

    /// The extractors that are needed, in the order of the metrics.
    fn parts(&self) -> Result<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        for (name, Metric { family, measure }) in self.wanted()? {
            if parts.last().is_none_or(|part| part.family != family) {
                parts.push(Part {
                    family,
                    extractor: self.options.open_extractor(self.choice(family)?)?,
                    measures: vec![],
                });
            }
            let Some(part) = parts.last_mut() else { continue };
            if measure.is_of_one() && part.extractor.classes().is_none() {
                self.leave_out(name, "the weights have no `fc.weight`: give a file with it as --head")?;
                continue;
            }
            part.measures.push(measure);
        }
        Ok(parts)
    }

    /// Refuses bootstrap replicates where nothing has an interval, and says what has none.
    fn check_intervals(&self, parts: &[Part]) -> Result<()> {
        let measured = || parts.iter().flat_map(|part| part.measures.iter().map(|&measure| (part.family, measure)));
        let without = measured().filter(|(_, measure)| !measure.has_interval());
        let without: Vec<&str> = without.map(|(family, measure)| Metric { family, measure }.name()).collect();
        if self.bootstrap == 0 || without.is_empty() {
            return Ok(());
        }
        let names = without.join(", ");
        if without.len() == measured().count() {
            bail!("--bootstrap: Fréchet and kernel distances have intervals, and none is measured ({names})");
        }
        remark(format_args!("no interval of {names}: bootstrap replicates are for Fréchet and kernel distances"));
        Ok(())
    }

    /// A metric that cannot be measured: an error if it was named, a remark if it is one of all.
    fn leave_out(&self, name: &str, why: &str) -> Result<()> {
        if METRICS.iter().any(|(n, metric)| *n == name && self.metrics.contains(&Some(*metric))) {
            bail!("{name}: {why}");
        }
        remark(format_args!("{name} is left out: {why}"));
        Ok(())
    }

    /// Leaves out what a side has too few images for.
    fn keep_served(&self, parts: &mut [Part], real: &Real, generated: &Collection) -> Result<()> {
        for part in parts {
            let mut kept = Vec::new();
            for measure in std::mem::take(&mut part.measures) {
                let least = measure.fewest(&self.settings());
                let of_real = match real {
                    Real::Of(real) if !measure.is_of_one() && real.n < least => Some(real),
                    _ => None,
                };
                match of_real.or((generated.n < least).then_some(generated)) {
                    None => kept.push(measure),
                    Some(few) => {
                        let why =
                            format!("at least {least} images are needed, and {} has {} to measure", few.name, few.n);
                        self.leave_out(Metric { family: part.family, measure }.name(), &why)?;
                    }
                }
            }
            part.measures = kept;
        }
        Ok(())
    }

    /// The extractor that was chosen of a family, or its first.
    fn choice(&self, family: Family) -> Result<Choice> {
        let of_family = |choices: &mut dyn Iterator<Item = Choice>| {
            choices.filter(|choice| choice.family() == family).collect::<Vec<_>>()
        };
        match of_family(&mut self.options.extractors().iter().copied())[..] {
            [] => Ok(of_family(&mut Choice::ALL.into_iter().map(|(_, choice)| choice))[0]),
            [one] => Ok(one),
            _ => bail!("--extractor: one protocol of each network in one command"),
        }
    }
}

/// Reads statistics in place of real images, and leaves out what they do not serve for.
fn given(path: &Path, parts: &mut [Part], args: &Args) -> Result<Given> {
    let of = npz::read(path)?;
    let name = path.display();
    let [part] = parts else { bail!("{name} holds statistics of one extractor: name one with --extractor") };
    let mut served = Vec::new();
    for measure in std::mem::take(&mut part.measures) {
        match measure {
            Measure::Fd | Measure::FdInfinity | Measure::Sfid | Measure::Is | Measure::IsInfinity => {
                served.push(measure)
            }
            _ => args.leave_out(
                Metric { family: part.family, measure }.name(),
                &format!("{name} holds statistics, and it sees images one by one"),
            )?,
        }
    }
    part.measures = served;
    if of.gaussian.mean.len() != part.extractor.dim() {
        let (theirs, ours) = (of.gaussian.mean.len(), part.extractor.dim());
        bail!("{name} has features of {theirs} dimensions, {} of {ours}: they cannot be compared", part.extractor.id());
    }
    let ours = npz::Protocol::of(part.extractor.as_ref(), args.options.order);
    match &of.protocol {
        Some(theirs) if !theirs.agrees(&ours) => {
            bail!(
                "{name} is over {theirs}, not over {ours}: no distance between them means anything; measure both in one way"
            )
        }
        Some(_) => {}
        None => remark(format_args!("{name} does not say how its features were made: taken for {ours}")),
    }
    let spatial = npz::read_spatial(path)?;
    if spatial.is_none() && part.measures.contains(&Measure::Sfid) {
        args.leave_out("sfid", &format!("{name} has no `mu_s` and `sigma_s`"))?;
        part.measures.retain(|&measure| measure != Measure::Sfid);
    }
    if args.options.n.is_some() {
        remark_statistics(&name.to_string(), &shown(&args.generated));
    }
    let collected = Collected { images: of.gaussian.n, gaussian: Some(of.gaussian), spatial, ..Collected::default() };
    let order = of.protocol.map(|protocol| protocol.order);
    Ok(Given { collected, sha256: file_digest::<Sha256>(path)?, order })
}

pub(super) fn execute(args: &Args) -> Result<()> {
    if let Some(path) = &args.output {
        check_rows(path)?;
    }
    args.options.check_streams(&[&args.real, &args.generated])?;
    let (settings, mut parts) = (args.settings(), args.parts()?);
    let path = Path::new(&args.real);
    let real = match npz::are_in(path) {
        true => Real::Given(Box::new(given(path, &mut parts, args)?)),
        false => Real::Of(args.options.open(&args.real, 1)?),
    };
    let generated = args.options.open(&args.generated, 1)?;
    args.keep_served(&mut parts, &real, &generated)?;
    let measures = || parts.iter().flat_map(|part| &part.measures);
    if measures().next().is_none() {
        bail!("nothing is left to measure");
    }
    args.check_intervals(&parts)?;
    if let Real::Of(real) = &real
        && measures().any(|&m| m == Measure::Kd)
    {
        subset(args.size.map(|n| n as usize), real.n.min(generated.n))?;
    }

    let wanted = |of_generated: bool, n: usize| -> Vec<Wanted> {
        let of = |part: &Part| {
            let needs = needs(&part.measures, of_generated, part.extractor.classes(), &settings);
            Needs { keep: needs.keep.min(n), ..needs }
        };
        parts.iter().map(|part| (part.extractor.as_ref(), of(part))).collect()
    };
    let of_generated = wanted(true, generated.n);
    let of_real = match &real {
        Real::Of(real) if measures().any(|m| !m.is_of_one()) => wanted(false, real.n),
        _ => Vec::new(),
    };
    let kept = of_real.iter().chain(&of_generated).map(|(extractor, needs)| 4 * extractor.dim() * needs.keep);
    let bytes: usize = kept.sum();
    if bytes > MUCH {
        remark(format_args!("features kept in memory: {:.1} GB", bytes as f64 / 1e9));
    }
    // Other people's images may be damaged: they come first.
    let collected = args.options.pass(&generated, &of_generated)?;
    let of_the_real = match &real {
        Real::Given(given) => vec![given.collected.clone()],
        Real::Of(real) => match of_real[..] {
            [] => Vec::new(),
            [one] => vec![args.options.collect(real, one)?],
            _ => args.options.pass(real, &of_real)?,
        },
    };
    let mut all = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let comparison = Comparison::new(part.family, of_the_real.get(i), &collected[i], settings);
        for &measure in &part.measures {
            let drawing = bar("bootstrap", args.bootstrap as u64, "replicates");
            let scores = comparison.scores(measure, &mut || drawing.inc(1))?;
            drawing.finish_and_clear();
            all.extend(scores.into_iter().map(|score| (part, score)));
        }
    }
    let sides = sides(args, &real, &generated);
    let rows: Vec<Row> = all.iter().map(|(part, score)| row(args, &sides, part, score)).collect();
    print(args, &all, &rows);
    if let Some(path) = &args.output {
        results::write(path, &rows)?;
    }
    Ok(())
}

fn sides(args: &Args, real: &Real, generated: &Collection) -> Sides {
    let own = args.options.order.id().to_owned();
    let (real_sha256, order) = match real {
        Real::Given(given) => (given.sha256.clone(), given.order.as_deref()),
        Real::Of(real) => (real.sha256(), Some(own.as_str())),
    };
    let orders = [orders(order, Some(&own)), own];
    let Settings { neighbours, subsets, size, bootstrap, .. } = args.settings();
    let config = json!({
        "real": real_sha256, "generated": generated.sha256(), "orders": orders, "n": args.options.n, "k": neighbours, "subsets": subsets,
        "size": size, "bootstrap": bootstrap,
    });
    Sides { real_sha256, orders, config_hash: sha256(config.to_string().as_bytes())[..16].to_owned() }
}

fn print(args: &Args, all: &[(&Part, Score)], rows: &[Row]) {
    if args.options.json {
        let metrics = all.iter().zip(rows).map(|((_, score), row)| {
            json!({
                "metric": score.name, "value": score.value, "std": score.std, "standard_error": score.error,
                "interval": score.error.map(|error| interval(score.value, error)), "n": [score.real, Some(score.generated)],
                "settings": score.settings, "extractor": row.extractor, "extractor_sha256": row.extractor_sha256,
                "resize": row.resize, "order": row.order, "warning": score.warning,
            })
        });
        let of = [&args.real, &args.generated].map(|name| shown(name));
        return say(json!({"of": of, "metrics": metrics.collect::<Vec<_>>()}));
    }
    for listing in images::listings(&rows.iter().collect::<Vec<_>>()) {
        show(listing.text());
        listing.warnings.iter().for_each(|warning| remark(format_args!("warning: {warning}")));
    }
}

/// A row of a result file: the collections stand where a run has its data set and its method.
fn row(args: &Args, sides: &Sides, part: &Part, score: &Score) -> Row {
    let name = |of: &OsStr| shown(of);
    let ends = score.error.map(|error| interval(score.value, error));
    Row {
        experiment: "measure".to_owned(),
        scale: "images".to_owned(),
        dataset: name(&args.real),
        split: String::new(),
        image_size: 0,
        arch: results::NO_NETWORK.to_owned(),
        width: 1.0,
        method: name(&args.generated),
        loss: "none".to_owned(),
        seed: 0,
        step: 0,
        images_seen: 0,
        wall_s: 0.0,
        metric: metric(&score.name, score.generated, score.real.map(|_| "real")),
        value: score.value,
        std: score.std,
        low: ends.map(|ends| ends[0]),
        high: ends.map(|ends| ends[1]),
        n: score.generated as u64,
        extractor: part.extractor.id().to_owned(),
        extractor_sha256: score.weights_sha256(part.extractor.as_ref()).to_owned(),
        resize: part.extractor.resize().to_owned(),
        reference: name(&args.real),
        reference_sha256: sides.real_sha256.clone(),
        reference_n: score.real.filter(|&n| n > 0).map(|n| n as u64),
        order: Some(sides.orders[usize::from(score.real.is_none())].clone()),
        batch_norm: "none".to_owned(),
        weights: "none".to_owned(),
        warning: score.warning.unwrap_or_default().to_owned(),
        status: results::EVALUATED.to_owned(),
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        config_hash: sides.config_hash.clone(),
        family: sides.config_hash.clone(),
        settings: score.settings.clone(),
        device: args.options.place.device.clone(),
    }
}
