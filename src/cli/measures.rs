//! `pgn-bench measure`: all measures of two collections of images, from one pass over each.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::json;

use super::choice;
use super::collection::{Collection, Options, Wanted, shown};
use super::progress::bar;
use super::setup::Choice;
use super::terminal::{remark, say, show};
use crate::files::check_output;
use crate::metrics::Extractor;
use crate::metrics::collect::{Collected, Needs};
use crate::metrics::npz;
use crate::metrics::scores::{Comparison, Family, METRICS, Measure, Metric, Score, Settings, needs};
use crate::report::markdown::aligned;
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
    /// What to measure: names such as fid,is,kid,fd-dinov2,cmmd; all is all that the extractors serve for
    #[arg(long, value_parser = choice(&NAMED), value_delimiter = ',', default_value = "all")]
    metrics: Vec<Asked>,
    /// Balls of precision and recall reach to the k-th neighbour
    #[arg(short, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
    /// Random subsets of the kernel distance
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    subsets: u32,
    /// Most images of a subset
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    size: u32,
    /// Give 95 % intervals of the Fréchet and kernel distances from N bootstrap replicates of the generated images
    #[arg(long, value_name = "N", default_value_t = 0)]
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
    Given(Collected),
    Of(Collection),
}

impl Args {
    fn settings(&self) -> Settings {
        Settings {
            neighbours: self.k as usize,
            subsets: self.subsets as usize,
            size: self.size as usize,
            most: usize::MAX,
            bootstrap: self.bootstrap,
            seed: 0,
        }
    }

    /// The extractors that are needed, in the order of the metrics.
    fn parts(&self) -> Result<Vec<Part>> {
        let all = self.metrics.contains(&None);
        let wanted = |metric: Metric| {
            let named = self.metrics.contains(&Some(metric));
            named || (all && self.options.extractor.iter().any(|choice| choice.family() == metric.family))
        };
        let mut parts: Vec<Part> = Vec::new();
        for (name, Metric { family, measure }) in METRICS.into_iter().filter(|(_, metric)| wanted(*metric)) {
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
        match of_family(&mut self.options.extractor.iter().copied())[..] {
            [] => Ok(of_family(&mut Choice::ALL.into_iter().map(|(_, choice)| choice))[0]),
            [one] => Ok(one),
            _ => bail!("--extractor: one protocol of each network in one command"),
        }
    }
}

/// Statistics in place of real images.
fn given(path: &Path, parts: &mut [Part], args: &Args) -> Result<Collected> {
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
    Ok(Collected { images: of.gaussian.n, gaussian: Some(of.gaussian), spatial, ..Collected::default() })
}

pub(super) fn execute(args: &Args) -> Result<()> {
    if args.bootstrap == 1 {
        bail!("--bootstrap 1: a standard error needs at least 2 replicates");
    }
    if let Some(path) = &args.output {
        check_output(path, Some("parquet"))?;
    }
    let (settings, mut parts) = (args.settings(), args.parts()?);
    let path = Path::new(&args.real);
    let real = match npz::are_in(path) {
        true => Real::Given(given(path, &mut parts, args)?),
        false => Real::Of(args.options.open(&args.real, 1)?),
    };
    let generated = args.options.open(&args.generated, 1)?;
    args.keep_served(&mut parts, &real, &generated)?;
    let measures = || parts.iter().flat_map(|part| &part.measures);
    if measures().next().is_none() {
        bail!("nothing is left to measure");
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
    let generated = args.options.pass(&generated, &of_generated)?;
    let real: Vec<Collected> = match real {
        Real::Given(given) => vec![given],
        Real::Of(real) => match of_real[..] {
            [] => Vec::new(),
            [one] => vec![args.options.collect(&real, one)?],
            _ => args.options.pass(&real, &of_real)?,
        },
    };

    let mut all = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let comparison = Comparison::new(part.family, real.get(i), &generated[i], settings);
        for &measure in &part.measures {
            let drawing = bar("bootstrap", args.bootstrap as u64, "replicates");
            let scores = comparison.scores(measure, &mut || drawing.inc(1))?;
            drawing.finish_and_clear();
            all.extend(scores.into_iter().map(|score| (part, score)));
        }
    }
    print(args, &all);
    if let Some(path) = &args.output {
        let rows: Vec<Row> = all.iter().map(|(part, score)| row(args, part, score)).collect();
        results::write(path, &rows)?;
    }
    Ok(())
}

fn print(args: &Args, all: &[(&Part, Score)]) {
    let of = [&args.real, &args.generated].map(|name| shown(name));
    if args.options.json {
        let metrics = all.iter().map(|(part, score)| {
            json!({
                "metric": score.name, "value": score.value, "std": score.std, "standard_error": score.error,
                "interval": score.error.map(|error| interval(score.value, error)), "n": [score.real, Some(score.generated)],
                "settings": score.settings, "extractor": part.extractor.id(),
                "extractor_sha256": part.extractor.weights_sha256(), "resize": part.extractor.resize(),
                "order": args.options.order.id(), "warning": score.warning,
            })
        });
        return say(json!({"of": of, "metrics": metrics.collect::<Vec<_>>()}));
    }
    let head = ["metric", "value", "±", "95 % interval", "images", "settings"].map(str::to_owned);
    let number = |value: f64| format!("{value:.6}");
    let rows = all.iter().map(|(_, score)| {
        let ends = score.error.map(|error| interval(score.value, error));
        vec![
            score.name.clone(),
            number(score.value),
            score.std.map(number).unwrap_or_default(),
            ends.map(|[low, high]| format!("{low:.6} to {high:.6}")).unwrap_or_default(),
            [score.real, Some(score.generated)].into_iter().flatten().map(count).collect::<Vec<_>>().join(", "),
            score.settings.clone(),
        ]
    });
    show(aligned(&head, rows.collect()));
    let mut parts: Vec<&Part> = all.iter().map(|(part, _)| *part).collect();
    parts.dedup_by_key(|part| part.family);
    for part in parts {
        let protocol = npz::Protocol::of(part.extractor.as_ref(), args.options.order);
        say(format_args!("over {protocol}, order {}; {} real, {} generated", args.options.order.id(), of[0], of[1]));
    }
    for (_, score) in all {
        if let Some(warning) = score.warning {
            remark(format_args!("warning: {}: {warning}", score.name));
        }
    }
}

/// Images of a side, as far as its statistics say.
fn count(n: usize) -> String {
    if n > 0 { n.to_string() } else { "?".to_owned() }
}

/// A row of a result file: the collections stand where a run has its data set and its method.
fn row(args: &Args, part: &Part, score: &Score) -> Row {
    let name = |of: &OsStr| shown(of);
    let ends = score.error.map(|error| interval(score.value, error));
    Row {
        experiment: "measure".to_owned(),
        scale: "images".to_owned(),
        dataset: name(&args.real),
        split: String::new(),
        image_size: 0,
        arch: "none".to_owned(),
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
        extractor_sha256: part.extractor.weights_sha256().to_owned(),
        resize: part.extractor.resize().to_owned(),
        reference: name(&args.real),
        reference_sha256: String::new(),
        batch_norm: "none".to_owned(),
        weights: "none".to_owned(),
        warning: score.warning.unwrap_or_default().to_owned(),
        status: "evaluated".to_owned(),
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        config_hash: String::new(),
        family: String::new(),
        settings: score.settings.clone(),
        device: args.options.place.device.clone(),
    }
}
