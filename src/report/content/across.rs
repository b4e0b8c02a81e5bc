//! Methods over many cells, where a cell is a data set with a network: how likely one improves on another, and scores summed up.
//!
//! The score of a run is the lowest distance of its cell over the run's own (the inverse of Dolan & Moré's performance ratio, 2002): 1 for
//! the cell's best run, ½ for one with twice that distance, on every data set and under every extractor. It needs no baseline that each
//! cell would have, and has a worst value: a run that diverged scores 0.

use std::collections::{BTreeMap, BTreeSet};

use super::{Measured, Report};
use crate::report::chart::{Chart, Curve, order};
use crate::report::document::{Cell, Line, Table};
use crate::report::runs::{Point, Protocol, Run};
use crate::report::series::{Network, Series, networks, series};
use crate::statistics::across::{bootstrap, improvement, interquartile_mean, profile};

/// Thresholds of a performance profile.
const THRESHOLDS: usize = 101;

/// Method and loss, which are what a series is in every cell.
type Method = (String, String);

/// Runs of each method in a cell: their scores at the lowest distance and at the last step, and whether they diverged.
type Scores = BTreeMap<Method, Vec<[f64; 2]>>;

/// A network under a protocol.
struct Place {
    name: String,
    /// Distances of the runs of each method; infinite where they diverged.
    distances: Scores,
}

/// Cells that each have all of the methods.
struct Matrix<'a> {
    places: Vec<&'a Place>,
    methods: Vec<Method>,
}

/// What protocols share whose cells stand together: all but the data.
fn measurement(protocol: &Protocol) -> Protocol {
    let [experiment, dataset, split, extractor_sha256, reference, reference_sha256, how] = Default::default();
    Protocol {
        image_size: 0,
        experiment,
        dataset,
        split,
        extractor_sha256,
        reference,
        reference_sha256,
        how,
        ..protocol.clone()
    }
}

/// Distances at the lowest and at the last evaluation of a run that has ended.
fn distances(run: &Run) -> [f64; 2] {
    let of = |p: &Point| {
        let is_number = run.status != "diverged" && p.fid.is_finite();
        if is_number { p.fid.max(f64::MIN_POSITIVE) } else { f64::INFINITY }
    };
    [of(run.best()), of(run.last())]
}

/// A cell, where its runs that have ended had the same settings and, but for those that diverged, the same evaluations.
fn place(m: &Measured, network: &Network) -> Option<Place> {
    let is_over = |r: &&Run| matches!(r.status.as_str(), "finished" | "diverged");
    let over: Vec<&Series> = network.series.iter().copied().filter(|s| s.runs.iter().all(is_over)).collect();
    let runs = || over.iter().flat_map(|s| &s.runs);
    let steps = |r: &Run| r.points.iter().map(|p| p.step).collect::<Vec<_>>();
    let alike = runs().all(|r| r.settings == over[0].runs[0].settings);
    let evaluated: BTreeSet<Vec<u64>> = runs().filter(|r| r.status == "finished").map(|r| steps(r)).collect();
    let mut of_methods = BTreeMap::new();
    for s in &over {
        let of_runs = s.runs.iter().map(|r| distances(r)).collect();
        if of_methods.insert((s.method.clone(), s.loss.clone()), of_runs).is_some() {
            return None;
        }
    }
    let Protocol { experiment, dataset, .. } = &m.protocol;
    let of = if experiment == dataset { String::new() } else { format!("{experiment}, ") };
    let name = format!("{dataset} ({of}{})", network.title());
    (alike && evaluated.len() < 2).then_some(Place { name, distances: of_methods })
}

/// Of the cells that share two methods or more, those with the methods that all of them have: as many pairs of both as there can be.
fn matrix(places: &[Place]) -> Option<Matrix<'_>> {
    let methods = |p: &Place| p.distances.keys().cloned().collect::<BTreeSet<Method>>();
    let mut best: Option<Matrix> = None;
    for (i, a) in places.iter().enumerate() {
        for b in &places[..i] {
            let shared: BTreeSet<Method> = methods(a).intersection(&methods(b)).cloned().collect();
            let with: Vec<&Place> = places.iter().filter(|p| shared.is_subset(&methods(p))).collect();
            let size = |m: &Matrix| m.methods.len() * m.places.len();
            let mut shared: Vec<Method> = shared.into_iter().collect();
            shared.sort_by_key(|(method, loss)| (order(method), method.clone(), loss.clone()));
            let found = Matrix { places: with, methods: shared };
            if found.methods.len() > 1 && best.as_ref().is_none_or(|best| size(&found) > size(best)) {
                best = Some(found);
            }
        }
    }
    best
}

