//! What a report says: the paper's tables beside ours, claims, costs, curves and pictures, as a function of rows.

use std::collections::BTreeMap;

use super::baselines::{Baselines, Entry, Group, Published, Value};
use super::claims::judgements;
use super::document::{Cell, Document, Figure, Line, Table};
use super::plot::{Bar, Chart, Curve, Plot};
use super::runs::{Protocol, Run, Sample, Series, protocols, runs, series, short, steps};
use crate::results::{Row, TRACES};
use crate::statistics::mean_and_deviation;

/// Columns of our own numbers.
const OURS: [&str; 8] =
    ["IS ↑", "lowest FID ↓", "95 % interval", "at step", "FID at the end", "at step", "seeds", "status"];

/// A picture that a run left.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Picture {
    pub experiment: String,
    pub scale: String,
    pub arch: String,
    pub method: String,
    pub width: f64,
    pub seed: u64,
    /// What it shows: `samples` or `neighbours`.
    pub kind: String,
    /// PNG.
    pub png: Vec<u8>,
}

/// Everything a report is made from.
pub struct Sources<'a> {
    /// Rows.
    pub rows: &'a [Row],
    /// Published numbers: the paper's first, then those of other harnesses.
    pub baselines: &'a [Baselines],
    /// Pictures of runs.
    pub pictures: &'a [Picture],
    /// What its maker has to say of the runs, in paragraphs; may be empty.
    pub note: &'a str,
}

/// A report and what its figures show, by file name without ending.
pub struct Report {
    /// Words and tables.
    pub document: Document,
    /// Figures to draw.
    pub plots: BTreeMap<String, Plot>,
}

/// A protocol with its runs and the name it has in the report.
struct Measured {
    name: String,
    protocol: Protocol,
    runs: Vec<Run>,
}

impl Measured {
    /// Where the report lists the runs of a series.
    fn link(&self, s: &Series) -> String {
        format!("{}-{}-{}-{}", self.name.to_lowercase(), s.arch, slug(&s.width), slug(&s.label))
    }

    fn is_conditional(&self) -> bool {
        self.runs.iter().any(|r| r.arch.starts_with("biggan"))
    }

    fn belongs_to(&self, group: &Group) -> bool {
        self.protocol.dataset == group.dataset
            && self.protocol.image_size == group.image_size
            && self.is_conditional() == group.conditional
    }
}

/// The report on some rows.
pub fn build(sources: &Sources) -> Report {
    let mut report = Report { document: Document::default(), plots: BTreeMap::new() };
    let measured: Vec<Measured> = protocols(sources.rows)
        .into_iter()
        .enumerate()
        .map(|(n, protocol)| Measured { name: format!("P{}", n + 1), runs: runs(sources.rows, &protocol), protocol })
        .collect();
    introduction(&mut report.document, &measured, sources.note);
    let groups: Vec<&Group> = sources.baselines.first().map(|b| b.groups.iter().collect()).unwrap_or_default();
    full_scale(&mut report.document, &groups, &measured);
    reduced(&mut report.document, &groups, &measured);
    claims(&mut report.document, sources.rows, &measured);
    curves(&mut report, sources.rows, &measured);
    pictures(&mut report, sources.pictures);
    cost(&mut report, &measured);
    published(&mut report.document, &groups, sources);
    provenance(&mut report.document, &measured);
    report
}

