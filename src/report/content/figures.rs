//! Curves and pictures.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Measured, Picture, Report, by_experiment, slug};
use crate::report::plot::{Chart, Curve, Plot, order};
use crate::report::runs::{Point, Series, network_title, networks, series};
use crate::results::{Row, TRACES};
use crate::statistics::mean_and_deviation;

/// Part of a file's name, what the axis says, and a point's place on it.
type Axis = (&'static str, &'static str, fn(&Point) -> f64);

/// Name of the axis of steps.
const STEPS: &str = "generator updates";

/// A point of a curve: x, mean, and a deviation to each side.
fn banded(x: f64, values: &[f64]) -> [f64; 4] {
    let (mean, std) = mean_and_deviation(values);
    [x, mean, mean - std, mean + std]
}

/// Mean and deviation over seeds at each step that all runs of a series have.
fn curve(s: &Series, x: impl Fn(&Point) -> f64, y: impl Fn(&Point) -> Option<f64>) -> Curve {
    let mut points = Vec::new();
    let runs = &s.runs;
    for at in &runs[0].points {
        let here: Vec<&Point> = runs.iter().filter_map(|r| r.points.iter().find(|p| p.step == at.step)).collect();
        let values: Vec<f64> = here.iter().filter_map(|p| y(p)).collect();
        if here.len() < runs.len() || values.is_empty() {
            continue;
        }
        let xs: Vec<f64> = here.iter().map(|p| x(p)).collect();
        points.push(banded(mean_and_deviation(&xs).0, &values));
    }
    Curve { method: s.method.clone(), name: s.label.clone(), points }
}

pub(super) fn curves(report: &mut Report, rows: &[Row], measured: &[Measured]) {
    if measured.is_empty() {
        return;
    }
    report.document.heading(2, "Curves", "curves");
    report.document.text("Lines are means over seeds, bands one standard deviation to each side.");
    for m in measured {
        for network in networks(&series(&m.runs)) {
            let place = m.place(&network);
            let stem = format!("{}-{}-{}", m.name.to_lowercase(), slug(network.arch), slug(network.width));
            let mut add = |metric: &str, y: &str, log_y: bool, value: fn(&Point) -> Option<f64>| {
                let axes: [Axis; 2] =
                    [("steps", STEPS, |p| p.step as f64), ("time", "minutes of training", |p| p.wall_s / 60.0)];
                for (kind, x, of) in axes {
                    let caption =
                        format!("{place}: {y} against {x} (protocol {}, {} weights).", m.name, m.protocol.weights);
                    let curves = network.series.iter().map(|s| curve(s, of, value)).collect();
                    let chart = Chart { title: place.clone(), x: x.to_owned(), y: y.to_owned(), log_y, curves };
                    report.lines(format!("{stem}-{metric}-{kind}"), caption, chart);
                }
            };
            add("fid", m.protocol.distance(), true, |p| Some(p.fid));
            add("is", "Inception Score", false, |p| p.score.map(|s| s.0));
        }
    }
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
                let caption = format!("{place}: {what}.");
                let curves = network.series.iter().map(|s| trace(rows, s, metric)).collect();
                let log_y = metric.ends_with("norm");
                let chart = Chart { title: place.clone(), x: STEPS.to_owned(), y: y.clone(), log_y, curves };
                report.lines(format!("{}-{}", m.stem(&network), slug(metric)), caption, chart);
            }
        }
    }
}

/// A curve of the log's means, over the seeds of a series.
fn trace(rows: &[Row], s: &Series, metric: &str) -> Curve {
    let mut by_step: BTreeMap<u64, BTreeMap<&str, f64>> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.metric == metric && r.family == s.family) {
        by_step.entry(row.step).or_default().insert(&row.config_hash, row.value);
    }
    // Where a seed is missing, a mean would jump.
    let points = by_step.into_iter().filter(|(_, of)| of.len() == s.runs.len()).map(|(step, of)| {
        let values: Vec<f64> = of.into_values().collect();
        banded(step as f64, &values)
    });
    Curve { method: s.method.clone(), name: s.label.clone(), points: points.collect() }
}

pub(super) fn pictures(report: &mut Report, pictures: &[Picture]) {
    // Samples first, then neighbours.
    let mut by_place: BTreeMap<(Reverse<&str>, &str, &str, String), Vec<&Picture>> = BTreeMap::new();
    for p in pictures {
        let network = network_title(&p.arch, &p.width.to_string());
        by_place.entry((Reverse(&p.kind), &p.experiment, &p.scale, network)).or_default().push(p);
    }
    let mut kind = "";
    for ((Reverse(of), experiment, scale, arch), all) in by_place {
        let Some(seed) = all.iter().map(|p| p.seed).min() else { continue };
        if kind != of {
            let title = if of == "samples" { "Samples" } else { "Nearest training images" };
            report.document.heading(2, title, of);
            kind = of;
        }
        let caption = match of {
            "samples" => {
                format!("{experiment} at scale {scale}, {arch}, seed {seed}: every method draws from the same latents.")
            }
            _ => format!(
                "{experiment} at scale {scale}, {arch}, seed {seed}: generated images (first column) and the training images nearest to \
                 them in pixels. Copies of training images would stand out."
            ),
        };
        let mut shown: Vec<&&Picture> = all.iter().filter(|p| p.seed == seed).collect();
        shown.sort_by_key(|p| order(&p.method));
        let shown = shown.into_iter().map(|p| (p.method.clone(), p.png.clone()));
        let file = format!("{}-{}-{}-{of}", slug(experiment), slug(scale), slug(&arch));
        report.figure(format!("{file}.png"), caption);
        report.plots.insert(file, Plot::Pictures(shown.collect()));
    }
}
