//! The paper's claims and what is asked beside them, judged at every scale.

use super::{Measured, slug};
use crate::config::FULL;
use crate::report::beyond::questions;
use crate::report::claims::{Judgement, Verdict, judgements};
use crate::report::document::{Cell, Document, Line, Point, Table};
use crate::report::runs::distinct;
use crate::results::Row;

/// What is judged at one scale.
pub(super) struct Judged {
    scale: String,
    claims: Vec<Judgement>,
    beyond: Vec<Judgement>,
}

/// The judgements at each scale that there are runs of.
pub(super) fn judged(rows: &[Row], measured: &[Measured]) -> Vec<Judged> {
    let at = |scale: &String| Judged {
        scale: scale.clone(),
        claims: judgements(rows, scale),
        beyond: questions(rows, scale),
    };
    distinct(measured.iter().map(|m| &m.protocol.scale)).into_iter().map(at).collect()
}

/// The decided ones of the paper's scale, or of all where that is not there, a point each; then how the rest stands.
pub(super) fn points(judged: &[Judged]) -> Vec<Point> {
    let has_full = judged.iter().any(|of| of.scale == FULL);
    let (mut points, mut hints, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for of in judged {
        let scale = &of.scale;
        let all = || {
            let parts = [(&of.claims, "claims"), (&of.beyond, "beyond")];
            parts.into_iter().flat_map(|(of, id)| of.iter().map(move |j| (j, id)))
        };
        let decided = || all().filter(|(j, _)| j.verdict != Verdict::Undetermined);
        if has_full && scale != FULL {
            let words: Vec<String> = decided().map(|(j, _)| format!("{} {}", j.id, j.verdict.word())).collect();
            let label = Cell::linked(format!("Hints at scale {scale}:"), &format!("claims-{}", slug(scale)));
            hints.extend((!words.is_empty()).then(|| Point { label, text: format!("{}.", words.join(", ")) }));
        } else {
            let hint = if has_full { "" } else { ", a hint" };
            points.extend(decided().map(|(j, id)| {
                let label = format!("{} {} at scale {scale}{hint}:", j.id, j.verdict.word());
                Point { label: Cell::linked(label, &format!("{id}-{}", slug(scale))), text: j.answer.clone() }
            }));
        }
        let ids: Vec<&str> = all().filter(|(j, _)| j.verdict == Verdict::Undetermined).map(|(j, _)| j.id).collect();
        if !ids.is_empty() {
            open.push(format!("{} at scale {scale}", ids.join(", ")));
        }
    }
    points.extend(hints);
    if !open.is_empty() && !has_full {
        open.push(format!("any at scale {FULL}, which the paper’s claims are about"));
    }
    if !open.is_empty() {
        points.push(Point { label: Cell::linked("Not decided:", "claims"), text: format!("{}.", open.join("; ")) });
    }
    points
}

pub(super) fn tables(document: &mut Document, judged: &[Judged]) {
    if judged.is_empty() {
        return;
    }
    document.heading(2, "The paper's claims", "claims");
    document.text(
        "A verdict holds for the scale it was judged at. The claims are about the paper's scale (full): what a reduced scale shows is a \
         hint. Two means are alike where two one-sided tests say so; not to see a difference is not evidence.",
    );
    if judged.iter().all(|of| of.scale != FULL) {
        document.text("No run is at scale full, so that nothing is judged there.");
    }
    for Judged { scale, claims, .. } in judged {
        let caption = format!("The paper's claims at scale {scale}.");
        document.table(table(format!("claims-{}", slug(scale)), caption, ["claim", "what the paper says"], claims));
    }
    if judged.iter().all(|of| of.beyond.is_empty()) {
        return;
    }
    document.heading(2, "Beyond the paper", "beyond");
    document.text(
        "What a reader of today asks beside: the same networks under R1 and R2, zero-centred gradient penalties on real and on generated \
         images, which with the relativistic loss of pairs are the baseline of Huang et al. (2024). Judged as the paper's claims are.",
    );
    for Judged { scale, beyond, .. } in judged {
        let caption = format!("Beyond the paper, at scale {scale}.");
        document.table(table(format!("beyond-{}", slug(scale)), caption, ["question", "what it would say"], beyond));
    }
}

/// The decided ones first.
fn table(id: String, caption: String, head: [&str; 2], judgements: &[Judgement]) -> Table {
    let line = |j: &Judgement| {
        let mut evidence = j.evidence.join(". ");
        if let Some(missing) = &j.missing {
            let stop = if evidence.is_empty() { "" } else { ". " };
            evidence.push_str(&format!("{stop}Missing: {missing}"));
        }
        let cells = [j.id.to_owned(), j.claim.to_owned(), j.verdict.word().to_owned(), evidence, j.test.to_owned()];
        Line::Cells { id: None, cells: cells.into_iter().map(Cell::from).collect() }
    };
    let (open, decided): (Vec<&Judgement>, Vec<&Judgement>) =
        judgements.iter().partition(|j| j.verdict == Verdict::Undetermined);
    let head = head.into_iter().chain(["verdict", "evidence", "test"]).map(str::to_owned).collect();
    Table { id, caption, head, lines: decided.into_iter().chain(open).map(line).collect() }
}