fn introduction(document: &mut Document, measured: &[Measured], note: &str) {
    let mut experiments: Vec<&str> = measured.iter().map(|m| m.protocol.experiment.as_str()).collect();
    experiments.dedup();
    document.title = format!("Results: {}", experiments.join(", "));
    for paragraph in note.split("\n\n").filter(|p| !p.trim().is_empty()) {
        document.text(paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let runs: usize = by_experiment(measured).iter().map(|m| m.runs.len()).sum();
    document.text(format!(
        "{runs} runs under {} protocol{}. Scores and distances link to the runs they are the means of, and these to their protocol. A mean is \
         shown with the standard deviation over seeds and the 95 % interval (Student's t). Numbers of one protocol and one \
         architecture are compared with each other and with nothing else; the best is in bold.",
        measured.len(),
        if measured.len() == 1 { "" } else { "s" }
    ));
}

/// The runs of each experiment and scale, under the first protocol of each: where protocols do not matter.
fn by_experiment(measured: &[Measured]) -> Vec<Measured> {
    let mut all: Vec<Measured> = Vec::new();
    for m in measured {
        let place = |p: &Protocol| (p.experiment.clone(), p.scale.clone());
        let at = match all.iter().position(|a| place(&a.protocol) == place(&m.protocol)) {
            Some(at) => at,
            None => {
                all.push(Measured { name: m.name.clone(), protocol: m.protocol.clone(), runs: Vec::new() });
                all.len() - 1
            }
        };
        for run in &m.runs {
            if all[at].runs.iter().all(|r| r.config_hash != run.config_hash) {
                all[at].runs.push(run.clone());
            }
        }
    }
    all
}

/// Where the report lists the runs of a series that [`by_experiment`] gave.
fn listed(measured: &[Measured], s: &Series) -> Option<String> {
    let m = measured.iter().find(|m| m.runs.iter().any(|r| r.family == s.family))?;
    Some(m.link(s))
}

fn heading(group: &Group) -> String {
    if group.table.chars().all(|c| c.is_ascii_digit()) {
        format!("Table {}: {}", group.table, group.title)
    } else {
        group.title.clone()
    }
}

fn slug(text: &str) -> String {
    let dashed: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    dashed.split('-').filter(|p| !p.is_empty()).collect::<Vec<_>>().join("-")
}

fn full_scale(document: &mut Document, groups: &[&Group], measured: &[Measured]) {
    for group in groups {
        let ours: Vec<&Measured> = measured.iter().filter(|m| m.protocol.is_full() && m.belongs_to(group)).collect();
        if ours.is_empty() {
            continue;
        }
        document.heading(2, heading(group), slug(&heading(group)));
        for m in ours {
            document.table(beside(
                group,
                m,
                format!("{}. Protocol {}: {}.", heading(group), m.name, m.protocol.describe()),
            ));
            warn(document, m);
        }
    }
}

fn reduced(document: &mut Document, groups: &[&Group], measured: &[Measured]) {
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
        let group = groups.iter().find(|g| m.belongs_to(g));
        let title = group.map_or_else(|| m.protocol.experiment.clone(), |g| heading(g));
        let title = format!("{title} – at scale {}", m.protocol.scale);
        let caption = format!("{title}. Protocol {}: {}.", m.name, m.protocol.describe());
        document.heading(
            3,
            format!("{title}, {} weights", m.protocol.weights),
            format!("{}-table", m.name.to_lowercase()),
        );
        document.table(match group {
            Some(group) => beside(group, m, format!("{caption} The paper's columns are at full scale.")),
            None => ours_alone(m, caption),
        });
        warn(document, m);
    }
}

fn warn(document: &mut Document, measured: &Measured) {
    let mut warnings: Vec<&String> = measured.runs.iter().flat_map(|r| &r.warnings).collect();
    warnings.sort();
    warnings.dedup();
    for warning in warnings {
        document.text(format!("Warning: {warning}."));
    }
    let all = series(&measured.runs);
    for (arch, width) in architectures(&all) {
        let runs = all.iter().filter(|s| s.arch == arch && s.width == width).flat_map(|s| &s.runs);
        let mut lengths: Vec<u64> = runs.map(|r| r.last().step).collect();
        lengths.sort_unstable();
        lengths.dedup();
        if lengths.len() > 1 {
            document.text(format!("Warning: not all runs of {arch} have made the same number of steps."));
        }
    }
}

fn value(published: &Published<Value>) -> String {
    // Three decimals where the source gives them, else two.
    let number =
        |x: f64| if ((100.0 * x).round() - 100.0 * x).abs() > 1e-6 { format!("{x:.3}") } else { format!("{x:.2}") };
    match published {
        Published::Given(Value { mean, std: Some(std) }) => format!("{} ± {}", number(*mean), number(*std)),
        Published::Given(Value { mean, std: None }) => number(*mean),
        Published::NotGiven => "not given".to_owned(),
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
    let mut status: Vec<&str> = s.runs.iter().map(|r| r.status.as_str()).collect();
    status.sort_unstable();
    status.dedup();
    vec![
        shown(s.best_score().as_ref(), bests[0], 2),
        shown(fid.as_ref(), bests[1], 2),
        fid.as_ref().map_or_else(|| "–".to_owned(), |f| f.interval(2)).into(),
        steps(&s.runs, |r| r.best().step).into(),
        shown(last.as_ref(), None, 2),
        steps(&s.runs, |r| r.last().step).into(),
        s.runs.len().to_string().into(),
        status.join(", ").into(),
    ]
}

/// Highest score and lowest distance among series that have ended after the same evaluations; nothing where fewer than two have.
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

/// The architectures and widths of the series, in order.
fn architectures<'a>(all: &'a [Series]) -> Vec<(&'a str, &'a str)> {
    let mut archs: Vec<(&str, &str)> = all.iter().map(|s| (s.arch.as_str(), s.width.as_str())).collect();
    archs.dedup();
    archs
}

fn title_of(arch: &str, width: &str, name: Option<&str>) -> String {
    let width = if width == "1" { String::new() } else { format!(", width {width}") };
    name.map_or_else(|| format!("{arch}{width}"), |name| format!("{name} ({arch}{width})"))
}

/// A table of the paper's numbers and ours, block by block in the paper's order.
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
            Cell { best: is_best, ..Cell::from(value(v)) }
        })
    };
    let line = |label: &str, entry: Option<&Entry>, s: Option<&Series>, bests: [Option<f64>; 2]| {
        let mut cells = vec![Cell::from(label)];
        cells.extend(entry.map_or([Cell::from("–"), Cell::from("–")], published));
        cells.extend(s.map_or_else(|| vec![Cell::from("–"); OURS.len()], |s| ours(m, s, bests)));
        Line::Cells { id: None, cells }
    };
    for block in blocks {
        let entries: Vec<&Entry> = group.rows.iter().filter(|r| r.architecture == block).collect();
        let arch = entries.iter().find_map(|e| e.arch.as_deref());
        let here: Vec<&Series> = all.iter().filter(|s| Some(s.arch.as_str()) == arch).collect();
        let widths: Vec<&str> = here.iter().map(|s| s.width.as_str()).fold(Vec::new(), |mut seen, w| {
            if !seen.contains(&w) {
                seen.push(w);
            }
            seen
        });
        // A block without runs of ours is shown once.
        for width in if widths.is_empty() { vec![""] } else { widths } {
            let here: Vec<&Series> = here.iter().copied().filter(|s| s.width == width).collect();
            let bests = bests(&here);
            lines.push(Line::Section(match (arch, width) {
                (Some(arch), "") => format!("{block} ({arch})"),
                (Some(arch), width) => title_of(arch, width, Some(block)),
                (None, _) => block.to_owned(),
            }));
            for entry in &entries {
                let mut of: Vec<&Series> =
                    here.iter().copied().filter(|s| Some(&s.method) == entry.method.as_ref()).collect();
                let first = if of.is_empty() { None } else { Some(of.remove(0)) };
                let label = |s: &Series| s.label.replacen(s.method.as_str(), &entry.label, 1);
                let name = first.map_or_else(|| entry.label.clone(), label);
                lines.push(line(&name, Some(entry), first, bests));
                lines.extend(of.into_iter().map(|s| line(&label(s), Some(entry), Some(s), bests)));
            }
            for s in here.iter().filter(|s| entries.iter().all(|e| e.method.as_ref() != Some(&s.method))) {
                lines.push(line(&s.label, None, Some(s), bests));
            }
        }
    }
    let known: Vec<&str> = group.rows.iter().filter_map(|r| r.arch.as_deref()).collect();
    for (arch, width) in architectures(&all).into_iter().filter(|(a, _)| !known.contains(a)) {
        let here: Vec<&Series> = all.iter().filter(|s| s.arch == arch && s.width == width).collect();
        let bests = bests(&here);
        lines.push(Line::Section(title_of(arch, width, None)));
        lines.extend(here.iter().map(|s| line(&s.label, None, Some(s), bests)));
    }
    let head = ["method", "paper IS ↑", "paper FID ↓"].iter().chain(&OURS).map(|h| (*h).to_owned()).collect();
    Table { id: format!("{}-{}", slug(&heading(group)), m.name.to_lowercase()), caption, head, lines }
}

