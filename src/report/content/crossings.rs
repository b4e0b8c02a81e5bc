//! Where methods change places: after how many updates the distance of one falls below that of another, for good.

use super::standing::{common, differ};
use super::{Measured, slug};
use crate::report::document::{Cell, Line, Table};
use crate::report::runs::{Network, Run, Sample, Series};

/// How two curves over the same updates stand to each other.
#[derive(Debug, PartialEq)]
struct Crossing {
    /// Whether the first curve is the lower one at the first and at the last evaluation.
    lower: [bool; 2],
    /// Updates at each change of order, on the straight lines between evaluations.
    changes: Vec<f64>,
}

/// None where one of the curves is no number somewhere, or where they end in the same place.
fn crossing(steps: &[u64], a: &[f64], b: &[f64]) -> Option<Crossing> {
    let gaps: Vec<(f64, f64)> = steps.iter().zip(a.iter().zip(b)).map(|(s, (a, b))| (*s as f64, a - b)).collect();
    let apart: Vec<(f64, f64)> = gaps.iter().copied().filter(|gap| gap.1 != 0.0).collect();
    let (first, last) = (apart.first()?, apart.last()?);
    if gaps.iter().any(|gap| !gap.1.is_finite()) || gaps.last()?.1 == 0.0 {
        return None;
    }
    let change = |w: &[(f64, f64)]| {
        let [(from, before), (to, after)] = [w[0], w[1]];
        (before.signum() != after.signum()).then(|| from + (to - from) * before / (before - after))
    };
    Some(Crossing { lower: [first.1 < 0.0, last.1 < 0.0], changes: apart.windows(2).filter_map(change).collect() })
}

/// A run's distances after these updates.
fn curve(run: &Run, steps: &[u64]) -> Vec<f64> {
    let at = |step: &u64| run.points.iter().find(|p| p.step == *step).map_or(f64::NAN, |p| p.fid);
    steps.iter().map(at).collect()
}

fn mean(s: &Series, steps: &[u64]) -> Vec<f64> {
    let curves: Vec<Vec<f64>> = s.runs.iter().map(|run| curve(run, steps)).collect();
    (0..steps.len()).map(|i| Sample(curves.iter().map(|c| c[i]).collect()).mean()).collect()
}

fn last_sample(s: &Series, step: u64) -> Sample {
    Sample(s.runs.iter().flat_map(|run| curve(run, &[step])).collect())
}

/// Each shared seed's last change of order.
fn of_seeds(a: &Series, b: &Series, steps: &[u64]) -> String {
    let pairs = a.runs.iter().filter_map(|x| Some((x, b.runs.iter().find(|y| y.seed == x.seed)?)));
    let last = pairs.map(|(x, y)| match crossing(steps, &curve(x, steps), &curve(y, steps)) {
        Some(Crossing { changes, .. }) => changes.last().map_or_else(|| "none".to_owned(), |at| format!("{at:.0}")),
        None => "–".to_owned(),
    });
    let last: Vec<String> = last.collect();
    if last.is_empty() { "–".to_owned() } else { last.join("; ") }
}

fn line(m: &Measured, [a, b]: [&Series; 2]) -> Option<Line> {
    let steps = common(&[a, b]);
    let (&first, &end) = (steps.first()?, steps.last()?);
    if first == end {
        return None;
    }
    let Crossing { lower, changes } = crossing(&steps, &mean(a, &steps), &mean(b, &steps))?;
    let name = |is_first: bool| if is_first { a } else { b };
    let winner =
        |is_first: bool, step: u64| Cell::linked(format!("{} ({step})", name(is_first).label), &m.link(name(is_first)));
    let ends = [a, b].map(|s| last_sample(s, end));
    let apart = match a.runs.len().min(b.runs.len()) {
        1 => "one seed",
        _ if differ(&ends[0], &ends[1]) => "yes",
        _ => "no",
    };
    let cells = vec![
        Cell::from(format!("{}, {}", a.label, b.label)),
        winner(lower[0], first),
        winner(lower[1], end),
        Cell::from(apart),
        Cell::from(changes.len().to_string()),
        Cell::from(changes.last().map_or_else(|| "–".to_owned(), |at| format!("{at:.0}"))),
        Cell::from(of_seeds(a, b, &steps)),
    ];
    Some(Line::Cells { id: None, cells })
}

/// Every two methods of a network that have two evaluations in common.
pub(super) fn table(m: &Measured, network: &Network) -> Option<Table> {
    let pairs = network.series.iter().enumerate().flat_map(|(i, a)| network.series[..i].iter().map(move |b| [*b, *a]));
    let lines: Vec<Line> = pairs.filter_map(|pair| line(m, pair)).collect();
    let distance = m.protocol.distance();
    (!lines.is_empty()).then(|| Table {
        id: format!("crossings-{}-{}-{}", m.name.to_lowercase(), slug(network.arch), slug(network.width)),
        caption: format!(
            "Where methods change places ({}; protocol {}): which of two has the lower mean {distance} at the first evaluation that both \
             have after training began and at the last one, in brackets the updates until then, and after how many updates the order \
             changes, on the straight lines between the means over seeds. Beside it each shared seed’s last change, in order of seeds. Told \
             apart is who is so by Welch’s test over seeds at 5 %.",
            m.place(network),
            m.name
        ),
        head: ["of two", "lower at first", "lower at last", "told apart at last", "changes", "last change", "of each seed"]
            .map(str::to_owned)
            .into(),
        lines,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_cross_where_a_walk_along_both_finds_it() {
        let steps = [100, 200, 300, 400, 500];
        let (a, b) = ([90.0, 50.0, 50.0, 20.0, 31.0], [60.0, 55.0, 50.0, 40.0, 30.0]);
        let at = |curve: &[f64], x: f64| {
            let to = steps.iter().position(|s| *s as f64 >= x).unwrap().max(1);
            curve[to - 1] + (curve[to] - curve[to - 1]) * (x - steps[to - 1] as f64) / 100.0
        };
        let walk: Vec<f64> = (10_000..50_000)
            .map(|i| f64::from(i) / 100.0)
            .filter(|x| (at(&a, *x) - at(&b, *x)) * (at(&a, x + 0.01) - at(&b, x + 0.01)) < 0.0)
            .collect();
        let found = crossing(&steps, &a, &b).unwrap();
        assert_eq!(found.lower, [false, false]);
        assert_eq!(found.changes.len(), walk.len());
        for (found, walked) in found.changes.iter().zip(&walk) {
            assert!((found - walked).abs() <= 0.02, "{found} is not {walked}");
        }
        assert_eq!(crossing(&steps, &a, &a), None);
        assert_eq!(crossing(&[1, 2], &[1.0, f64::NAN], &[2.0, 2.0]), None);
        assert_eq!(
            crossing(&[1, 2], &[1.0, 1.0], &[2.0, 2.0]),
            Some(Crossing { lower: [true, true], changes: vec![] })
        );
    }
}
