//! The first screen: what was asked, what the rows answer, one figure and samples.

use super::figures::{draw_curve, draw_samples};
use super::standing::standing;
use super::verdicts::{self, Judged};
use super::{Measured, Report, Sources, by_experiment, is_first};
use crate::report::chart::order;
use crate::report::document::{Block, Cell, Document, Point};
use crate::report::runs::distinct;
use crate::report::series::{Network, networks, series};

/// Most comparisons on the first screen.
const MOST: usize = 4;

pub(super) fn lead(report: &mut Report, sources: &Sources, measured: &[Measured], judged: &[Judged]) {
    let names = |of: Vec<&str>| if of.is_empty() { "no runs".to_owned() } else { of.join(", ") };
    let mut experiments: Vec<&str> = measured.iter().map(|m| m.protocol.experiment.as_str()).collect();
    experiments.dedup();
    report.document.title = format!("Results: {}", names(experiments));
    // One distance of each experiment and scale: the others are below.
    let mut first: Vec<&Measured> = measured.iter().filter(|m| is_first(m, measured)).collect();
    first.sort_by_key(|m| !m.protocol.is_full());
    let of_runs: Vec<_> = first.iter().map(|m| (*m, series(&m.runs))).collect();
    let all: Vec<(&Measured, Network)> =
        of_runs.iter().flat_map(|(m, series)| networks(series).into_iter().map(move |n| (*m, n))).collect();
    let Some((main, network)) = all.iter().rev().max_by_key(|(m, n)| (m.protocol.is_full(), n.runs().count())) else {
        return;
    };
    report.document.text(format!(
        "Which critic trains the better generator on {} with the same networks and the same budget: {}? And which of the paper’s claims \
         do the runs bear out?",
        names(distinct(measured.iter().map(|m| m.protocol.dataset.as_str()))),
        names(methods(&all))
    ));
    let mut points: Vec<Point> = Vec::new();
    let mut compared: Vec<&(&Measured, Network)> = all.iter().collect();
    compared.sort_by_key(|(_, n)| n.series.len() < 2);
    for (m, n) in compared.iter().take(MOST) {
        if let Some(standing) = standing(n) {
            let label = Cell::linked(format!("{} ({}):", m.place(n), m.name), &m.table());
            points.push(Point { label, text: standing.sentence(m.protocol.distance()) });
        }
    }
    if all.len() > MOST {
        let text = format!("{} other comparisons are in the tables.", all.len() - MOST);
        points.push(Point { label: Cell::linked("Beside these:", &all[0].0.table()), text });
    }
    points.extend(verdicts::points(judged));
    report.document.blocks.push(Block::Points(points));
    draw_curve(report, main, network);
    draw_samples(report, sources.pictures, main, network);
}

/// Methods of all networks, each once.
fn methods<'a>(all: &'a [(&Measured, Network)]) -> Vec<&'a str> {
    let mut methods = distinct(all.iter().flat_map(|(_, n)| &n.series).map(|s| s.method.as_str()));
    methods.sort_by_key(|method| order(method));
    methods
}

/// What there is to know before a number is used: the maker's note, and how to read the tables.
pub(super) fn about(document: &mut Document, measured: &[Measured], note: &str) {
    document.folded("About these runs", "about");
    for paragraph in note.split("\n\n").filter(|p| !p.trim().is_empty()) {
        document.text(paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let runs: usize = by_experiment(measured).iter().map(|m| m.runs.len()).sum();
    document.text(format!(
        "{runs} run{} under {} protocol{}. Scores and distances link to the runs they are the means of, and these to their protocol. A mean is \
         shown with the standard deviation over seeds and the 95 % interval (Student's t), cut off at 0. Numbers of one protocol and one \
         architecture are compared with each other and with nothing else; the best is in bold.",
        if runs == 1 { "" } else { "s" },
        measured.len(),
        if measured.len() == 1 { "" } else { "s" }
    ));
}