/// A table of our numbers where nothing is published, methods in order of their lowest distance.
fn ours_alone(m: &Measured, caption: String) -> Table {
    let all = series(&m.runs);
    let mut lines = Vec::new();
    for (arch, width) in architectures(&all) {
        let mut here: Vec<&Series> = all.iter().filter(|s| s.arch == arch && s.width == width).collect();
        let lowest = |s: &Series| s.best_fid().map_or(f64::INFINITY, |f| f.mean());
        here.sort_by(|a, b| lowest(a).total_cmp(&lowest(b)));
        let bests = bests(&here);
        lines.push(Line::Section(title_of(arch, width, None)));
        for s in here {
            let cells = std::iter::once(Cell::from(s.label.as_str())).chain(ours(m, s, bests));
            lines.push(Line::Cells { id: None, cells: cells.collect() });
        }
    }
    let head = std::iter::once("method").chain(OURS).map(str::to_owned).collect();
    Table { id: format!("{}-{}", slug(&m.protocol.experiment), m.name.to_lowercase()), caption, head, lines }
}

fn claims(document: &mut Document, rows: &[Row], measured: &[Measured]) {
    let mut scales: Vec<&str> = measured.iter().map(|m| m.protocol.scale.as_str()).collect();
    // The paper's scale is judged even where no run has it, so that what is missing is said.
    scales.push(crate::config::FULL);
    scales.sort_unstable();
    scales.dedup();
    document.heading(2, "The paper's claims", "claims");
    document.text(
        "A verdict holds for the scale it was judged at. The claims are about the paper's scale (full): what a reduced scale shows is a \
         hint. Two means are alike where two one-sided tests say so; not to see a difference is not evidence.",
    );
    for scale in scales {
        let lines = judgements(rows, scale).into_iter().map(|j| {
            let mut evidence = j.evidence.join(". ");
            if let Some(missing) = j.missing {
                let stop = if evidence.is_empty() { "" } else { ". " };
                evidence.push_str(&format!("{stop}Missing: {missing}"));
            }
            let cells = [j.id.to_owned(), j.claim.to_owned(), j.verdict.word().to_owned(), evidence, j.test.to_owned()];
            Line::Cells { id: None, cells: cells.into_iter().map(Cell::from).collect() }
        });
        document.table(Table {
            id: format!("claims-{}", slug(scale)),
            caption: format!("The paper's claims at scale {scale}."),
            head: ["claim", "what the paper says", "verdict", "evidence", "test"].map(str::to_owned).to_vec(),
            lines: lines.collect(),
        });
    }
}

