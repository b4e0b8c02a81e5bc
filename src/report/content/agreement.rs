//! Where measures disagree on the order of methods.

use super::{Measured, slug};
use crate::report::document::{Cell, Document, Line, Table};
use crate::report::runs::{
    Network, Protocol, Run, Sample, Series, distinct, is_distance, networks, protocols_of, series,
};
use crate::results::{Row, measure};

/// A measure of all series of a network.
struct Column {
    name: String,
    /// Mean over seeds, and as it is shown.
    of_series: Vec<Option<(f64, String)>>,
    /// From 1, ties alike.
    ranks: Vec<Option<usize>>,
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

/// Whether two protocols differ in nothing but what is measured and with which extractor.
fn beside(a: &Protocol, b: &Protocol) -> bool {
    let same = Protocol {
        metric: a.metric.clone(),
        extractor: a.extractor.clone(),
        extractor_sha256: a.extractor_sha256.clone(),
        resize: a.resize.clone(),
        ..b.clone()
    };
    same == *a
}

pub(super) fn tables(document: &mut Document, rows: &[Row], measured: &[Measured]) {
    let all = protocols_of(rows, is_score);
    let mut is_headed = false;
    // The first of the distances that stand beside each other, FID before others.
    let is_first = |m: &&Measured| {
        let before = |(i, other): (usize, &Measured)| (other.protocol.distance() != "FID", i);
        let least =
            measured.iter().enumerate().filter(|(_, other)| beside(&other.protocol, &m.protocol)).map(before).min();
        least.is_some_and(|(_, i)| measured[i].name == m.name)
    };
    for m in measured.iter().filter(is_first) {
        let others: Vec<&Protocol> = all.iter().filter(|p| beside(p, &m.protocol)).collect();
        for network in networks(&series(&m.runs)) {
            let Some(table) = table(m, &network, &others, rows) else { continue };
            if !is_headed {
                document.heading(2, "Where measures disagree", "where-measures-disagree");
                document.text(
                    "Methods in the order of the Fréchet distance at the last evaluation that all runs have, with each measure's mean over \
                     seeds and, in brackets, the method's rank by it. Below, Kendall's τ of each measure's order with the first one's: 1 where \
                     they agree on every pair of methods, −1 where on none.",
                );
                is_headed = true;
            }
            document.table(table);
        }
    }
}

/// The table of a network whose methods, two at least, are measured by more than one measure.
fn table(m: &Measured, network: &Network, others: &[&Protocol], rows: &[Row]) -> Option<Table> {
    let step = *common_steps(network).last()?;
    let columns = std::iter::once(&m.protocol).chain(others.iter().copied().filter(|p| **p != m.protocol));
    let mut columns: Vec<Column> = columns.filter_map(|p| column(p, network, rows, step)).collect();
    if network.series.len() < 2 || columns.len() < 2 {
        return None;
    }
    for column in &mut columns {
        let better = |a: f64, b: f64| if is_distance(measure(&column.name)) { a < b } else { a > b };
        let values: Vec<Option<f64>> = column.of_series.iter().map(|v| v.as_ref().map(|v| v.0)).collect();
        if !has_direction(measure(&column.name)) {
            column.ranks = vec![None; values.len()];
            continue;
        }
        let rank = |v: f64| 1 + values.iter().flatten().filter(|other| better(**other, v)).count();
        column.ranks = values.iter().map(|v| v.map(rank)).collect();
    }
    let mut order: Vec<usize> = (0..network.series.len()).collect();
    order.sort_by_key(|&i| columns[0].ranks[i].unwrap_or(usize::MAX));
    let mut lines = vec![Line::Section(format!("{}, step {step}", network.title()))];
    for i in order {
        let cell = |column: &Column| match (&column.of_series[i], column.ranks[i]) {
            (Some((_, text)), Some(rank)) => Cell { best: rank == 1, ..Cell::from(format!("{text} ({rank})")) },
            (Some((_, text)), None) => Cell::from(text.as_str()),
            (None, _) => Cell::from("–"),
        };
        let label = Cell::from(network.series[i].label.as_str());
        lines.push(Line::Cells { id: None, cells: std::iter::once(label).chain(columns.iter().map(cell)).collect() });
    }
    let agreement = |column: &Column| {
        Cell::from(kendall(&columns[0].ranks, &column.ranks).map_or_else(|| "–".to_owned(), |tau| format!("{tau:.2}")))
    };
    let cells = std::iter::once(Cell::from("τ with the first")).chain(columns.iter().map(agreement)).collect();
    lines.push(Line::Cells { id: None, cells });
    let named = |column: &Column| match measure(&column.name) {
        name if is_distance(name) => format!("{} ↓", column.name),
        name if has_direction(name) => format!("{} ↑", column.name),
        _ => column.name.clone(),
    };
    Some(Table {
        id: format!("agreement-{}-{}-{}", m.name.to_lowercase(), slug(network.arch), slug(network.width)),
        caption: format!("Measures beside protocol {}, {} weights.", m.name, m.protocol.weights),
        head: std::iter::once("method".to_owned()).chain(columns.iter().map(named)).collect(),
        lines,
    })
}

/// Steps at which all runs of a network were evaluated.
fn common_steps(network: &Network) -> Vec<u64> {
    let has = |step: u64| network.runs().all(|r| r.points.iter().any(|p| p.step == step));
    distinct(network.runs().flat_map(|r| r.points.iter().map(|p| p.step))).into_iter().filter(|s| has(*s)).collect()
}

/// A measure at a step, where any series has it.
fn column(protocol: &Protocol, network: &Network, rows: &[Row], step: u64) -> Option<Column> {
    let here: Vec<&Row> = rows.iter().filter(|r| r.step == step && Protocol::of(r) == *protocol).collect();
    let of = |s: &&Series| {
        let is_of = |row: &Row, run: &Run| {
            (&row.arch, &row.method, row.seed, &row.config_hash) == (&run.arch, &run.method, run.seed, &run.config_hash)
        };
        let sample = Sample::of(&s.runs, |run| here.iter().find(|r| is_of(r, run)).map(|r| r.value))?;
        // Of all seeds, or means would be of different ones.
        let digits = if sample.mean().abs() < 10.0 { 3 } else { 2 };
        (sample.0.len() == s.runs.len()).then(|| (sample.mean(), sample.show(digits)))
    };
    let of_series: Vec<_> = network.series.iter().map(of).collect();
    let there = of_series.iter().flatten().count();
    (there >= 2).then(|| Column { name: protocol.metric.clone(), of_series, ranks: Vec::new() })
}

/// Kendall's τ-b of two rankings over what both rank; none where one of them tells nothing apart.
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
    let scale = (apart[0] * apart[1]).sqrt();
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
        let sources = super::super::Sources { rows: &rows, baselines: &[], pictures: &[], note: "" };
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
}
