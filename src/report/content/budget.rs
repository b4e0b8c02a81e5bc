//! What methods reach for how much: where they change places, updates to a distance, and distances at equal times of training.

use super::{Measured, Report, crossings, is_first, slug};
use crate::report::document::{Cell, Line, Table};
use crate::report::markdown::significant;
use crate::report::runs::{Point, Run, distinct};
use crate::report::series::{Network, Sample, Series, networks, series};

/// Most distances and times of a table, of those the hardest ones.
const MOST: usize = 4;
/// What round distances begin with.
const ROUND: [f64; 6] = [1.0, 1.5, 2.0, 3.0, 5.0, 7.0];

/// When a run first had a distance.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reached {
    /// Generator updates.
    step: f64,
    /// Whether it was there at the first evaluation after training began, and may have been before.
    by_then: bool,
}

/// The updates after which the distance first was `limit` or less: on the straight line between evaluations, except that between
/// the untrained generator and the first evaluation nothing is known.
fn reached(points: &[Point], limit: f64) -> Option<Reached> {
    let trained: Vec<&Point> = points.iter().filter(|p| p.step > 0).collect();
    let at = trained.iter().position(|p| p.fid <= limit)?;
    let end = trained[at];
    let Some(start) = at.checked_sub(1).map(|before| trained[before]) else {
        return Some(Reached { step: end.step as f64, by_then: true });
    };
    let share = (start.fid - limit) / (start.fid - end.fid);
    Some(Reached { step: start.step as f64 + share * (end.step - start.step) as f64, by_then: false })
}

/// The distance after so many seconds of training: on the straight line between evaluations, of which the untrained generator's is none.
fn at_seconds(points: &[Point], seconds: f64) -> Option<f64> {
    let trained: Vec<&Point> = points.iter().filter(|p| p.step > 0).collect();
    let after = trained.iter().position(|p| p.wall_s >= seconds)?;
    let end = trained[after];
    if end.wall_s == seconds {
        return Some(end.fid);
    }
    let start = trained[after.checked_sub(1)?];
    let share = (seconds - start.wall_s) / (end.wall_s - start.wall_s);
    Some(start.fid + share * (end.fid - start.fid))
}

/// Every run's, where every run of a series has one.
fn every<T>(s: &Series, of: impl Fn(&Run) -> Option<T>) -> Option<Vec<T>> {
    s.runs.iter().map(|run| of(run)).collect()
}

/// The lowest round distances that all seeds of two methods reach, and some not at once, from the highest.
fn limits(network: &Network) -> Vec<f64> {
    let lowest: Vec<f64> = network
        .series
        .iter()
        .filter_map(|s| every(s, |r| r.points.iter().filter(|p| p.step > 0).map(|p| p.fid).min_by(f64::total_cmp)))
        .map(|of| of.into_iter().fold(0.0, f64::max))
        .collect();
    let highest = network.runs().flat_map(|r| &r.points).filter(|p| p.step > 0).map(|p| p.fid).fold(0.0, f64::max);
    let second = {
        let mut sorted = lowest;
        sorted.sort_by(f64::total_cmp);
        sorted.get(1).copied().unwrap_or(f64::INFINITY)
    };
    if !(second > 0.0 && highest.is_finite()) {
        return Vec::new();
    }
    let start = second.log10().floor() as i32;
    let round = (start..=start + 3).flat_map(|e| ROUND.iter().map(move |r| r * 10f64.powi(e)));
    let tells = |limit: f64| network.runs().filter_map(|r| reached(&r.points, limit)).any(|r| !r.by_then);
    let mut limits: Vec<f64> =
        round.filter(|limit| (second..highest).contains(limit) && tells(*limit)).take(MOST).collect();
    limits.reverse();
    limits
}

/// Times of training that all runs on a device have distances at: the longest, and its halves.
fn times(runs: &[&Run]) -> Vec<f64> {
    let trained = |r: &&Run| r.points.iter().filter(|p| p.step > 0).map(|p| p.wall_s).collect::<Vec<f64>>();
    let ends = |pick: fn(&[f64]) -> Option<&f64>| runs.iter().map(trained).filter_map(move |w| pick(&w).copied());
    let first = ends(<[f64]>::first).fold(0.0, f64::max);
    let last = ends(<[f64]>::last).fold(f64::INFINITY, f64::min);
    let mut times: Vec<f64> = (0..MOST as i32).map(|n| last / 2f64.powi(n)).take_while(|t| *t >= first).collect();
    times.retain(|t| t.is_finite() && *t > 0.0);
    times.reverse();
    times
}

pub(super) fn section(report: &mut Report, measured: &[Measured]) {
    report.section("Who changes places, equal distances, equal times", "budgets", false, |report| {
        for m in measured.iter().filter(|m| is_first(m, measured)) {
            let all = series(&m.runs);
            for network in networks(&all) {
                crossings::say(&mut report.document, m, &network);
                let devices = distinct(network.runs().map(|r| r.device.as_str()));
                let seconds = devices.iter().filter_map(|device| seconds_table(m, &network, device));
                steps_table(m, &network).into_iter().chain(seconds).for_each(|table| report.document.table(table));
            }
        }
    });
}

fn line(m: &Measured, s: &Series, cells: impl Iterator<Item = String>) -> Line {
    let linked = cells.map(|text| if text == "–" { Cell::from(text) } else { Cell::linked(text, &m.link(s)) });
    let seeds = Cell::from(s.runs.len().to_string());
    Line::Cells { id: None, cells: [Cell::from(s.label.as_str()), seeds].into_iter().chain(linked).collect() }
}