/// Mean and deviation over seeds at each step that all runs of a series have.
fn curve(s: &Series, x: impl Fn(&super::runs::Point) -> f64, y: impl Fn(&super::runs::Point) -> Option<f64>) -> Curve {
    let mut points = Vec::new();
    let runs = &s.runs;
    for at in &runs[0].points {
        let here: Vec<&super::runs::Point> =
            runs.iter().filter_map(|r| r.points.iter().find(|p| p.step == at.step)).collect();
        let values: Vec<f64> = here.iter().filter_map(|p| y(p)).collect();
        if here.len() < runs.len() || values.is_empty() {
            continue;
        }
        let xs: Vec<f64> = here.iter().map(|p| x(p)).collect();
        let (mean, std) = mean_and_deviation(&values);
        points.push([mean_and_deviation(&xs).0, mean, mean - std, mean + std]);
    }
    Curve { method: s.method.clone(), name: s.label.clone(), points }
}

fn curves(report: &mut Report, rows: &[Row], measured: &[Measured]) {
    if measured.is_empty() {
        return;
    }
    report.document.heading(2, "Curves", "curves");
    report.document.text("Lines are means over seeds, bands one standard deviation to each side.");
    for m in measured {
        let all = series(&m.runs);
        for (arch, width) in architectures(&all) {
            let here: Vec<&Series> = all.iter().filter(|s| s.arch == arch && s.width == width).collect();
            let place =
                format!("{} at scale {}, {}", m.protocol.experiment, m.protocol.scale, title_of(arch, width, None));
            let stem = format!("{}-{arch}-{}", m.name.to_lowercase(), slug(width));
            let mut add = |kind: &str, x: &str, y: &str, log: bool, curves: Vec<Curve>| {
                let curves: Vec<Curve> = curves.into_iter().filter(|c| c.points.len() > 1).collect();
                if curves.is_empty() {
                    return;
                }
                let caption =
                    format!("{place}: {y} against {x} (protocol {}, {} weights).", m.name, m.protocol.weights);
                let file = format!("{stem}-{kind}");
                let chart = Chart { title: place.clone(), x: x.to_owned(), y: y.to_owned(), log_y: log, curves };
                report
                    .document
                    .blocks
                    .push(super::document::Block::Figure(Figure { file: format!("{file}.svg"), caption }));
                report.plots.insert(file, Plot::Lines(chart));
            };
            let of = |x: fn(&super::runs::Point) -> f64, y: fn(&super::runs::Point) -> Option<f64>| {
                here.iter().map(|s| curve(s, x, y)).collect::<Vec<_>>()
            };
            add("fid-steps", "generator updates", "FID", true, of(|p| p.step as f64, |p| Some(p.fid)));
            add("fid-time", "minutes of training", "FID", true, of(|p| p.wall_s / 60.0, |p| Some(p.fid)));
            add(
                "is-steps",
                "generator updates",
                "Inception Score",
                false,
                of(|p| p.step as f64, |p| p.score.map(|s| s.0)),
            );
            add(
                "is-time",
                "minutes of training",
                "Inception Score",
                false,
                of(|p| p.wall_s / 60.0, |p| p.score.map(|s| s.0)),
            );
        }
    }
    for m in by_experiment(measured) {
        let all = series(&m.runs);
        for (arch, width) in architectures(&all) {
            let place =
                format!("{} at scale {}, {}", m.protocol.experiment, m.protocol.scale, title_of(arch, width, None));
            let here: Vec<&Series> = all.iter().filter(|s| s.arch == arch && s.width == width).collect();
            for metric in TRACES {
                let curves: Vec<Curve> =
                    here.iter().map(|s| trace(rows, s, metric)).filter(|c| c.points.len() > 1).collect();
                if curves.is_empty() {
                    continue;
                }
                let name = metric.replace('_', " ");
                let file = format!(
                    "{}-{}-{arch}-{}-{}",
                    slug(&m.protocol.experiment),
                    slug(&m.protocol.scale),
                    slug(width),
                    slug(metric)
                );
                let what = match metric {
                    "input_gradient_norm" => {
                        "mean norm of the critic's gradient in its images, ‖∇f‖, where the method computes it"
                    }
                    _ => name.as_str(),
                };
                let caption = format!("{place}: {what}.");
                let log_y = metric.ends_with("norm");
                let chart =
                    Chart { title: place.clone(), x: "generator updates".to_owned(), y: name.clone(), log_y, curves };
                report
                    .document
                    .blocks
                    .push(super::document::Block::Figure(Figure { file: format!("{file}.svg"), caption }));
                report.plots.insert(file, Plot::Lines(chart));
            }
        }
    }
}

