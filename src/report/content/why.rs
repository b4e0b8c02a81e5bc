//! What the methods differ in: where f̂ lies, how steep f and f̂ are, and how much of a change of f reaches the loss.

use super::figures::{STEPS, trace};
use super::{Measured, Report, by_experiment, slug};
use crate::report::chart::{Chart, Curve};
use crate::report::series::{Series, networks, series};
use crate::results::{CRITIC, Row};

/// What a figure of one of [`CRITIC`] shows, and what its caption says; whether its axis may be logarithmic.
const SHOWN: [(&str, &str, bool); 7] = [
    ("critic output f", "the critic's output f, mean over images", false),
    (
        "normalised output",
        "f̂, what enters the loss, mean over images. Where real and generated images lie together near an end, the critic tells them apart \
         no more, whatever its loss says",
        false,
    ),
    ("gradient norm of f", "norm of the gradient of f in the image, mean over images", true),
    ("gradient norm of the normalised output", "norm of the gradient of f̂ in the image, mean over images", true),
    (
        "share of images where f dominates",
        "share of images with |f̂| > ½: the numerator of f̂ exceeds the norm it is divided with, so that f̂ hardly depends on the gradient",
        false,
    ),
    (
        "share of images where the loss is flat",
        "share of images where the loss is flat in f̂ (under the hinge: beyond the margin)",
        false,
    ),
    (
        "slope of the loss in f",
        "|∂loss/∂f|, what an image counts in the critic's update: slope of the loss in f̂ times ∂f̂/∂f, mean over images",
        true,
    ),
];

/// Both curves of a method: real images, and dotted, generated ones. Without bands, which would hide so many curves.
fn sides(rows: &[Row], s: &Series, name: &str) -> [Curve; 2] {
    ["real", "generated"].map(|side| {
        let curve = trace(rows, s, &format!("{name}_{side}"));
        let points = curve.points.into_iter().map(|[x, y, ..]| [x, y, y, y]).collect();
        Curve { is_second: side == "generated", points, ..curve }
    })
}

pub(super) fn section(report: &mut Report, rows: &[Row], measured: &[Measured]) {
    report.section("What the critics do", "critics", true, |report| {
        for m in by_experiment(measured) {
            for network in networks(&series(&m.runs)) {
                for (name, (y, what, log_y)) in CRITIC.into_iter().zip(SHOWN) {
                    let place = m.place(&network);
                    let caption =
                        format!("{place}: {what}. Real images, and dotted, generated ones; means over seeds.");
                    let curves = network.series.iter().flat_map(|s| sides(rows, s, name)).collect();
                    let chart = Chart { title: place, x: STEPS.to_owned(), y: y.to_owned(), log_y, curves };
                    report.lines(format!("{}-critic-{}", m.stem(&network), slug(name)), caption, chart);
                }
            }
        }
    });
}