fn steps_table(m: &Measured, network: &Network) -> Option<Table> {
    let limits = limits(network);
    let distance = m.protocol.distance();
    let cell = |s: &Series, limit: f64| {
        let all: Vec<Reached> = s.runs.iter().filter_map(|r| reached(&r.points, limit)).collect();
        match (all.len(), s.runs.len()) {
            (0, _) => "–".to_owned(),
            (n, of) if n < of => format!("{n} of {of} seeds"),
            _ => {
                let steps = Sample(all.iter().map(|r| r.step).collect());
                if all.iter().any(|r| r.by_then) { format!("≤ {:.0}", steps.mean()) } else { steps.show(0) }
            }
        }
    };
    let is_there = |s: &&&Series| s.runs.iter().any(|r| r.points.iter().any(|p| p.step > 0));
    let lines: Vec<Line> = network
        .series
        .iter()
        .filter(is_there)
        .map(|s| line(m, s, limits.iter().map(|limit| cell(s, *limit))))
        .collect();
    let head = limits.iter().map(|limit| format!("{distance} {limit}"));
    (!limits.is_empty()).then(|| Table {
        id: format!("steps-{}-{}-{}", m.name.to_lowercase(), slug(network.arch), slug(network.width)),
        caption: format!(
            "Generator updates until {distance} is first so low ({}; protocol {}): mean ± deviation over seeds, each seed’s on the straight \
             line between evaluations; ≤ where a seed was so low at its first one. Distances are round ones that all seeds of two methods reach; – \
             where no seed does, and where some do, how many.",
            m.place(network),
            m.name
        ),
        head: ["method", "seeds"].map(str::to_owned).into_iter().chain(head).collect(),
        lines,
    })
}

fn seconds_table(m: &Measured, network: &Network, device: &str) -> Option<Table> {
    let is_here = |s: &&&Series| s.devices() == [device] && s.runs.iter().all(|r| r.points.iter().any(|p| p.step > 0));
    let here: Vec<&&Series> = network.series.iter().filter(is_here).collect();
    let runs: Vec<&Run> = here.iter().flat_map(|s| s.runs.iter().copied()).collect();
    let times = times(&runs);
    if here.len() < 2 || times.is_empty() {
        return None;
    }
    let distance = m.protocol.distance();
    let cell = |s: &Series, seconds: f64| {
        every(s, |r| at_seconds(&r.points, seconds)).map_or_else(|| "–".to_owned(), |of| Sample(of).show(2))
    };
    let lines = here.iter().map(|s| line(m, s, times.iter().map(|t| cell(s, *t)))).collect();
    let head = times.iter().map(|t| format!("{distance} at {} s", significant(*t, 2)));
    Some(Table {
        id: format!(
            "seconds-{}-{}-{}-{}",
            m.name.to_lowercase(),
            slug(network.arch),
            slug(network.width),
            slug(device)
        ),
        caption: format!(
            "{distance} after equal seconds of training on {device}, evaluation excluded ({}; protocol {}): mean ± deviation over seeds, each \
             seed’s on the straight line between evaluations. The last time is the shortest run’s, the others its halves, as far back as all \
             were evaluated. Times are of one kind of device; of machines with other work they say little.",
            m.place(network),
            m.name
        ),
        head: ["method", "seeds"].map(str::to_owned).into_iter().chain(head).collect(),
        lines,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURVE: [(u64, f64, f64); 5] =
        [(0, 0.0, 400.0), (100, 12.0, 90.0), (200, 25.0, 50.0), (300, 36.0, 60.0), (400, 49.0, 20.0)];

    fn points() -> Vec<Point> {
        CURVE.map(|(step, wall_s, fid)| Point { step, wall_s, fid, score: None }).to_vec()
    }

    #[test]
    fn distances_at_a_time_are_numpys() {
        // numpy.interp([12, 14.5, 25, 30, 48.9, 49], [12, 25, 36, 49], [90, 50, 60, 20])
        let want = [90.0, 82.307_692_307_692_3, 50.0, 54.545_454_545_454_54, 20.307_692_307_692_31, 20.0];
        for (t, want) in [12.0, 14.5, 25.0, 30.0, 48.9, 49.0].into_iter().zip(want) {
            let found = at_seconds(&points(), t).unwrap();
            assert!((found - want).abs() < 1e-12 * want, "{t}: {found} is not {want}");
        }
        assert_eq!([at_seconds(&points(), 11.9), at_seconds(&points(), 49.1)], [None, None]);
    }

    #[test]
    fn a_distance_is_reached_where_a_walk_along_the_curve_first_finds_it() {
        let trained = &CURVE[1..];
        let walk = |limit: f64| {
            (10_000..=40_000).map(|i| f64::from(i) / 100.0).find(|x| {
                let to = trained.iter().position(|p| p.0 as f64 >= *x).unwrap().max(1);
                let (a, b) = (trained[to - 1], trained[to]);
                a.2 + (b.2 - a.2) * (x - a.0 as f64) / 100.0 <= limit + 1e-9
            })
        };
        for limit in [89.0, 75.0, 50.0, 49.0, 20.0] {
            let found = reached(&points(), limit).unwrap();
            assert!((found.step - walk(limit).unwrap()).abs() <= 0.01 && !found.by_then, "{limit}: {found:?}");
        }
        // Nothing is known between the untrained generator and the first evaluation.
        assert_eq!(reached(&points(), 200.0), Some(Reached { step: 100.0, by_then: true }));
        assert_eq!(reached(&points(), 19.9), None);
    }
}