impl Matrix<'_> {
    /// Scores of a method, cell by cell, at the lowest distance (0) or at the last step (1).
    fn scores(&self, method: &Method, at: usize) -> Vec<Vec<f64>> {
        let of = |place: &&Place| {
            let runs = self.methods.iter().flat_map(|m| &place.distances[m]);
            let lowest = runs.map(|d| d[at]).fold(f64::MAX, f64::min);
            place.distances[method].iter().map(|d| lowest / d[at]).collect()
        };
        self.places.iter().map(of).collect()
    }

    fn name(&self, (method, loss): &Method) -> String {
        let alone = self.methods.iter().filter(|m| m.0 == *method).count() == 1;
        if alone { method.clone() } else { format!("{method} ({loss})") }
    }
}

pub(super) fn section(report: &mut Report, measured: &[Measured]) {
    let mut by_measurement: BTreeMap<Protocol, Vec<Place>> = BTreeMap::new();
    for m in measured {
        let places = networks(&series(&m.runs)).iter().filter_map(|network| place(m, network)).collect::<Vec<_>>();
        by_measurement.entry(measurement(&m.protocol)).or_default().extend(places);
    }
    let matrices = by_measurement.iter().filter_map(|(protocol, places)| Some((protocol, matrix(places)?)));
    for (n, (protocol, matrix)) in matrices.enumerate() {
        if n == 0 {
            report.document.heading(2, "Across data sets and networks", "across");
            report.document.text(
                "The score of a run is the lowest distance of its cell over its own: 1 for the best run of a data set with a network, ½ for one \
                 with twice that distance, 0 for one that diverged. No run is left out. The interquartile mean is the mean of all scores \
                 without the lowest and the highest quarter; runs that collapsed and went on count by what they ended with at the last \
                 step. A probability of improvement is that of a run of the method on the left to be better than one of the method on top in the same \
                 cell, mean over cells. Brackets hold 95 % intervals (percentiles of a bootstrap of seeds within cells; few seeds \
                 make them too narrow). Cells are not a sample of all data: no interval says what others would show.",
            );
        }
        add(report, &format!("across-{}", n + 1), protocol, &matrix);
    }
}

/// A number with its interval.
fn shown(value: f64, [low, high]: [f64; 2]) -> String {
    format!("{value:.2} ({low:.2}–{high:.2})")
}

