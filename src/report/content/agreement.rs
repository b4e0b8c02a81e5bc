//! Where measures disagree on the order of methods.

use super::standing::{differ, standing};
use super::{Measured, beside, is_first, slug};
use crate::report::document::{Cell, Document, Line, Table};
use crate::report::runs::{Protocol, Run, is_distance, protocols_of};
use crate::report::series::{Network, Sample, Series, networks, series};
use crate::results::{Row, measure};

/// What a measure gives for a series.
struct Value {
    of_seeds: Sample,
    /// The interval of the only seed's value, where one was taken.
    interval: Option<[f64; 2]>,
}

impl Value {
    fn show(&self) -> String {
        self.of_seeds.show(if self.of_seeds.mean().abs() < 10.0 { 3 } else { 2 })
    }

    /// Whether two differ by more than the noise, as far as that is known.
    fn differs(&self, other: &Self) -> bool {
        match (self.interval, other.interval) {
            (Some(a), Some(b)) => a[1] < b[0] || b[1] < a[0],
            _ => differ(&self.of_seeds, &other.of_seeds),
        }
    }
}

/// A measure of all series of a network.
struct Column {
    name: String,
    of_series: Vec<Option<Value>>,
}

impl Column {
    /// Ranks from 1, of what has the measure, where that has a direction. In order of means a rank is shared until every value to come is
    /// told apart from every one before, so that no two have different ranks whose difference the noise explains.
    fn ranks(&self) -> Vec<Option<usize>> {
        let mut ranks = vec![None; self.of_series.len()];
        if !has_direction(measure(&self.name)) {
            return ranks;
        }
        let mut order: Vec<(usize, &Value)> =
            self.of_series.iter().enumerate().filter_map(|(i, v)| Some((i, v.as_ref()?))).collect();
        order.sort_by(|a, b| a.1.of_seeds.mean().total_cmp(&b.1.of_seeds.mean()));
        if !is_distance(measure(&self.name)) {
            order.reverse();
        }
        let mut rank = 1;
        for (n, (i, _)) in order.iter().enumerate() {
            let (before, from) = order.split_at(n);
            if from.iter().all(|(_, v)| before.iter().all(|(_, other)| v.differs(other))) {
                rank = n + 1;
            }
            ranks[*i] = Some(rank);
        }
        ranks
    }
}

/// Whether more or less of a measure is better: that a set is no copy says nothing of what it is (noise is none).
fn has_direction(measure: &str) -> bool {
    measure.trim_end_matches("-dinov2") != "authpct"
}

/// Whether a measure is one of images.
fn is_score(measure: &str) -> bool {
    let of = measure.trim_end_matches("-dinov2");
    is_distance(measure) || matches!(of, "is" | "is-inf" | "precision" | "recall" | "density" | "coverage" | "authpct")
}

pub(super) fn tables(document: &mut Document, rows: &[Row], measured: &[Measured]) {
    let all = protocols_of(rows, is_score);
    let mut found = Vec::new();
    for m in measured.iter().filter(|m| is_first(m, measured)) {
        let others: Vec<&Protocol> = all.iter().filter(|p| beside(p, &m.protocol)).collect();
        found.extend(networks(&series(&m.runs)).iter().filter_map(|network| table(m, network, &others, rows)));
    }
    if found.is_empty() {
        return;
    }
    document.heading(2, "Where measures disagree", "where-measures-disagree");
    document.text(
        "Methods in the order of the Fréchet distance at the last evaluation that all have, with each measure's mean over seeds and, in \
         brackets, the method's rank by it. Differences that the noise explains give no different ranks: in order of means, a rank is shared \
         until every method to come is told apart from every one before it, by Welch's test over seeds at 5 % or, of single seeds, by \
         intervals that do not overlap (without intervals any difference counts). Below, Kendall's τ-b of each measure's ranks with the first \
         one's: 1 where they agree on every pair of methods, −1 where on none, – where a measure tells none apart.",
    );
    found.into_iter().for_each(|table| document.table(table));
}

