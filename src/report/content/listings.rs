//! Cost, what is published, and where our numbers come from.

use std::collections::BTreeMap;

use super::{Measured, Report, Sources, by_experiment, heading, listed, slug};
use crate::report::baselines::Group;
use crate::report::chart::{Bar, Plot, drawable};
use crate::report::document::{Cell, Document, Line, Table};
use crate::report::runs::{Point, short};
use crate::report::series::{Sample, Series, networks, series};

pub(super) fn cost(report: &mut Report, measured: &[Measured]) {
    let mut lines = Vec::new();
    for m in by_experiment(measured) {
        for network in networks(&series(&m.runs)) {
            let seconds = |s: &Series| Sample::of(&s.runs, |r| r.cost);
            let base = |of: &Series| {
                let none = network.series.iter().find(|s| s.method == "none" && s.devices() == of.devices())?;
                seconds(none).map(|s| s.mean())
            };
            let mut bars = Vec::new();
            lines.push(Line::Section(m.place(&network)));
            for s in &network.series {
                let Some(cost) = seconds(s) else { continue };
                let peak = Sample::of(&s.runs, |r| r.peak.map(|p| p / f64::from(1 << 30)));
                let hours = Sample::of(&s.runs, |r| Some(r.hours()));
                if drawable(cost.mean()) {
                    bars.push(Bar { method: s.method.clone(), name: s.label.clone(), nth: s.nth, value: cost.mean() });
                }
                let cells = [
                    s.label.clone(),
                    cost.show(decimals(cost.mean(), 3)),
                    base(s).map_or_else(|| "–".to_owned(), |b| format!("{:.2}×", cost.mean() / b)),
                    peak.map_or_else(|| "–".to_owned(), |p| p.show(2)),
                    hours.map_or_else(|| "–".to_owned(), |h| h.show(decimals(h.mean(), 2))),
                    s.runs.len().to_string(),
                    s.devices().join(", "),
                ];
                let mut cells: Vec<Cell> = cells.into_iter().map(Cell::from).collect();
                cells[1].link = listed(measured, s);
                lines.push(Line::Cells { id: None, cells });
            }
            if bars.len() > 1 {
                let title = format!("{}, {}", m.protocol.experiment, network.title());
                let plot = Plot::Bars { title, what: "seconds a step".to_owned(), bars };
                report.plots.insert(format!("{}-cost", m.stem(&network)), plot);
            }
        }
    }
    if lines.is_empty() {
        return;
    }
    report.document.heading(2, "Cost", "cost");
    let head = ["method", "s/step", "over none", "peak memory GiB", "hours", "seeds", "device"];
    report.document.table(Table {
        id: "cost-table".to_owned(),
        caption: "Training alone, evaluation excluded; memory is the process's, on a GPU what is in use there, data set included. Runs \
                  of different machines or of a machine with other work are not comparable."
            .to_owned(),
        head: head.map(str::to_owned).to_vec(),
        lines,
    });
    let files: Vec<String> = report.plots.keys().filter(|f| f.ends_with("-cost")).cloned().collect();
    for file in files {
        report.figure(format!("{file}.svg"), "Seconds of a training step by method.".to_owned());
    }
}

/// So many decimals, or as many as three digits of a small number take.
fn decimals(x: f64, least: usize) -> usize {
    if x > 0.0 { ((2.0 - x.log10().floor()).max(0.0) as usize).clamp(least, 6) } else { least }
}

/// What is published, as published: groups without runs of ours, methods, augmentations, and other harnesses.
pub(super) fn published(document: &mut Document, groups: &[&Group], sources: &Sources) {
    document.folded("Published numbers", "published");
    if let Some(paper) = sources.baselines.first() {
        document.text(format!("{}, {} ({}).", paper.source, paper.reference, paper.url));
        for group in groups {
            document.table(as_published(group, &format!("{}, as published", heading(group))));
        }
        let head = ["method", "prevents gradient explosion", "robust", "largest ‖∇f̂‖ measured here"];
        let tick = |yes: bool| if yes { "✓" } else { "–" };
        let lines = paper.properties.iter().map(|p| {
            let steepest = sources
                .rows
                .iter()
                .filter(|r| r.method == p.method && r.metric.starts_with("gradient_max_"))
                .max_by(|a, b| a.value.total_cmp(&b.value));
            let measured = steepest.map_or_else(
                || "not probed".to_owned(),
                |r| format!("{:.3} ({} at scale {}, {})", r.value, r.experiment, r.scale, r.arch),
            );
            let cells = [p.label.as_str(), tick(p.prevents_gradient_explosion), tick(p.robust), &measured];
            Line::Cells { id: None, cells: cells.map(Cell::from).to_vec() }
        });
        document.table(Table {
            id: "table-1".to_owned(),
            caption: "Table 1: methods. The first columns are the paper's word.".to_owned(),
            head: head.map(str::to_owned).to_vec(),
            lines: lines.collect(),
        });
        let lines = [
            ["horizontal flip", "with probability 0.5"],
            ["pixel shift", "by up to 20 % of the image size in each axis"],
        ];
        document.table(Table {
            id: "table-3".to_owned(),
            caption: "Table 3: the augmentations of consistency regularisation.".to_owned(),
            head: ["augmentation", "how"].map(str::to_owned).to_vec(),
            lines: lines.map(|l| Line::Cells { id: None, cells: l.map(Cell::from).to_vec() }).to_vec(),
        });
    }
    for other in sources.baselines.iter().skip(1) {
        document.heading(3, format!("Another harness: {}", other.source), slug(&other.source));
        document.text(format!(
            "{} ({}). Other protocols: not to be ranked with ours or the paper's.",
            other.reference, other.url
        ));
        for (n, group) in other.groups.iter().enumerate() {
            let table = as_published(group, &group.title);
            document.table(Table { id: format!("{}-{}", slug(&other.source), n + 1), ..table });
        }
    }
}

