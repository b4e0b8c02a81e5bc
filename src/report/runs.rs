//! Rows grouped into protocols and runs, and runs into samples over seeds: what every table, plot, claim and gate starts from.

use std::collections::BTreeMap;

use super::chart::order;
use crate::config::FULL;
pub use crate::files::short;
use crate::machine::precision::Precision;
use crate::results::{COST, PEAK, Row, measure};
use crate::statistics::{half_width, mean_and_deviation};

/// The experiments of this repository, which have the paper's settings at the scale [`FULL`].
const PAPER: [&str; 5] = ["cifar10", "cifar10-conditional", "stl10", "celebahq128", "celebahq256"];

/// Whether runs of an experiment at a scale had the paper's settings.
pub fn is_full(experiment: &str, scale: &str) -> bool {
    scale == FULL && PAPER.contains(&experiment)
}

/// What must agree for two distances to be compared, the architecture excepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Protocol {
    pub experiment: String,
    pub scale: String,
    pub dataset: String,
    pub split: String,
    pub image_size: u64,
    pub metric: String,
    pub extractor: String,
    pub extractor_sha256: String,
    pub resize: String,
    pub reference: String,
    pub reference_sha256: String,
    pub batch_norm: String,
    pub weights: String,
    pub precision: String,
    /// Of collections of images: in which order they counted, of how many the reference consists, and the measure's settings.
    pub how: String,
}

impl Protocol {
    /// Of a row.
    pub fn of(row: &Row) -> Self {
        Self {
            experiment: row.experiment.clone(),
            scale: row.scale.clone(),
            dataset: row.dataset.clone(),
            split: row.split.clone(),
            image_size: row.image_size,
            metric: row.metric.clone(),
            extractor: row.extractor.clone(),
            extractor_sha256: row.extractor_sha256.clone(),
            resize: row.resize.clone(),
            reference: row.reference.clone(),
            reference_sha256: row.reference_sha256.clone(),
            batch_norm: row.batch_norm.clone(),
            weights: row.weights.clone(),
            precision: Precision::of(&row.device).to_owned(),
            how: if row.is_of_images() { how(row) } else { String::new() },
        }
    }

    /// Its fields of a run by name, in order.
    pub fn fields(&self) -> [(&'static str, String); 14] {
        [
            ("experiment", self.experiment.clone()),
            ("scale", self.scale.clone()),
            ("dataset", self.dataset.clone()),
            ("split", self.split.clone()),
            ("image_size", self.image_size.to_string()),
            ("metric", self.metric.clone()),
            ("extractor", self.extractor.clone()),
            ("extractor_sha256", self.extractor_sha256.clone()),
            ("resize", self.resize.clone()),
            ("reference", self.reference.clone()),
            ("reference_sha256", self.reference_sha256.clone()),
            ("batch_norm", self.batch_norm.clone()),
            ("weights", self.weights.clone()),
            ("precision", self.precision.clone()),
        ]
    }

    /// Whether the experiment has the paper's settings.
    pub fn is_full(&self) -> bool {
        is_full(&self.experiment, &self.scale)
    }

    /// The Fréchet distance's short name.
    pub fn distance(&self) -> &'static str {
        if measure(&self.metric).starts_with("fid") { "FID" } else { "FD" }
    }

    /// In words, for a caption.
    pub fn describe(&self) -> String {
        format!(
            "{} of {} weights over {} ({}…), resize {}, batch norm: {}, reference {} ({}…)",
            self.metric,
            self.weights,
            self.extractor,
            short(&self.extractor_sha256),
            self.resize,
            self.batch_norm,
            self.reference,
            short(&self.reference_sha256)
        )
    }
}

fn how(row: &Row) -> String {
    let order = row.order.as_deref().unwrap_or("unknown");
    let reference = row.reference_n.map(|n| format!(", {n} real images")).unwrap_or_default();
    let settings = if row.settings.is_empty() { String::new() } else { format!(", {}", row.settings) };
    format!("order {order}{reference}{settings}")
}

/// Whether a measure is a Fréchet distance, by which runs are ranked.
pub fn ranks(measure: &str) -> bool {
    matches!(measure, "fid" | "fd-dinov2" | "fd-clip")
}

