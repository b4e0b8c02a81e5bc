//! The paper's tables beside ours.

use super::{Measured, heading, slug};
use crate::report::baselines::{Entry, Group, Published, Value};
use crate::report::document::{Cell, Document, Line, Table};
use crate::report::runs::{distinct, statuses, steps, warnings};
use crate::report::series::{Network, Sample, Series, networks, series};

/// Columns of our own numbers.
const OURS: [&str; 8] =
    ["IS ↑", "lowest FID ↓", "95 % interval", "at step", "FID at the end", "at step", "seeds", "status"];

pub(super) fn full_scale(document: &mut Document, groups: &[&Group], measured: &[Measured]) {
    for group in groups {
        let ours: Vec<&Measured> = measured.iter().filter(|m| m.protocol.is_full() && m.belongs_to(group)).collect();
        if ours.is_empty() {
            continue;
        }
        document.heading(2, heading(group), slug(&heading(group)));
        for m in ours {
            let caption = format!("{}. Protocol {}: {}.", heading(group), m.name, m.protocol.describe());
            document.heading(3, format!("Protocol {}, {} weights", m.name, m.protocol.weights), m.table());
            document.table(match m.protocol.distance() {
                "FID" => beside(group, m, caption),
                _ => ours_alone(m, caption),
            });
            warn(document, m);
        }
    }
}

pub(super) fn reduced(document: &mut Document, groups: &[&Group], measured: &[Measured]) {
    let others: Vec<&Measured> =
        measured.iter().filter(|m| !m.protocol.is_full() || !groups.iter().any(|g| m.belongs_to(g))).collect();
    if others.is_empty() {
        return;
    }
    document.heading(2, "Reduced scale", "reduced-scale");
    document.text(
        "These runs are shorter or narrower than the paper's, or on other data. They compare methods with each other under one small \
         budget. They say nothing about the paper's numbers, which stand beside them only to show what they are not.",
    );
    for m in others {
        // The paper's distances are FIDs.
        let group = groups.iter().find(|g| m.belongs_to(g));
        let title = group.map_or_else(|| m.protocol.experiment.clone(), |g| heading(g));
        let title = format!("{title} – at scale {}", m.protocol.scale);
        let caption = format!("{title}. Protocol {}: {}.", m.name, m.protocol.describe());
        document.heading(3, format!("{title}, {} weights", m.protocol.weights), m.table());
        document.table(match group.filter(|_| m.protocol.distance() == "FID") {
            Some(group) => beside(
                group,
                m,
                format!(
                    "{caption} The paper's columns are at full scale; what it has beside is under published numbers."
                ),
            ),
            None => ours_alone(m, caption),
        });
        warn(document, m);
    }
}

fn warn(document: &mut Document, measured: &Measured) {
    for warning in warnings(&measured.runs) {
        document.text(format!("Warning: {warning}."));
    }
    for network in networks(&series(&measured.runs)) {
        if distinct(network.runs().map(|r| r.last().step)).len() > 1 {
            document.text(format!("Warning: not all runs of {} have made the same number of steps.", network.arch));
        }
    }
}

/// The cells of our numbers for a series.
fn ours(m: &Measured, s: &Series, bests: [Option<f64>; 2]) -> Vec<Cell> {
    let link = m.link(s);
    let shown = |sample: Option<&Sample>, best: Option<f64>, digits: usize| match sample {
        Some(sample) => {
            let is_best = best == Some(sample.mean());
            Cell { best: is_best, ..Cell::linked(sample.show(digits), &link) }
        }
        None => Cell::from("–"),
    };
    let fid = s.best_fid();
    let last = Sample::of(&s.runs, |r| Some(r.last().fid));
    vec![
        shown(s.best_score().as_ref(), bests[0], 2),
        shown(fid.as_ref(), bests[1], 2),
        fid.as_ref().map_or_else(|| "–".to_owned(), |f| f.interval(2)).into(),
        steps(&s.runs, |r| r.best().step).into(),
        shown(last.as_ref(), None, 2),
        steps(&s.runs, |r| r.last().step).into(),
        s.runs.len().to_string().into(),
        statuses(&s.runs).into(),
    ]
}

/// Highest score and lowest distance among series of the same settings that have ended after the same evaluations; nothing where
/// some differ in that, or fewer than two are there.
fn bests(all: &[&Series]) -> [Option<f64>; 2] {
    let finished: Vec<&&Series> = all.iter().filter(|s| s.finished()).collect();
    let standing: Vec<&&Series> = finished.iter().copied().filter(|s| s.comparable(finished[0])).collect();
    if standing.len() < 2 || standing.len() < finished.len() {
        return [None, None];
    }
    let scores = standing.iter().filter_map(|s| s.best_score()).map(|s| s.mean());
    let distances = standing.iter().filter_map(|s| s.best_fid()).map(|s| s.mean());
    [scores.max_by(f64::total_cmp), distances.min_by(f64::total_cmp)]
}