/// The table of a network whose methods, two at least, are measured by more than one measure.
fn table(m: &Measured, network: &Network, others: &[&Protocol], rows: &[Row]) -> Option<Table> {
    let standing = standing(network)?;
    let step = standing.step;
    let all: Vec<&Series> = standing.lowest.iter().map(|(s, _)| *s).collect();
    let columns = std::iter::once(&m.protocol).chain(others.iter().copied().filter(|p| **p != m.protocol));
    let columns: Vec<Column> = columns.filter_map(|p| column(p, &all, rows, step)).collect();
    if all.len() < 2 || columns.len() < 2 {
        return None;
    }
    let ranks: Vec<Vec<Option<usize>>> = columns.iter().map(Column::ranks).collect();
    let mut order: Vec<usize> = (0..all.len()).collect();
    let first = |i: usize| columns[0].of_series[i].as_ref().map_or(f64::INFINITY, |v| v.of_seeds.mean());
    order.sort_by(|&a, &b| first(a).total_cmp(&first(b)));
    let mut lines = vec![Line::Section(format!("{}, step {step}", network.title()))];
    for i in order {
        let cell = |(column, ranks): (&Column, &Vec<Option<usize>>)| match (&column.of_series[i], ranks[i]) {
            (Some(value), Some(rank)) => {
                let best = rank == 1 && ranks.iter().flatten().any(|other| *other > 1);
                Cell { best, ..Cell::from(format!("{} ({rank})", value.show())) }
            }
            (Some(value), None) => Cell::from(value.show()),
            (None, _) => Cell::from("–"),
        };
        let label = Cell::from(all[i].label.as_str());
        let cells = std::iter::once(label).chain(columns.iter().zip(&ranks).map(cell)).collect();
        lines.push(Line::Cells { id: None, cells });
    }
    let agreement = |of: &Vec<Option<usize>>| {
        Cell::from(kendall(&ranks[0], of).map_or_else(|| "–".to_owned(), |tau| format!("{tau:.2}")))
    };
    let cells = std::iter::once(Cell::from("τ with the first")).chain(ranks.iter().map(agreement)).collect();
    lines.push(Line::Cells { id: None, cells });
    let named = |column: &Column| match measure(&column.name) {
        name if is_distance(name) => format!("{} ↓", column.name),
        name if has_direction(name) => format!("{} ↑", column.name),
        _ => column.name.clone(),
    };
    let absent: Vec<&str> = standing.without.iter().map(|s| s.label.as_str()).collect();
    let without = match absent.as_slice() {
        [] => String::new(),
        some => format!(" Not in it, for want of evaluations in common with the others: {}.", some.join(", ")),
    };
    Some(Table {
        id: format!("agreement-{}-{}-{}", m.name.to_lowercase(), slug(network.arch), slug(network.width)),
        caption: format!("Measures beside protocol {}, {} weights.{without}", m.name, m.protocol.weights),
        head: std::iter::once("method".to_owned()).chain(columns.iter().map(named)).collect(),
        lines,
    })
}

/// A measure at a step, where two series at least have it.
fn column(protocol: &Protocol, all: &[&Series], rows: &[Row], step: u64) -> Option<Column> {
    let here: Vec<&Row> = rows.iter().filter(|r| r.step == step && Protocol::of(r) == *protocol).collect();
    let of = |s: &&Series| {
        let row = |run: &Run| {
            let is_of = |row: &Row| {
                (&row.arch, &row.method, row.seed, &row.config_hash)
                    == (&run.arch, &run.method, run.seed, &run.config_hash)
            };
            here.iter().copied().find(|r| is_of(r))
        };
        let of_seeds = Sample::of(&s.runs, |run| row(run).map(|r| r.value))?;
        let only = if let [run] = s.runs[..] { row(run) } else { None };
        let interval = only.and_then(|row| Some([row.low?, row.high?]));
        // Of all seeds, or means would be of different ones.
        (of_seeds.0.len() == s.runs.len()).then_some(Value { of_seeds, interval })
    };
    let of_series: Vec<_> = all.iter().map(of).collect();
    let there = of_series.iter().flatten().count();
    (there >= 2).then(|| Column { name: protocol.metric.clone(), of_series })
}