/// Whether a measure is the better the smaller it is.
pub fn is_distance(measure: &str) -> bool {
    let of = measure.trim_end_matches("-dinov2");
    ranks(measure) || matches!(of, "fid-inf" | "fd-inf" | "sfid" | "mifid" | "kid" | "kd" | "mind" | "cmmd")
}

/// The protocols of the rows whose measure is such, in order.
pub fn protocols_of(rows: &[Row], is_wanted: fn(&str) -> bool) -> Vec<Protocol> {
    distinct(rows.iter().filter(|r| is_wanted(measure(&r.metric))).map(Protocol::of))
}

/// The Fréchet protocols of the rows, in order.
pub fn protocols(rows: &[Row]) -> Vec<Protocol> {
    protocols_of(rows, ranks)
}

/// One evaluation of a run under a protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Generator updates made.
    pub step: u64,
    /// Seconds of training.
    pub wall_s: f64,
    /// Fréchet distance.
    pub fid: f64,
    /// Inception Score, and its deviation over splits.
    pub score: Option<(f64, f64)>,
}

/// One run under a protocol.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Run {
    pub arch: String,
    pub width: f64,
    pub method: String,
    pub loss: String,
    pub seed: u64,
    pub config_hash: String,
    pub family: String,
    pub settings: String,
    pub status: String,
    pub device: String,
    pub code_version: String,
    /// Evaluations in order of step; at least one.
    pub points: Vec<Point>,
    /// Seconds of training a step.
    pub cost: Option<f64>,
    /// Most memory resident while training, in bytes.
    pub peak: Option<f64>,
    /// What the rows warn of.
    pub warnings: Vec<String>,
}

impl Run {
    /// The evaluation of lowest Fréchet distance, that of the untrained generator left out where there is another.
    pub fn best(&self) -> &Point {
        let trained = self.points.iter().filter(|p| p.step > 0);
        trained.min_by(|a, b| a.fid.total_cmp(&b.fid)).unwrap_or(self.last())
    }

    /// The evaluation at the last step.
    pub fn last(&self) -> &Point {
        &self.points[self.points.len() - 1]
    }

    /// The evaluation at the first step.
    pub fn first(&self) -> &Point {
        &self.points[0]
    }

    /// Hours of training.
    pub fn hours(&self) -> f64 {
        self.last().wall_s / 3600.0
    }
}

/// What tells runs of one experiment apart.
type Key = (String, String, u64, String);

fn key(row: &Row) -> Key {
    (row.arch.clone(), row.method.clone(), row.seed, row.config_hash.clone())
}

/// The runs under a protocol, in order of architecture, method and seed.
pub fn runs(rows: &[Row], protocol: &Protocol) -> Vec<Run> {
    let here: Vec<&Row> =
        rows.iter().filter(|r| r.experiment == protocol.experiment && r.scale == protocol.scale).collect();
    let mut by_run: BTreeMap<Key, Vec<&Row>> = BTreeMap::new();
    for row in &here {
        by_run.entry(key(row)).or_default().push(row);
    }
    // Scores of several heads are on no common scale.
    let heads = distinct(here.iter().filter(|r| is_score(r) && beside(protocol, r)).map(|r| &r.extractor_sha256));
    by_run.into_values().filter_map(|rows| run(&rows, protocol, heads.len())).collect()
}

fn is_score(row: &Row) -> bool {
    measure(&row.metric) == "is"
}

/// Whether a score is of the same images and features as a distance under a protocol: nothing but the metric differs, and the last layer.
fn beside(protocol: &Protocol, row: &Row) -> bool {
    let extractor_sha256 = row.features_sha256().to_owned();
    Protocol { metric: protocol.metric.clone(), extractor_sha256, ..Protocol::of(row) } == *protocol
}

