//! Rows grouped into protocols and runs: what every table, plot, claim and gate starts from.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::FULL;
pub use crate::files::short;
use crate::machine::precision::Precision;
use crate::results::{COST, EVALUATED, PEAK, Row, measure};

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

/// The protocols of the rows whose measure is such, in order; of an experiment and scale, those of training come first.
pub fn protocols_of(rows: &[Row], is_wanted: fn(&str) -> bool) -> Vec<Protocol> {
    let mut all = distinct(rows.iter().filter(|r| is_wanted(measure(&r.metric))).map(Protocol::of));
    all.sort_by_cached_key(|p| (p.experiment.clone(), p.scale.clone(), !is_of_training(rows, p)));
    all
}

/// Whether training measured under a protocol, and not only a later evaluation.
pub fn is_of_training(rows: &[Row], protocol: &Protocol) -> bool {
    rows.iter().any(|r| r.status != EVALUATED && r.metric == protocol.metric && Protocol::of(r) == *protocol)
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
    /// Method, and what tells it from others of the experiment and scale with the same method where there are any.
    pub label: String,
    /// Which of these it is, from 0.
    pub nth: usize,
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
    // What was only probed under a former configuration has no place in a table.
    let names = Names::of(here.iter().copied().filter(|r| is_distance(measure(&r.metric))));
    by_run.into_values().filter_map(|rows| run(&rows, protocol, &names, heads.len())).collect()
}

/// What tells runs of one network and method apart: their losses and families, in order.
struct Names<'a>(BTreeMap<Place<'a>, BTreeSet<(Reverse<&'a str>, &'a str)>>);

/// Architecture, width and method.
type Place<'a> = (&'a str, String, &'a str);

fn place(row: &Row) -> Place<'_> {
    (&row.arch, row.width.to_string(), &row.method)
}

impl<'a> Names<'a> {
    fn of(rows: impl Iterator<Item = &'a Row>) -> Self {
        let mut all = BTreeMap::<_, BTreeSet<_>>::new();
        for row in rows {
            all.entry(place(row)).or_default().insert((Reverse(row.loss.as_str()), row.family.as_str()));
        }
        Self(all)
    }

    /// Label and number of the run of a row.
    fn name(&self, row: &Row) -> (String, usize) {
        let of_method: Vec<_> = self.0.get(&place(row)).into_iter().flatten().collect();
        let nth = of_method.iter().position(|(_, family)| **family == row.family).unwrap_or(0);
        let Row { method, loss, family, .. } = row;
        let label = match of_method.iter().filter(|(of, _)| of.0 == loss).count() {
            _ if of_method.len() == 1 => method.clone(),
            1 => format!("{method} ({loss})"),
            _ => format!("{method} ({loss}, {})", short(family)),
        };
        (label, nth)
    }
}

fn is_score(row: &Row) -> bool {
    measure(&row.metric) == "is"
}

/// Whether a score is of the same images and features as a distance under a protocol: nothing but the metric differs, and the last layer.
fn beside(protocol: &Protocol, row: &Row) -> bool {
    let extractor_sha256 = row.features_sha256().to_owned();
    Protocol { metric: protocol.metric.clone(), extractor_sha256, ..Protocol::of(row) } == *protocol
}

fn run(rows: &[&Row], protocol: &Protocol, names: &Names, heads: usize) -> Option<Run> {
    let mut distances: Vec<&Row> = rows.iter().copied().filter(|r| Protocol::of(r) == *protocol).collect();
    // What training measured comes before what was measured again.
    let is_later = |r: &Row| r.status == EVALUATED;
    distances.sort_by_key(|r| (r.step, is_later(r)));
    distances.dedup_by_key(|r| r.step);
    let last = *distances.last()?;
    let of_training = rows.iter().find(|r| !is_later(r)).copied();
    let score = |at: &Row| {
        let of = rows.iter().find(|r| is_score(r) && r.step == at.step && r.n == at.n && beside(protocol, r));
        of.filter(|_| heads == 1).map(|r| (r.value, r.std.unwrap_or(0.0)))
    };
    let points = distances.iter().map(|r| Point { step: r.step, wall_s: r.wall_s, fid: r.value, score: score(r) });
    let latest = |metric: &str| rows.iter().filter(|r| r.metric == metric).max_by_key(|r| r.step).map(|r| r.value);
    let doubts = distances.iter().filter(|r| !r.warning.is_empty()).map(|r| r.warning.clone());
    let of_heads = (heads > 1).then(|| format!("Inception Scores are of {heads} heads, and left out"));
    let warnings = distinct(doubts.chain(of_heads));
    let (label, nth) = names.name(last);
    Some(Run {
        arch: last.arch.clone(),
        width: last.width,
        method: last.method.clone(),
        loss: last.loss.clone(),
        seed: last.seed,
        config_hash: last.config_hash.clone(),
        family: last.family.clone(),
        settings: last.settings.clone(),
        status: of_training.unwrap_or(last).status.clone(),
        device: last.device.clone(),
        code_version: last.code_version.clone(),
        label,
        nth,
        points: points.collect(),
        cost: latest(COST),
        peak: latest(PEAK),
        warnings,
    })
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
    fn what_is_measured_later_changes_no_run() {
        let of_training = [100, 200].map(|step| row("gn", 0, step, "fid2k_train", step as f64));
        let again = |metric, value| Row { status: EVALUATED.into(), ..row("gn", 0, 200, metric, value) };
        let rows = [&[again("fid2k_train", 7.0), again("fid50k_train", 5.0)], &of_training[..]].concat();
        let [of_2k, of_50k] = ["fid2k_train", "fid50k_train"].map(|metric| {
            let protocol = protocols(&rows).into_iter().find(|p| p.metric == metric).unwrap();
            runs(&rows, &protocol).remove(0)
        });
        assert_eq!((of_2k.last().fid, of_2k.points.len(), of_2k.status.as_str()), (200.0, 2, "finished"));
        assert_eq!((of_50k.last().fid, of_50k.status.as_str()), (5.0, "finished"));
    }

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