/// Kendall's τ-b (Kendall 1945) of two rankings over what both rank; none where one of them tells nothing apart.
fn kendall(a: &[Option<usize>], b: &[Option<usize>]) -> Option<f64> {
    let both: Vec<(usize, usize)> = a.iter().zip(b).filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
    let (mut sum, mut apart) = (0.0, [0.0, 0.0]);
    for (i, x) in both.iter().enumerate() {
        for y in &both[..i] {
            let signs = [x.0.cmp(&y.0), x.1.cmp(&y.1)].map(|order| f64::from(order as i8));
            sum += signs[0] * signs[1];
            apart = [apart[0] + signs[0].abs(), apart[1] + signs[1].abs()];
        }
    }
    let scale = f64::sqrt(apart[0] * apart[1]);
    (scale > 0.0).then(|| sum / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::markdown;
    use crate::results::tests::row;

    #[test]
    fn kendall_is_scipys() {
        // scipy.stats.kendalltau([1, 2, 3, 4, 5], [1, 3, 2, 5, 4]) and with ties [1, 2, 2, 4], [1, 2, 3, 3].
        let of = |v: &[usize]| v.iter().map(|v| Some(*v)).collect::<Vec<_>>();
        let near = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-12, "{a:?}");
        near(kendall(&of(&[1, 2, 3, 4, 5]), &of(&[1, 3, 2, 5, 4])), 0.6);
        near(kendall(&of(&[1, 2, 2, 4]), &of(&[1, 2, 3, 3])), 0.8);
        assert_eq!(kendall(&of(&[1, 1]), &of(&[1, 2])), None);
    }

    #[test]
    fn measures_that_disagree_are_seen() {
        let of = |method: &str, fid: f64, kid: f64, recall: f64| {
            let named =
                [("fid2k_train", fid), ("kid2k_train", kid), ("recall2k_train", recall), ("authpct2k_train", 100.0)];
            named.map(|(metric, value)| row(method, 0, 100, metric, value))
        };
        let rows = [of("gn", 10.0, 0.3, 0.5), of("pgn", 20.0, 0.2, 0.4), of("sn", 30.0, 0.1, 0.3)].concat();
        let sources = super::super::Sources { rows: &rows, baselines: &[], pictures: &[], cells: &[], note: "" };
        let text = markdown::render(&super::super::build(&sources).document);
        let line = |start: &str| {
            let cells = text.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start} in {text}"));
            cells.split('|').map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(text.contains("Where measures disagree"));
        assert_eq!(line("| τ with the first"), ["τ with the first", "1.00", "–", "-1.00", "1.00"]);
        // To be no copy is no merit.
        assert!(text.contains("| **10.00 (1)** ") && text.contains("| 100.00 "), "{text}");
    }

    #[test]
    fn what_noise_explains_shares_a_rank() {
        let seeds = |method: &str, metric: &str, values: [f64; 3]| {
            (0..).zip(values).map(|(seed, v)| row(method, seed, 100, metric, v)).collect::<Vec<Row>>()
        };
        let of = |method: &str, fid: [f64; 3], kid: [f64; 3]| {
            [seeds(method, "fid2k_train", fid), seeds(method, "kid2k_train", kid)].concat()
        };
        let rows = [
            of("gn", [10.0, 11.0, 12.0], [0.30, 0.31, 0.32]),
            of("pgn", [11.0, 12.0, 13.2], [0.10, 0.11, 0.12]),
            of("sn", [30.0, 31.0, 32.0], [0.11, 0.12, 0.13]),
        ];
        let sources =
            super::super::Sources { rows: &rows.concat(), baselines: &[], pictures: &[], cells: &[], note: "" };
        let text = markdown::render(&super::super::build(&sources).document);
        for rank in [
            "**11.00 ± 1.00 (1)**",
            "**12.07 ± 1.10 (1)**",
            "31.00 ± 1.00 (3)",
            "0.310 ± 0.010 (3)",
            "**0.120 ± 0.010 (1)**",
        ] {
            assert!(text.contains(rank), "{rank} in {text}");
        }
        // scipy.stats.kendalltau([1, 1, 3], [3, 1, 1]): of three pairs each measure tells two apart.
        assert!(text.contains("| -0.50 "), "{text}");
    }
}