/// A curve of the log's means, over the seeds of a series.
fn trace(rows: &[Row], s: &Series, metric: &str) -> Curve {
    let mut by_step: BTreeMap<u64, BTreeMap<&str, f64>> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.metric == metric && r.family == s.family) {
        by_step.entry(row.step).or_default().insert(&row.config_hash, row.value);
    }
    // Where a seed is missing, a mean would jump.
    let points = by_step.into_iter().filter(|(_, of)| of.len() == s.runs.len()).map(|(step, of)| {
        let values: Vec<f64> = of.into_values().collect();
        let (mean, std) = mean_and_deviation(&values);
        [step as f64, mean, mean - std, mean + std]
    });
    Curve { method: s.method.clone(), name: s.label.clone(), points: points.collect() }
}

fn pictures(report: &mut Report, pictures: &[Picture]) {
    // Samples first, then neighbours.
    let mut by_place: BTreeMap<(std::cmp::Reverse<&str>, &str, &str, String), Vec<&Picture>> = BTreeMap::new();
    for p in pictures {
        let network = title_of(&p.arch, &p.width.to_string(), None);
        by_place.entry((std::cmp::Reverse(&p.kind), &p.experiment, &p.scale, network)).or_default().push(p);
    }
    let mut kind = "";
    for ((std::cmp::Reverse(of), experiment, scale, arch), all) in by_place {
        let Some(seed) = all.iter().map(|p| p.seed).min() else { continue };
        if kind != of {
            let title = if of == "samples" { "Samples" } else { "Nearest training images" };
            report.document.heading(2, title, of);
            kind = of;
        }
        let caption = match of {
            "samples" => {
                format!("{experiment} at scale {scale}, {arch}, seed {seed}: every method draws from the same latents.")
            }
            _ => format!(
                "{experiment} at scale {scale}, {arch}, seed {seed}: generated images (first column) and the training images nearest to \
                 them in pixels. Copies of training images would stand out."
            ),
        };
        let mut shown: Vec<&&Picture> = all.iter().filter(|p| p.seed == seed).collect();
        shown.sort_by_key(|p| super::plot::order(&p.method));
        let shown = shown.into_iter().map(|p| (p.method.clone(), p.png.clone()));
        let file = format!("{}-{}-{}-{of}", slug(experiment), slug(scale), slug(&arch));
        report.document.blocks.push(super::document::Block::Figure(Figure { file: format!("{file}.png"), caption }));
        report.plots.insert(file, Plot::Pictures(shown.collect()));
    }
}