fn add(report: &mut Report, stem: &str, protocol: &Protocol, matrix: &Matrix) {
    let Protocol { scale, metric, weights, extractor, .. } = protocol;
    let what = format!("{metric} of {weights} weights over {extractor} at scale {scale}");
    let names: Vec<String> = matrix.methods.iter().map(|m| matrix.name(m)).collect();
    let scores: Vec<[Vec<Vec<f64>>; 2]> =
        matrix.methods.iter().map(|m| [0, 1].map(|at| matrix.scores(m, at))).collect();

    let cells: Vec<&str> = matrix.places.iter().map(|p| p.name.as_str()).collect();
    let summed = names.iter().zip(&scores).map(|(name, of)| {
        let mean = |at: usize| {
            let interval = bootstrap(&of[at], "report/across/mean", |drawn| vec![interquartile_mean(drawn)])[0];
            shown(interquartile_mean(&of[at]), interval)
        };
        let runs = of[0].concat();
        // Of a distance that is no number, or of a run that diverged.
        let lost = runs.iter().filter(|score| **score == 0.0).count();
        let cells = [name.clone(), mean(0), mean(1), runs.len().to_string(), lost.to_string()];
        Line::Cells { id: None, cells: cells.into_iter().map(Cell::from).collect() }
    });
    report.document.table(Table {
        id: stem.to_owned(),
        caption: format!("Interquartile mean of scores, {what}, over {}.", cells.join(", ")),
        head: ["method", "lowest distance ↑", "at the last step ↑", "runs", "diverged"].map(str::to_owned).to_vec(),
        lines: summed.collect(),
    });

    let against = names.iter().zip(&scores).map(|(name, of)| {
        let other = |(other, than): (&String, &[Vec<Vec<f64>>; 2])| {
            if other == name {
                return Cell::from("–");
            }
            let both = [&of[0][..], &than[0][..]].concat();
            let likely = |drawn: &[Vec<f64>]| improvement(&drawn[..of[0].len()], &drawn[of[0].len()..]);
            let interval = bootstrap(&both, "report/across/improvement", |drawn| vec![likely(drawn)])[0];
            Cell::from(shown(likely(&both), interval))
        };
        let cells = std::iter::once(Cell::from(name.as_str())).chain(names.iter().zip(&scores).map(other));
        Line::Cells { id: None, cells: cells.collect() }
    });
    report.document.table(Table {
        id: format!("{stem}-improvement"),
        caption: format!("Probability that the method on the left improves on the one on top, lowest {what}."),
        head: std::iter::once("method".to_owned()).chain(names.iter().cloned()).collect(),
        lines: against.collect(),
    });

    let thresholds: Vec<f64> = (0..THRESHOLDS).map(|i| i as f64 / (THRESHOLDS - 1) as f64).collect();
    let curves = matrix.methods.iter().zip(&names).zip(&scores).enumerate().map(|(at, ((method, name), of))| {
        let ends = bootstrap(&of[0], "report/across/profile", |drawn| profile(drawn, &thresholds));
        let shares = profile(&of[0], &thresholds);
        let points = thresholds.iter().zip(shares).zip(ends).map(|((t, share), [low, high])| [*t, share, low, high]);
        let nth = matrix.methods[..at].iter().filter(|earlier| earlier.0 == method.0).count();
        Curve { method: method.0.clone(), name: name.clone(), nth, is_second: false, points: points.collect() }
    });
    let chart = Chart {
        title: what.clone(),
        x: "score τ".to_owned(),
        y: "share of runs with a score above τ".to_owned(),
        log_y: false,
        curves: curves.collect(),
    };
    let caption = format!("Performance profiles, lowest {what}, with 95 % intervals: the higher the better.");
    report.lines(format!("{stem}-profile"), caption, chart);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::content::{Sources, build};
    use crate::report::markdown;
    use crate::results::Row;
    use crate::results::tests::row;

    fn cell(dataset: &str, method: &str, distances: &[f64], status: &str) -> Vec<Row> {
        let of = |(seed, distance): (usize, &f64)| Row {
            dataset: dataset.into(),
            experiment: dataset.into(),
            family: format!("{dataset} {method}"),
            config_hash: format!("{dataset} {method} {seed}"),
            status: if seed == 0 { status.into() } else { "finished".into() },
            ..row(method, seed as u64, 100, "fid2k_train", *distance)
        };
        distances.iter().enumerate().map(of).collect()
    }

    fn text(rows: &[Row]) -> (String, bool) {
        let report = build(&Sources { rows, baselines: &[], pictures: &[], cells: &[], note: "" });
        (markdown::render(&report.document), report.plots.contains_key("across-1-profile"))
    }

    fn line(text: &str, start: &str, n: usize) -> Vec<String> {
        let line = text.lines().filter(|l| l.starts_with(start)).nth(n).unwrap_or_else(|| panic!("{start} in {text}"));
        line.split('|').map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn methods_that_two_cells_share_are_summed_up() {
        let rows = [
            cell("a", "gn", &[20.0, 40.0, 20.0, 40.0], "finished"),
            cell("a", "pgn", &[10.0, 20.0, 10.0, 20.0], "finished"),
            cell("a", "sn", &[1.0], "finished"),
            cell("b", "gn", &[400.0, 400.0, 400.0, 400.0], "finished"),
            cell("b", "pgn", &[200.0, 200.0, 200.0, 200.0], "finished"),
        ]
        .concat();
        let (all, drawn) = text(&rows);
        let section = &all[all.find("## Across data sets and networks").unwrap()..];
        assert!(drawn && section.contains("over a (cnn32, width 0.25), b (cnn32, width 0.25)."), "{section}");
        // gn: ¼ twice and ½ six times, of which the lowest and the highest two go.
        assert_eq!(line(section, "| gn", 0)[1..], ["0.50 (0.38–0.50)", "0.50 (0.38–0.50)", "8", "0"]);
        assert_eq!(line(section, "| pgn", 0)[3..], ["8", "0"]);
        // Of 16 pairs of the first cell 12 are won and 4 are ties; all of the second one are won.
        assert!(line(section, "| pgn", 1)[1].starts_with("0.94 ("), "{section}");
        assert_eq!(text(&rows).0, all);
        let (one, _) = text(&rows[..9]);
        assert!(!one.contains("## Across"));
    }

    #[test]
    fn a_run_that_diverged_is_the_worst_however_good_it_was() {
        let of = |status: &str| {
            let rows = [
                cell("a", "gn", &[10.0, 10.0], "finished"),
                cell("a", "pgn", &[1.0, 20.0], status),
                cell("b", "gn", &[10.0, 10.0], "finished"),
                cell("b", "pgn", &[1.0, 20.0], status),
            ];
            text(&rows.concat()).0
        };
        let row = |status: &str, n: usize| {
            let all = of(status);
            line(&all[all.find("## Across").unwrap()..], "| pgn", n)
        };
        assert_eq!(row("diverged", 0)[3..], ["4", "2"]);
        assert_eq!(row("finished", 0)[3..], ["4", "0"]);
        assert!(row("diverged", 1)[1].starts_with("0.00 (") && row("finished", 1)[1].starts_with("0.50 ("));
        assert!(!of("running").contains("## Across"));
    }

    #[test]
    fn cells_are_those_that_share_most() {
        let place = |name: &str, methods: &[&str]| Place {
            name: name.into(),
            distances: methods.iter().map(|m| (((*m).to_owned(), "hinge".to_owned()), Vec::new())).collect(),
        };
        let places = [
            place("a", &["gn", "pgn", "sn", "none"]),
            place("b", &["gn", "pgn", "sn"]),
            place("c", &["pgn", "sn"]),
            place("d", &["r1"]),
        ];
        let found = matrix(&places).unwrap();
        // Three methods in two cells are as many as two in three: the first found stands.
        assert_eq!((found.places.len(), found.methods.len()), (2, 3));
        assert!(matrix(&places[2..]).is_none());
    }
}