/// A table of the paper's numbers and ours, block by block in the paper's order; of another scale than the paper's, only what we have.
fn beside(group: &Group, m: &Measured, caption: String) -> Table {
    let all = series(&m.runs);
    let mut lines = Vec::new();
    let mut blocks: Vec<&str> = group.rows.iter().map(|r| r.architecture.as_str()).collect();
    blocks.dedup();
    let best_of = |block: &str, f: fn(&Entry) -> &Published<Value>, lowest: bool| {
        let entries = group.rows.iter().filter(|r| r.architecture == block && r.label != "Real data");
        let values = entries.filter_map(|r| match f(r) {
            Published::Given(v) => Some(v.mean),
            Published::NotGiven => None,
        });
        if lowest { values.min_by(f64::total_cmp) } else { values.max_by(f64::total_cmp) }
    };
    let published = |entry: &Entry| {
        let block = entry.architecture.as_str();
        let published_bests = [best_of(block, |e| &e.is, false), best_of(block, |e| &e.fid, true)];
        [(&entry.is, published_bests[0]), (&entry.fid, published_bests[1])].map(|(v, best)| {
            let is_best = matches!(v, Published::Given(v) if best == Some(v.mean)) && entry.label != "Real data";
            Cell { best: is_best, ..Cell::from(v.to_string()) }
        })
    };
    let line = |label: &str, entry: Option<&Entry>, s: Option<&Series>, bests: [Option<f64>; 2]| {
        let mut cells = vec![Cell::from(label)];
        cells.extend(entry.map_or([Cell::from("–"), Cell::from("–")], published));
        cells.extend(s.map_or_else(|| vec![Cell::from("–"); OURS.len()], |s| ours(m, s, bests)));
        Line::Cells { id: None, cells }
    };
    let all_networks = networks(&all);
    for block in blocks {
        let entries: Vec<&Entry> = group.rows.iter().filter(|r| r.architecture == block).collect();
        let arch = entries.iter().find_map(|e| e.arch.as_deref());
        let here: Vec<&Network> = all_networks.iter().filter(|n| Some(n.arch) == arch).collect();
        if here.is_empty() && m.protocol.is_full() {
            lines.push(Line::Section(arch.map_or_else(|| block.to_owned(), |arch| format!("{block} ({arch})"))));
            lines.extend(entries.iter().map(|e| line(&e.label, Some(e), None, [None, None])));
        }
        for network in here {
            let bests = bests(&network.series);
            lines.push(Line::Section(format!("{block} ({})", network.title())));
            for entry in &entries {
                let of = network.series.iter().filter(|s| Some(&s.method) == entry.method.as_ref());
                let before = lines.len();
                lines.extend(of.map(|s| {
                    let label = s.label.replacen(s.method.as_str(), &entry.label, 1);
                    line(&label, Some(entry), Some(s), bests)
                }));
                if lines.len() == before && m.protocol.is_full() {
                    lines.push(line(&entry.label, Some(entry), None, bests));
                }
            }
            let others = network.series.iter().filter(|s| entries.iter().all(|e| e.method.as_ref() != Some(&s.method)));
            lines.extend(others.map(|s| line(&s.label, None, Some(s), bests)));
        }
    }
    let known: Vec<&str> = group.rows.iter().filter_map(|r| r.arch.as_deref()).collect();
    for network in all_networks.iter().filter(|n| !known.contains(&n.arch)) {
        let bests = bests(&network.series);
        lines.push(Line::Section(network.title()));
        lines.extend(network.series.iter().map(|s| line(&s.label, None, Some(s), bests)));
    }
    let head = ["method", "paper IS ↑", "paper FID ↓"].iter().chain(&OURS).map(|h| (*h).to_owned()).collect();
    Table { id: format!("{}-{}", slug(&heading(group)), m.name.to_lowercase()), caption, head, lines }
}

/// A table of our numbers where nothing is published, methods in order of their lowest distance.
fn ours_alone(m: &Measured, caption: String) -> Table {
    let all = series(&m.runs);
    let mut lines = Vec::new();
    for network in networks(&all) {
        let bests = bests(&network.series);
        lines.push(Line::Section(network.title()));
        for s in network.by_lowest() {
            let cells = std::iter::once(Cell::from(s.label.as_str())).chain(ours(m, s, bests));
            lines.push(Line::Cells { id: None, cells: cells.collect() });
        }
    }
    let named = |column: &str| column.replace("FID", m.protocol.distance());
    let head = std::iter::once("method").chain(OURS).map(named).collect();
    Table { id: format!("{}-{}", slug(&m.protocol.experiment), m.name.to_lowercase()), caption, head, lines }
}