fn cost(report: &mut Report, measured: &[Measured]) {
    let mut lines = Vec::new();
    for m in by_experiment(measured) {
        let all = series(&m.runs);
        for (arch, width) in architectures(&all) {
            let here: Vec<&Series> = all.iter().filter(|s| s.arch == arch && s.width == width).collect();
            let seconds = |s: &Series| Sample::of(&s.runs, |r| r.cost);
            let base = here.iter().find(|s| s.method == "none").and_then(|s| seconds(s)).map(|s| s.mean());
            let mut bars = Vec::new();
            lines.push(Line::Section(format!(
                "{} at scale {}, {}",
                m.protocol.experiment,
                m.protocol.scale,
                title_of(arch, width, None)
            )));
            for s in here {
                let Some(cost) = seconds(s) else { continue };
                let peak = Sample::of(&s.runs, |r| r.peak.map(|p| p / f64::from(1 << 30)));
                let hours = Sample::of(&s.runs, |r| Some(r.hours()));
                let mut devices: Vec<&str> = s.runs.iter().map(|r| r.device.as_str()).collect();
                devices.dedup();
                bars.push(Bar { method: s.method.clone(), name: s.label.clone(), value: cost.mean() });
                let cells = [
                    s.label.clone(),
                    cost.show(3),
                    base.map_or_else(|| "–".to_owned(), |b| format!("{:.2}×", cost.mean() / b)),
                    peak.map_or_else(|| "–".to_owned(), |p| p.show(2)),
                    hours.map_or_else(|| "–".to_owned(), |h| h.show(2)),
                    s.runs.len().to_string(),
                    devices.join(", "),
                ];
                let mut cells: Vec<Cell> = cells.into_iter().map(Cell::from).collect();
                cells[1].link = listed(measured, s);
                lines.push(Line::Cells { id: None, cells });
            }
            if bars.len() > 1 {
                let file =
                    format!("{}-{}-{arch}-{}-cost", slug(&m.protocol.experiment), slug(&m.protocol.scale), slug(width));
                report.plots.insert(
                    file,
                    Plot::Bars {
                        title: format!("{}, {}", m.protocol.experiment, title_of(arch, width, None)),
                        y: "seconds a step".to_owned(),
                        bars,
                    },
                );
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
        caption: "Training alone, evaluation excluded; memory is the process's, data set included. Runs of different machines or of a \
                  machine with other work are not comparable."
            .to_owned(),
        head: head.map(str::to_owned).to_vec(),
        lines,
    });
    let files: Vec<String> = report.plots.keys().filter(|f| f.ends_with("-cost")).cloned().collect();
    for file in files {
        let figure =
            Figure { file: format!("{file}.svg"), caption: "Seconds of a training step by method.".to_owned() };
        report.document.blocks.push(super::document::Block::Figure(figure));
    }
}

/// What is published, as published: groups without runs of ours, methods, augmentations, and other harnesses.
fn published(document: &mut Document, groups: &[&Group], sources: &Sources) {
    document.heading(2, "Published numbers", "published");
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
        let cells = [row.label.clone(), value(&row.is), value(&row.fid)];
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

fn provenance(document: &mut Document, measured: &[Measured]) {
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
    let mut lines = Vec::new();
    for m in measured {
        let all = series(&m.runs);
        for (s, r) in all.iter().flat_map(|s| s.runs.iter().map(move |r| (s, *r))) {
            let id = (r.seed == s.runs[0].seed).then(|| m.link(s));
            let score =
                |p: &super::runs::Point| p.score.map_or_else(|| "–".to_owned(), |s| format!("{:.3} ± {:.3}", s.0, s.1));
            let cells = [
                m.name.clone(),
                format!("{}-{}-s{}", r.arch, r.method, r.seed),
                r.width.to_string(),
                r.loss.clone(),
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
            lines.push(Line::Cells { id, cells });
        }
    }
    let head = [
        "protocol",
        "run",
        "width",
        "loss",
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
    document.table(Table {
        id: "run-table".to_owned(),
        caption:
            "Every run. Its folder is EXPERIMENT-SCALE/RUN below the results; config is the hash of its config.json, family the same without the seed."
                .to_owned(),
        head: head.map(str::to_owned).to_vec(),
        lines,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{baselines, csv, html, latex, markdown, plot};
    use crate::results::tests::row;
    use crate::results::{COST, PEAK};

    /// Two experiments: the paper's at full scale and in small, and one that the paper does not have.
    fn store() -> Vec<Row> {
        let mut rows = Vec::new();
        let mut add = |experiment: &str, scale: &str, dataset: &str, width: f64, methods: &[(&str, f64)]| {
            for (method, level) in methods {
                for seed in 0..3 {
                    for step in [0, 500, 1000] {
                        let fid = level * (2.0 - step as f64 / 1000.0) + seed as f64;
                        let mut of = |metric: &str, value: f64| {
                            let row = row(method, seed, step, metric, value);
                            rows.push(Row {
                                experiment: experiment.into(),
                                scale: scale.into(),
                                dataset: dataset.into(),
                                width,
                                family: format!("{experiment}{scale}{method}"),
                                ..row
                            });
                        };
                        of("fid2k_train", fid);
                        of("is2k", 100.0 / fid);
                        of("critic_loss", 0.001 * fid);
                        if step == 1000 {
                            of(COST, 0.25 + 0.001 * seed as f64);
                            of(PEAK, 3e8);
                        }
                    }
                }
            }
        };
        add("cifar10", "full", "cifar10", 1.0, &[("gn", 20.0), ("pgn", 18.0)]);
        add("cifar10", "smoke", "cifar10", 0.25, &[("none", 60.0), ("gn", 50.0), ("pgn", 55.0), ("gn+cr", 45.0)]);
        add("demo", "smoke", "shapes", 0.25, &[("none", 70.0), ("sn", 30.0)]);
        rows.push(row("pgn", 0, 1000, "gradient_max_real", 0.75));
        rows
    }

    fn report() -> Report {
        let png = plot::png(&Plot::Bars { title: String::new(), y: String::new(), bars: Vec::new() }).unwrap();
        let picture = |method: &str| Picture {
            experiment: "demo".into(),
            scale: "smoke".into(),
            arch: "cnn32".into(),
            method: method.into(),
            width: 0.25,
            seed: 0,
            kind: "samples".into(),
            png: png.clone(),
        };
        let baselines = baselines::embedded().unwrap();
        build(&Sources {
            rows: &store(),
            baselines: &baselines,
            pictures: &[picture("none"), picture("sn")],
            note: "What this is.\n\nWhat it\nis not.",
        })
    }

    #[test]
    fn every_format_of_the_mock_store() {
        let report = report();
        insta::assert_snapshot!("markdown", markdown::render(&report.document));
        insta::assert_snapshot!("latex", latex::render(&report.document));
        insta::assert_snapshot!("html", html::render(&report.document, &BTreeMap::new()));
        let table = report.document.tables().next().unwrap();
        insta::assert_snapshot!("latex_table", latex::table(table));
        insta::assert_snapshot!("csv", csv::render(table));
        let figures: Vec<&String> = report.plots.keys().collect();
        insta::assert_snapshot!("figures", format!("{figures:#?}"));
    }

    #[test]
    fn only_one_protocol_is_ranked_and_small_scales_stand_apart() {
        let text = markdown::render(&report().document);
        let full = text.find("Table 2: Unconditional CIFAR-10\n").unwrap();
        let small = text.find("## Reduced scale").unwrap();
        assert!(full < small);
        // The best of the full-scale block is pgn's, though other blocks have lower and higher ones.
        assert!(text[full..small].contains("[**19.00 ± 1.00**](#p1-cnn32-1-pgn)"), "{}", &text[full..small]);
        assert!(text[small..].contains("at scale smoke"));
    }

    #[test]
    fn figures_are_drawn() {
        for (name, of) in report().plots {
            assert!(plot::png(&of).unwrap().starts_with(b"\x89PNG"), "{name}");
            let svg = plot::svg(&of).unwrap();
            assert_eq!(svg.is_none(), matches!(of, Plot::Pictures(_)));
            assert!(svg.is_none_or(|s| s.contains("</svg>") && !s.contains("NaN")), "{name}");
        }
    }
}
