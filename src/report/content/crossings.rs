//! Where methods change places: between which evaluations the distance of one falls below that of another.

use super::standing::common;
use super::{Measured, slug};
use crate::report::document::{Cell, Document, Line, Table};
use crate::report::runs::Run;
use crate::report::series::{Network, Sample, Series};

/// Most pairs that are named together.
const NAMED: usize = 8;

/// How two curves stand to each other, where they are apart.
#[derive(Debug, PartialEq)]
struct Order {
    /// Whether the first curve is the lower one at the first and at the last evaluation.
    lower: [bool; 2],
    /// Updates of the evaluations around each change.
    changes: Vec<[u64; 2]>,
}

/// None of curves that are nowhere apart, or nowhere both numbers.
fn order(steps: &[u64], a: &[f64], b: &[f64]) -> Option<Order> {
    let gaps = steps.iter().zip(a.iter().zip(b)).map(|(step, (a, b))| (*step, a - b));
    let apart: Vec<(u64, bool)> =
        gaps.filter(|gap| gap.1.is_finite() && gap.1 != 0.0).map(|gap| (gap.0, gap.1 < 0.0)).collect();
    let lower = [apart.first()?.1, apart.last()?.1];
    let changes = apart.windows(2).filter(|w| w[0].1 != w[1].1).map(|w| [w[0].0, w[1].0]).collect();
    Some(Order { lower, changes })
}

/// Two methods over the seeds that both have.
struct Pair<'a> {
    series: [&'a Series<'a>; 2],
    /// Updates until the first and the last evaluation of all these runs, and how many there are.
    ends: [u64; 2],
    evaluations: usize,
    /// Of the means over the seeds.
    order: Order,
    /// Of each seed.
    seeds: Vec<(u64, Option<Order>)>,
}

impl<'a> Pair<'a> {
    /// None of methods that share no seed or less than two evaluations.
    fn of(series: [&'a Series<'a>; 2]) -> Option<Self> {
        let [a, b] = series;
        let beside = |x: &&'a Run| b.runs.iter().find(|y| y.seed == x.seed).copied();
        let runs: Vec<[&Run; 2]> = a.runs.iter().filter_map(|x| Some([*x, beside(x)?])).collect();
        let steps = common(runs.iter().flatten().copied());
        let curves: Vec<[Vec<f64>; 2]> = runs.iter().map(|pair| pair.map(|run| curve(run, &steps))).collect();
        let mean = |of: usize| -> Vec<f64> {
            (0..steps.len()).map(|i| Sample(curves.iter().map(|c| c[of][i]).collect()).mean()).collect()
        };
        let [first, .., last] = steps[..] else { return None };
        Some(Self {
            series,
            ends: [first, last],
            evaluations: steps.len(),
            order: order(&steps, &mean(0), &mean(1))?,
            seeds: runs.iter().zip(&curves).map(|([run, _], [a, b])| (run.seed, order(&steps, a, b))).collect(),
        })
    }

    fn side(&self, is_first: bool) -> &'a Series<'a> {
        self.series[usize::from(!is_first)]
    }

    /// Whether the order of means changes, or a seed ends in another one.
    fn changes(&self) -> bool {
        let last = self.order.lower[1];
        !self.order.changes.is_empty()
            || self.seeds.iter().any(|(_, of)| of.as_ref().is_some_and(|o| o.lower[1] != last))
    }