fn run(rows: &[&Row], protocol: &Protocol, heads: usize) -> Option<Run> {
    let mut distances: Vec<&Row> = rows.iter().copied().filter(|r| Protocol::of(r) == *protocol).collect();
    distances.sort_by_key(|r| r.step);
    distances.dedup_by_key(|r| r.step);
    let last = *distances.last()?;
    let score = |at: &Row| {
        let of = rows.iter().find(|r| is_score(r) && r.step == at.step && r.n == at.n && beside(protocol, r));
        of.filter(|_| heads == 1).map(|r| (r.value, r.std.unwrap_or(0.0)))
    };
    let points = distances.iter().map(|r| Point { step: r.step, wall_s: r.wall_s, fid: r.value, score: score(r) });
    let latest = |metric: &str| rows.iter().filter(|r| r.metric == metric).max_by_key(|r| r.step).map(|r| r.value);
    let doubts = distances.iter().filter(|r| !r.warning.is_empty()).map(|r| r.warning.clone());
    let of_heads = (heads > 1).then(|| format!("Inception Scores are of {heads} heads, and left out"));
    let warnings = distinct(doubts.chain(of_heads));
    Some(Run {
        arch: last.arch.clone(),
        width: last.width,
        method: last.method.clone(),
        loss: last.loss.clone(),
        seed: last.seed,
        config_hash: last.config_hash.clone(),
        family: last.family.clone(),
        settings: last.settings.clone(),
        status: last.status.clone(),
        device: last.device.clone(),
        code_version: last.code_version.clone(),
        points: points.collect(),
        cost: latest(COST),
        peak: latest(PEAK),
        warnings,
    })
}

/// A number over seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample(pub Vec<f64>);

impl Sample {
    /// Of what each run gives; none if no run does.
    pub fn of(runs: &[&Run], f: impl Fn(&Run) -> Option<f64>) -> Option<Self> {
        let values: Vec<f64> = runs.iter().filter_map(|r| f(r)).collect();
        (!values.is_empty()).then_some(Self(values))
    }

    /// Mean.
    pub fn mean(&self) -> f64 {
        mean_and_deviation(&self.0).0
    }

    /// `mean ± deviation`, or the only value.
    pub fn show(&self, digits: usize) -> String {
        let (mean, std) = mean_and_deviation(&self.0);
        if self.0.len() > 1 { format!("{mean:.digits$} ± {std:.digits$}") } else { format!("{mean:.digits$}") }
    }

    /// The 95 % interval of the mean over seeds (Student's t) of what is never negative.
    pub fn interval(&self, digits: usize) -> String {
        let Some(half) = half_width(&self.0) else { return "–".to_owned() };
        format!("{:.digits$} to {:.digits$}", (self.mean() - half).max(0.0), self.mean() + half)
    }
}

/// Runs that differ in nothing but the seed.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// Architecture.
    pub arch: String,
    /// Width.
    pub width: String,
    /// Method.
    pub method: String,
    /// Loss.
    pub loss: String,
    /// Hash of what they share.
    pub family: String,
    /// Method, and what tells it from another series of the same method where there is one.
    pub label: String,
    /// The runs.
    pub runs: Vec<&'a Run>,
}

impl Series<'_> {
    /// Whether every run made all its steps.
    pub fn finished(&self) -> bool {
        self.runs.iter().all(|r| r.status == "finished")
    }

    /// What they computed on.
    pub fn devices(&self) -> Vec<&str> {
        distinct(self.runs.iter().map(|r| r.device.as_str()))
    }

    /// The steps at which every run was evaluated; none where runs differ.
    pub fn evaluations(&self) -> Option<Vec<u64>> {
        let of = |r: &Run| r.points.iter().map(|p| p.step).collect::<Vec<u64>>();
        let first = of(self.runs.first()?);
        self.runs.iter().all(|r| of(r) == first).then_some(first)
    }

    /// Whether the best of the one may be compared with the best of the other: both had the same settings, and ended after the
    /// same evaluations.
    pub fn comparable(&self, other: &Self) -> bool {
        self.runs[0].settings == other.runs[0].settings
            && self.finished()
            && other.finished()
            && self.evaluations().is_some()
            && self.evaluations() == other.evaluations()
    }

    /// Lowest Fréchet distances.
    pub fn best_fid(&self) -> Option<Sample> {
        Sample::of(&self.runs, |r| Some(r.best().fid))
    }

    /// Inception Scores at the lowest Fréchet distances.
    pub fn best_score(&self) -> Option<Sample> {
        Sample::of(&self.runs, |r| r.best().score.map(|s| s.0))
    }
}