fn as_published(group: &Group, title: &str) -> Table {
    let mut lines = Vec::new();
    let mut block = "";
    for row in &group.rows {
        if row.architecture != block {
            block = &row.architecture;
            lines.push(Line::Section(block.to_owned()));
        }
        let cells = [row.label.clone(), row.is.to_string(), row.fid.to_string()];
        lines.push(Line::Cells { id: None, cells: cells.into_iter().map(Cell::from).collect() });
    }
    let p = &group.protocol;
    Table {
        id: slug(title),
        caption: format!(
            "{title}. Extractor {}, {} images, reference {}, seeds {}, resize {}.",
            p.extractor, p.images, p.reference, p.seeds, p.resize
        ),
        head: ["method", "IS ↑", "FID ↓"].map(str::to_owned).to_vec(),
        lines,
    }
}

/// Place of the other settings among the columns of runs.
const OTHERS: usize = 4;

/// Protocols and runs; `notable` says of configurations, by hash, what no column does.
pub(super) fn provenance(document: &mut Document, measured: &[Measured], notable: &BTreeMap<String, String>) {
    document.heading(2, "Protocols and runs", "runs");
    let lines = measured.iter().map(|m| {
        let fields = m
            .protocol
            .fields()
            .into_iter()
            .map(|(name, value)| Cell::from(if name.ends_with("sha256") { short(&value) } else { value }));
        Line::Cells {
            id: Some(m.name.to_lowercase()),
            cells: std::iter::once(Cell::from(m.name.as_str())).chain(fields).collect(),
        }
    });
    let head =
        measured.first().map(|m| m.protocol.fields().map(|f| f.0.replace('_', " ")).to_vec()).unwrap_or_default();
    document.table(Table {
        id: "protocols".to_owned(),
        caption: "How numbers were measured.".to_owned(),
        head: std::iter::once("protocol".to_owned()).chain(head).collect(),
        lines: lines.collect(),
    });
    let is_notable = measured.iter().flat_map(|m| &m.runs).any(|r| notable.contains_key(&r.config_hash));
    let mut lines = Vec::new();
    for m in measured {
        let all = series(&m.runs);
        for (s, r) in all.iter().flat_map(|s| s.runs.iter().map(move |r| (s, *r))) {
            let id = (r.seed == s.runs[0].seed).then(|| m.link(s));
            let score = |p: &Point| p.score.map_or_else(|| "–".to_owned(), |s| format!("{:.3} ± {:.3}", s.0, s.1));
            let cells = [
                m.name.clone(),
                format!("{}-{}-s{}", r.arch, r.method, r.seed),
                r.width.to_string(),
                r.loss.clone(),
                notable.get(&r.config_hash).cloned().unwrap_or_default(),
                format!("{:.3}", r.first().fid),
                format!("{:.3}", r.best().fid),
                r.best().step.to_string(),
                score(r.best()),
                format!("{:.3}", r.last().fid),
                r.last().step.to_string(),
                r.status.clone(),
                r.device.clone(),
                r.code_version.clone(),
                short(&r.config_hash),
                short(&r.family),
            ];
            let mut cells: Vec<Cell> = cells.into_iter().map(Cell::from).collect();
            cells[0].link = Some(m.name.to_lowercase());
            if !is_notable {
                cells.remove(OTHERS);
            }
            lines.push(Line::Cells { id, cells });
        }
    }
    let mut head = vec![
        "protocol",
        "run",
        "width",
        "loss",
        "other settings",
        "first FID",
        "lowest FID",
        "at step",
        "IS there",
        "FID at the end",
        "at step",
        "status",
        "device",
        "version",
        "config",
        "family",
    ];
    let mut caption = "Every run. Its folder is EXPERIMENT-SCALE/RUN below the results; config is the hash of its config.json, family the same \
                       without the seed."
        .to_owned();
    if is_notable {
        caption
            .push_str(" Other settings are γ, augmentation, what moves, and what differs between runs of one network.");
    } else {
        head.remove(OTHERS);
    }
    document.table(Table {
        id: "run-table".to_owned(),
        caption,
        head: head.into_iter().map(str::to_owned).collect(),
        lines,
    });
}
