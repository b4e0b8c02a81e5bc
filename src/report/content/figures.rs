//! Curves and pictures.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Measured, Picture, Report, by_experiment, slug};
use crate::report::chart::{Chart, Curve, Plot, order};
use crate::report::markdown::significant;
use crate::report::runs::{Point, Run, distinct};
use crate::report::series::{Network, Series, network_title, networks, series};
use crate::results::{Row, TRACES};
use crate::statistics::mean_and_deviation;

/// What evaluations are drawn against: part of a file's name, what the axis says, and a point's place on it.
type Axis = (&'static str, &'static str, fn(&Point) -> f64);
/// What is drawn of evaluations: part of a file's name, whether its axis may be logarithmic, and its value.
type Quantity = (&'static str, bool, fn(&Point) -> Option<f64>);

/// Name of the axis of steps.
pub(super) const STEPS: &str = "generator updates";
const AXES: [Axis; 2] = [("steps", STEPS, |p| p.step as f64), ("time", "minutes of training", |p| p.wall_s / 60.0)];
const DISTANCE: Quantity = ("fid", true, |p| Some(p.fid));
const SCORE: Quantity = ("is", false, |p| p.score.map(|s| s.0));
/// Kind of the pictures that are sample grids.
const SAMPLES: &str = "samples";

/// A point of a curve: x, mean, and a deviation to each side.
fn banded(x: f64, values: &[f64]) -> [f64; 4] {
    let (mean, std) = mean_and_deviation(values);
    [x, mean, mean - std, mean + std]
}

/// Mean and deviation over seeds at each of these steps that all runs of a series have.
fn curve(s: &Series, from: u64, x: impl Fn(&Point) -> f64, y: impl Fn(&Point) -> Option<f64>) -> Curve {
    let mut points = Vec::new();
    let runs = &s.runs;
    for at in runs[0].points.iter().filter(|p| p.step >= from) {
        let here: Vec<&Point> = runs.iter().filter_map(|r| r.points.iter().find(|p| p.step == at.step)).collect();
        let values: Vec<f64> = here.iter().filter_map(|p| y(p)).collect();
        if here.len() < runs.len() || values.is_empty() {
            continue;
        }
        let xs: Vec<f64> = here.iter().map(|p| x(p)).collect();
        points.push(banded(mean_and_deviation(&xs).0, &values));
    }
    Curve { method: s.method.clone(), name: s.label.clone(), nth: s.nth, is_second: false, points }
}

/// A quantity of a network's evaluations along an axis. The untrained generator, whose value would flatten all others, is left out
/// where every curve has points enough without it.
fn draw(report: &mut Report, m: &Measured, network: &Network, axis: Axis, quantity: Quantity) {
    let ((kind, x, of), (metric, log_y, value)) = (axis, quantity);
    let y = if metric == SCORE.0 { "Inception Score" } else { m.protocol.distance() };
    let is_left_out = network.runs().all(|r| r.points.iter().filter(|p| p.step > 0).count() != 1);
    let untrained = |r: &Run| r.points.iter().find(|p| p.step == 0).and_then(value);
    let untrained: Vec<f64> = network.runs().filter(|_| is_left_out).filter_map(untrained).collect();
    let left_out = if untrained.is_empty() {
        String::new()
    } else {
        format!(" Not drawn: {y} {} before training.", significant(mean_and_deviation(&untrained).0, 3))
    };
    let place = m.place(network);
    let (seeds, band) = match distinct(network.runs().map(|r| r.seed)).len() {
        1 => (", one seed", String::new()),
        n => (", mean over seeds", format!("; bands are one standard deviation to each side ({n} seeds)")),
    };
    let caption = format!(
        "{place}: {y} against {x}{seeds}{band}. Protocol {}, {} weights.{left_out}",
        m.name, m.protocol.weights
    );
    let curves = network.series.iter().map(|s| curve(s, u64::from(is_left_out), of, value)).collect();
    let chart = Chart { title: place, x: x.to_owned(), y: y.to_owned(), log_y, curves };
    let stem = format!("{}-{}-{}", m.name.to_lowercase(), slug(network.arch), slug(network.width));
    report.lines(format!("{stem}-{metric}-{kind}"), caption, chart);
}

/// The distance of a network against updates.
pub(super) fn draw_curve(report: &mut Report, m: &Measured, network: &Network) {
    draw(report, m, network, AXES[0], DISTANCE);
}

/// The evaluations that are not drawn yet.
pub(super) fn curves(report: &mut Report, measured: &[Measured]) {
    report.section("Curves", "curves", false, |report| {
        for m in measured {
            for network in networks(&series(&m.runs)) {
                for quantity in [DISTANCE, SCORE] {
                    AXES.into_iter().for_each(|axis| draw(report, m, &network, axis, quantity));
                }
            }
        }
    });
}

/// What training logged.
pub(super) fn traces(report: &mut Report, rows: &[Row], measured: &[Measured]) {
    report.section("Losses and gradients", "traces", true, |report| {
        for m in by_experiment(measured) {
            for network in networks(&series(&m.runs)) {
                let place = m.place(&network);
                for metric in TRACES {
                    let y = metric.replace('_', " ");
                    let what = match metric {
                        "input_gradient_norm" => {
                            "mean norm of the critic's gradient in its images, ‖∇f‖, where the method computes it"
                        }
                        _ => y.as_str(),
                    };
                    let caption =
                        format!("{place}: {what}; mean over seeds, bands one standard deviation to each side.");
                    let curves = network.series.iter().map(|s| trace(rows, s, metric)).collect();
                    let log_y = metric.ends_with("norm");
                    let chart = Chart { title: place.clone(), x: STEPS.to_owned(), y: y.clone(), log_y, curves };
                    report.lines(format!("{}-{}", m.stem(&network), slug(metric)), caption, chart);
                }
            }
        }
    });
}

/// A curve of the log's means, over the seeds of a series.
pub(super) fn trace(rows: &[Row], s: &Series, metric: &str) -> Curve {
    let mut by_step: BTreeMap<u64, BTreeMap<&str, f64>> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.metric == metric && r.family == s.family) {
        by_step.entry(row.step).or_default().insert(&row.config_hash, row.value);
    }
    // Where a seed is missing, a mean would jump.
    let points = by_step.into_iter().filter(|(_, of)| of.len() == s.runs.len()).map(|(step, of)| {
        let values: Vec<f64> = of.into_values().collect();
        banded(step as f64, &values)
    });
    Curve { method: s.method.clone(), name: s.label.clone(), nth: s.nth, is_second: false, points: points.collect() }
}