    fn line(&self, m: &Measured) -> Line {
        let last = |order: &Order| order.changes.last().map(|[from, to]| format!("{from}–{to}"));
        let seed = |(seed, order): &(u64, Option<Order>)| {
            let order = order.as_ref()?;
            let since = last(order).map_or_else(|| "throughout".to_owned(), |at| format!("since {at}"));
            Some(format!("seed {seed}: {} {since}", self.side(order.lower[1]).label))
        };
        let lower = |end: usize| {
            let series = self.side(self.order.lower[end]);
            Cell::linked(format!("{} at {}", series.label, self.ends[end]), &m.link(series))
        };
        let cells = vec![
            Cell::from(format!("{} and {}", self.series[0].label, self.series[1].label)),
            Cell::from(self.seeds.len().to_string()),
            Cell::from(self.evaluations.to_string()),
            lower(0),
            lower(1),
            Cell::from(self.order.changes.len().to_string()),
            Cell::from(last(&self.order).unwrap_or_else(|| "–".to_owned())),
            Cell::from(self.seeds.iter().filter_map(seed).collect::<Vec<_>>().join("; ")),
        ];
        Line::Cells { id: None, cells }
    }
}

/// A run's distances after these updates.
fn curve(run: &Run, steps: &[u64]) -> Vec<f64> {
    let at = |step: &u64| run.points.iter().find(|p| p.step == *step).map_or(f64::NAN, |p| p.fid);
    steps.iter().map(at).collect()
}

/// The pairs of methods whose order changes, and the others in a sentence.
pub(super) fn say(document: &mut Document, m: &Measured, network: &Network) {
    let all = &network.series;
    let pairs = all.iter().enumerate().flat_map(|(i, a)| all[i + 1..].iter().map(|b| [*a, *b]));
    let (changing, steady): (Vec<Pair>, Vec<Pair>) = pairs.filter_map(Pair::of).partition(Pair::changes);
    let (distance, place) = (m.protocol.distance(), m.place(network));
    let kept = |p: &Pair| {
        let [low, high] = [p.order.lower[1], !p.order.lower[1]].map(|is_first| &p.side(is_first).label);
        format!("{low} below {high}")
    };
    let others = match steady.len() {
        0 => String::new(),
        n if n > NAMED => {
            format!("{n} pairs keep the order of their mean {distance} at all evaluations that they share.")
        }
        _ => {
            let kept: Vec<String> = steady.iter().map(kept).collect();
            format!("In the same order of mean {distance} at all evaluations that they share: {}.", kept.join(", "))
        }
    };
    if changing.is_empty() {
        if !others.is_empty() {
            document.text(format!("{place} (protocol {}): no two methods change places. {others}", m.name));
        }
        return;
    }
    document.table(Table {
        id: format!("crossings-{}-{}-{}", m.name.to_lowercase(), slug(network.arch), slug(network.width)),
        caption: format!(
            "Pairs of methods that change places ({place}; protocol {}): which has the lower mean {distance} over the seeds that both have, at \
             the first and the last evaluation that all of these runs have after training began, how often that changes, between which \
             evaluations it does so last, and which is lower at the end of each seed, since when. Nothing is tested here: curves of few seeds or \
             few images cross by their noise alone. Pairs without a common seed or two common evaluations are left out. {others}",
            m.name
        ),
        head: ["pair", "seeds", "evaluations", "lower first", "lower last", "changes", "last change", "seed by seed"]
            .map(str::to_owned)
            .into(),
        lines: changing.iter().map(|pair| pair.line(m)).collect(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_changes_between_the_evaluations_around() {
        let steps = [100, 200, 300, 400, 500];
        let of = |a: [f64; 5], b: [f64; 5]| order(&steps, &a, &b);
        // Above, below, together, below, above.
        let found = of([90.0, 50.0, 50.0, 20.0, 31.0], [60.0, 55.0, 50.0, 40.0, 30.0]);
        assert_eq!(found, Some(Order { lower: [false, false], changes: vec![[100, 200], [400, 500]] }));
        // Where curves touch, or one is no number, the change is somewhere between those beside.
        let found = of([90.0, 50.0, f64::NAN, 20.0, 30.0], [60.0, 50.0, 50.0, 40.0, 30.0]);
        assert_eq!(found, Some(Order { lower: [false, true], changes: vec![[100, 400]] }));
        assert_eq!(of([1.0; 5], [2.0; 5]), Some(Order { lower: [true, true], changes: vec![] }));
        assert_eq!(of([1.0; 5], [1.0; 5]), None);
    }
}