/// Runs grouped over seeds, in order of architecture, width and method.
pub fn series(runs: &[Run]) -> Vec<Series<'_>> {
    let mut by: BTreeMap<(&str, String, &str, &str), Vec<&Run>> = BTreeMap::new();
    for run in runs {
        by.entry((&run.arch, run.width.to_string(), &run.method, &run.family)).or_default().push(run);
    }
    let alone = |arch: &str, width: &String, method: &str| {
        by.keys().filter(|k| (k.0, &k.1, k.2) == (arch, width, method)).count() == 1
    };
    let mut all = Vec::new();
    for ((arch, width, method, family), runs) in &by {
        let loss = runs[0].loss.clone();
        let label = if alone(arch, width, method) {
            (*method).to_owned()
        } else {
            format!("{method} ({loss}, {})", short(family))
        };
        all.push(Series {
            arch: (*arch).to_owned(),
            width: width.clone(),
            method: (*method).to_owned(),
            loss,
            family: (*family).to_owned(),
            label,
            runs: runs.clone(),
        });
    }
    all.sort_by(|a, b| {
        let key = |s: &Series| (s.arch.clone(), s.width.clone(), order(&s.method), s.label.clone());
        key(a).cmp(&key(b))
    });
    all
}

/// Series of one architecture and width, which stand in one table block and one chart.
pub struct Network<'a> {
    /// Architecture.
    pub arch: &'a str,
    /// Width.
    pub width: &'a str,
    /// The series, in their order.
    pub series: Vec<&'a Series<'a>>,
}

impl<'a> Network<'a> {
    /// Architecture, and the width where it is not the paper's.
    pub fn title(&self) -> String {
        network_title(self.arch, self.width)
    }

    /// All runs.
    pub fn runs(&self) -> impl Iterator<Item = &'a Run> {
        self.series.iter().flat_map(|s| s.runs.iter().copied())
    }

    /// The series in order of their lowest Fréchet distance.
    pub fn by_lowest(mut self) -> Vec<&'a Series<'a>> {
        let lowest = |s: &Series| s.best_fid().map_or(f64::INFINITY, |f| f.mean());
        self.series.sort_by(|a, b| lowest(a).total_cmp(&lowest(b)));
        self.series
    }
}

/// Architecture, and the width where it is not the paper's.
pub fn network_title(arch: &str, width: &str) -> String {
    if width == "1" { arch.to_owned() } else { format!("{arch}, width {width}") }
}

/// Series, which are in order of architecture and width, by these.
pub fn networks<'a>(all: &'a [Series<'a>]) -> Vec<Network<'a>> {
    let of =
        |part: &'a [Series<'a>]| Network { arch: &part[0].arch, width: &part[0].width, series: part.iter().collect() };
    all.chunk_by(|a, b| (&a.arch, &a.width) == (&b.arch, &b.width)).map(of).collect()
}

/// Different values in order.
pub fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// What the runs warn of.
pub fn warnings<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Vec<&'a String> {
    distinct(runs.into_iter().flat_map(|r| &r.warnings))
}

/// How the runs stand.
pub fn statuses(runs: &[&Run]) -> String {
    distinct(runs.iter().map(|r| r.status.as_str())).join(", ")
}

/// The different steps, in order.
pub fn steps(runs: &[&Run], f: impl Fn(&Run) -> u64) -> String {
    distinct(runs.iter().map(|r| f(r))).iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::row;

    #[test]
    fn scores_of_a_head_stand_beside_distances_and_those_of_two_heads_do_not() {
        let score = |seed: u64, head: &str| {
            let extractor_sha256 = format!("ab+{head}");
            Row { extractor_sha256, ..row("gn", seed, 10, "is2k", 5.0) }
        };
        let distances = [0, 1].map(|seed| row("gn", seed, 10, "fid2k_train", 3.0));
        let scored = |second: &str| {
            let rows = [&distances[..], &[score(0, "cd"), score(1, second)]].concat();
            assert_eq!(protocols(&rows).len(), 1);
            runs(&rows, &protocols(&rows)[0])
        };
        assert!(scored("cd").iter().all(|run| run.best().score == Some((5.0, 0.1)) && run.warnings.is_empty()));
        let two = scored("ef");
        assert!(two.iter().all(|run| run.best().score.is_none() && run.warnings[0].contains("2 heads")), "{two:?}");
    }
}