/// Pictures of one experiment, scale and network that show the same, and the file that they make together.
struct Gallery<'a> {
    kind: &'a str,
    file: String,
    caption: String,
    pictures: Vec<&'a Picture>,
}

/// Samples first, then neighbours.
fn galleries<'a>(pictures: &'a [Picture]) -> Vec<Gallery<'a>> {
    let mut by_place: BTreeMap<(Reverse<&str>, &str, &str, String), Vec<&Picture>> = BTreeMap::new();
    for p in pictures {
        let network = network_title(&p.arch, &p.width.to_string());
        by_place.entry((Reverse(&p.kind), &p.experiment, &p.scale, network)).or_default().push(p);
    }
    let gallery = |(key, mut pictures): (_, Vec<&'a Picture>)| {
        let (Reverse(kind), experiment, scale, arch): (Reverse<&'a str>, &str, &str, String) = key;
        let seed = pictures.iter().map(|p| p.seed).min().unwrap_or_default();
        pictures.retain(|p| p.seed == seed);
        pictures.sort_by_key(|p| (order(&p.method), Reverse(p.loss.clone())));
        let caption = match kind {
            SAMPLES => {
                format!("{experiment} at scale {scale}, {arch}, seed {seed}: every method draws from the same latents.")
            }
            _ => format!(
                "{experiment} at scale {scale}, {arch}, seed {seed}: generated images (first column) and the training images nearest to \
                 them in pixels. Copies of training images would stand out."
            ),
        };
        Gallery {
            kind,
            file: format!("{}-{}-{}-{kind}", slug(experiment), slug(scale), slug(&arch)),
            caption,
            pictures,
        }
    };
    by_place.into_iter().map(gallery).collect()
}

fn hang(report: &mut Report, gallery: Gallery) {
    let is_alone = |p: &Picture| gallery.pictures.iter().filter(|other| other.method == p.method).count() == 1;
    let name = |p: &Picture| if is_alone(p) { p.method.clone() } else { format!("{} ({})", p.method, p.loss) };
    let shown = gallery.pictures.iter().map(|p| (name(p), p.png.clone())).collect();
    report.figure(format!("{}.png", gallery.file), gallery.caption);
    report.plots.insert(gallery.file, Plot::Pictures(shown));
}

/// The samples of a network.
pub(super) fn draw_samples(report: &mut Report, pictures: &[Picture], m: &Measured, network: &Network) {
    let is_here = |p: &&Picture| {
        (&p.experiment, &p.scale) == (&m.protocol.experiment, &m.protocol.scale)
            && (p.arch.as_str(), p.width.to_string().as_str()) == (network.arch, network.width)
            && p.kind == SAMPLES
    };
    let here: Vec<Picture> = pictures.iter().filter(is_here).cloned().collect();
    galleries(&here).into_iter().for_each(|gallery| hang(report, gallery));
}

/// The pictures that are not shown yet.
pub(super) fn pictures(report: &mut Report, pictures: &[Picture]) {
    let mut galleries = galleries(pictures);
    galleries.retain(|g| !report.plots.contains_key(&g.file));
    let (samples, others): (Vec<_>, Vec<_>) = galleries.into_iter().partition(|g| g.kind == SAMPLES);
    for (title, id, of) in [("Samples", SAMPLES, samples), ("Nearest training images", "neighbours", others)] {
        report.section(title, id, false, |report| of.into_iter().for_each(|gallery| hang(report, gallery)));
    }
}
