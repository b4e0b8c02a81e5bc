//! What a report says: the paper's tables beside ours, claims, costs, curves and pictures, as a function of rows.

mod across;
mod agreement;
mod budget;
mod crossings;
mod figures;
mod lead;
mod listings;
mod settings;
mod standing;
mod tables;
mod verdicts;
mod why;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::baselines::{Baselines, Group};
use super::chart::{Chart, Plot, drawable};
use super::document::{Block, Document, Figure};
use super::images;
use super::runs::{Protocol, Run, protocols, runs};
use super::series::{Network, Series};
use crate::config::Cell;
use crate::critic::is_conditional;
use crate::results::Row;

/// A picture that a run left.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Picture {
    pub experiment: String,
    pub scale: String,
    pub arch: String,
    pub method: String,
    pub loss: String,
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
    /// Configurations of runs, as far as they are there.
    pub cells: &'a [Cell],
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

impl Report {
    fn figure(&mut self, file: String, caption: String) {
        self.document.blocks.push(Block::Figure(Figure { file, caption }));
    }

    /// Adds a chart of the curves that have more than one point that can be drawn, if there are any and it is not there yet.
    fn lines(&mut self, file: String, mut caption: String, mut chart: Chart) {
        for curve in &mut chart.curves {
            curve.points.retain(|point| point.iter().copied().all(drawable));
        }
        chart.curves.retain(|c| c.points.len() > 1);
        if chart.curves.is_empty() || self.plots.contains_key(&file) {
            return;
        }
        if chart.is_log() {
            caption.push_str(" The axis is logarithmic.");
        }
        if chart.is_cut() {
            caption.push_str(" What the first tenth has beyond the range of the rest is cut off.");
        }
        self.figure(format!("{file}.svg"), caption);
        self.plots.insert(file, Plot::Lines(chart));
    }

    /// A section of level 2, unless nothing is put into it.
    fn section(&mut self, title: &str, id: &str, folded: bool, fill: impl FnOnce(&mut Self)) {
        let before = self.document.blocks.len();
        if folded {
            self.document.folded(title, id)
        } else {
            self.document.heading(2, title, id)
        }
        fill(self);
        if self.document.blocks.len() == before + 1 {
            self.document.blocks.pop();
        }
    }
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
        format!("{}-{}-{}-{}", self.name.to_lowercase(), slug(&s.arch), slug(&s.width), slug(&s.label))
    }

    /// Where its table is.
    fn table(&self) -> String {
        format!("{}-table", self.name.to_lowercase())
    }

    /// Experiment, scale and network.
    fn place(&self, network: &Network) -> String {
        format!("{} at scale {}, {}", self.protocol.experiment, self.protocol.scale, network.title())
    }

    /// Start of the names of files about a network of the experiment, whatever the protocol.
    fn stem(&self, network: &Network) -> String {
        let Protocol { experiment, scale, .. } = &self.protocol;
        format!("{}-{}-{}-{}", slug(experiment), slug(scale), slug(network.arch), slug(network.width))
    }

    fn belongs_to(&self, group: &Group) -> bool {
        self.protocol.dataset == group.dataset
            && self.protocol.image_size == group.image_size
            && self.runs.iter().all(|r| is_conditional(&r.arch) == group.conditional)
    }
}

/// The report on some rows.
pub fn build(sources: &Sources) -> Report {
    let mut report = Report { document: Document::default(), plots: BTreeMap::new() };
    let (of_images, of_runs): (Vec<&Row>, Vec<&Row>) = sources.rows.iter().partition(|row| row.is_of_images());
    let of_runs: Vec<Row> = of_runs.into_iter().cloned().collect();
    let sources = &Sources { rows: &of_runs, ..*sources };
    let measured: Vec<Measured> = protocols(sources.rows)
        .into_iter()
        .enumerate()
        .map(|(n, protocol)| Measured { name: format!("P{}", n + 1), runs: runs(sources.rows, &protocol), protocol })
        .collect();
    let judged = verdicts::judged(sources.rows, &measured);
    lead::lead(&mut report, sources, &measured, &judged);
    lead::about(&mut report.document, &measured, sources.note);
    let groups: Vec<&Group> = sources.baselines.first().map(|b| b.groups.iter().collect()).unwrap_or_default();
    tables::full_scale(&mut report.document, &groups, &measured);
    tables::reduced(&mut report.document, &groups, &measured);
    budget::section(&mut report, &measured);
    verdicts::tables(&mut report.document, &judged);
    across::section(&mut report, &measured);
    agreement::tables(&mut report.document, sources.rows, &measured);
    images::section(&mut report.document, &of_images);
    figures::curves(&mut report, &measured);
    figures::pictures(&mut report, sources.pictures);
    why::section(&mut report, sources.rows, &measured);
    figures::traces(&mut report, sources.rows, &measured);
    listings::cost(&mut report, &measured);
    listings::published(&mut report.document, &groups, sources);
    listings::provenance(&mut report.document, &measured, &settings::notable(sources.cells));
    report
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

/// Whether a protocol's is the first of the distances that stand beside each other: FID before others, and what was measured more often,
/// which shows a course, before what was measured at the end.
fn is_first(m: &Measured, measured: &[Measured]) -> bool {
    let before = |(i, other): (usize, &Measured)| {
        let evaluations = other.runs.iter().map(|run| run.points.len()).max();
        (other.protocol.distance() != "FID", Reverse(evaluations), i)
    };
    let least = measured.iter().enumerate().filter(|(_, other)| beside(&other.protocol, &m.protocol)).map(before).min();
    least.is_some_and(|(.., i)| measured[i].name == m.name)
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

/// What file names, ids and links are made of.
fn slug(text: &str) -> String {
    let dashed: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    dashed.split('-').filter(|p| !p.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::Line;
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

    #[test]
    fn what_was_measured_most_often_comes_first() {
        let of = |step: u64, metric: &str| row("gn", 0, step, metric, 5.0);
        let rows = [of(500, "fid2k_train"), of(1000, "fid2k_train"), of(1000, "fid10k_train")];
        let named =
            |protocol: Protocol| Measured { name: protocol.metric.clone(), runs: runs(&rows, &protocol), protocol };
        let measured: Vec<Measured> = protocols(&rows).into_iter().map(named).collect();
        let first: Vec<&str> = measured.iter().filter(|m| is_first(m, &measured)).map(|m| m.name.as_str()).collect();
        assert_eq!((measured.len(), first), (2, vec!["fid2k_train"]));
    }

    #[test]
    fn images_are_listed_and_never_ranked() {
        let of_images = |method: &str| Row {
            arch: crate::results::NO_NETWORK.into(),
            experiment: "measure".into(),
            ..row(method, 0, 0, "fid2k_train", 9.0)
        };
        let rows = [of_images("mine"), of_images("theirs"), row("gn", 0, 10, "fid2k_train", 3.0)];
        let text = markdown::render(
            &build(&Sources { rows: &rows, baselines: &[], pictures: &[], cells: &[], note: "" }).document,
        );
        assert!(text.contains("## Measured images") && text.contains("*mine against train. "), "{text}");
        assert!(text.contains("1 run under 1 protocol.") && !text.contains("| mine"), "{text}");
    }

    fn report() -> Report {
        let png = plot::png(&Plot::Bars { title: String::new(), what: String::new(), bars: Vec::new() }).unwrap();
        let picture = |method: &str| Picture {
            experiment: "demo".into(),
            scale: "smoke".into(),
            arch: "cnn32".into(),
            method: method.into(),
            loss: "hinge".into(),
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
            cells: &[],
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
    fn hostile_rows_stay_text_in_every_format() {
        let wild = "\"><script>alert(1)</script>\n\n# H1 \x1b[2J../..";
        let of = |step: u64, value: f64| Row {
            experiment: format!("=1+1 {wild}"),
            scale: wild.into(),
            arch: format!("../../{wild}"),
            method: format!("[1] {wild}"),
            warning: wild.into(),
            device: format!("@x {wild}"),
            ..row("gn", 0, step, "fid2k_train", value)
        };
        let rows = [of(1, 2.0), of(2, 1.0), Row { metric: COST.into(), ..of(2, 1.0) }];
        let baselines = baselines::embedded().unwrap();
        let report = build(&Sources { rows: &rows, baselines: &baselines, pictures: &[], cells: &[], note: "" });
        let is_plain =
            |id: &str| id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !id.contains("..");
        assert!(!report.plots.is_empty() && report.plots.keys().all(|file| is_plain(file)));
        for block in &report.document.blocks {
            match block {
                Block::Heading { id, .. } => assert!(is_plain(id), "{id}"),
                Block::Figure(figure) => assert!(is_plain(&figure.file), "{}", figure.file),
                Block::Table(table) => {
                    assert!(is_plain(&table.id), "{}", table.id);
                    let ids = table.lines.iter().flat_map(|line| match line {
                        Line::Section(_) => Vec::new(),
                        Line::Cells { id, cells } => {
                            id.iter().chain(cells.iter().filter_map(|c| c.link.as_ref())).collect()
                        }
                    });
                    ids.for_each(|id| assert!(is_plain(id), "{id}"));
                    assert!(csv::render(table).split(['\n', ',', '"']).all(|cell| !cell.starts_with(['=', '@'])));
                    let tex = latex::table(table);
                    assert!(!tex.replace('\n', "").contains("\\\\[") && !tex.contains('\x1b'), "{tex}");
                }
                Block::Points(points) => {
                    points.iter().filter_map(|p| p.label.link.as_ref()).for_each(|id| assert!(is_plain(id), "{id}"));
                }
                Block::Text(_) => {}
            }
        }
        let figures = report.plots.iter().map(|(name, of)| (format!("{name}.svg"), plot::svg(of).unwrap().unwrap()));
        let figures = figures.map(|(name, svg)| (name, svg.into_bytes())).collect();
        let page = html::render(&report.document, &figures);
        assert!(page.contains("<svg") && !page.contains("<script") && !page.contains('\x1b'));
        let text = markdown::render(&report.document);
        assert!(
            !text.replace("\\<", "").contains("<script")
                && !text.contains('\x1b')
                && !text.lines().any(|l| l.starts_with("# H1"))
        );
        let table = crate::report::table::comparison(&rows);
        assert!(!table.contains('\x1b') && !table.lines().any(|l| l.starts_with("# H1")));
    }

    #[test]
    fn what_is_no_number_is_not_drawn() {
        let odd = [f64::NAN, f64::INFINITY, 1e308, -1e308, 1e29, -1e29, 0.0, 1e-320, 1.0];
        for a in odd {
            for b in odd {
                let of =
                    |step: u64, wall_s: f64, value: f64| Row { wall_s, ..row("gn", 0, step, "fid2k_train", value) };
                let rows = [of(u64::MAX - 1, b, a), of(u64::MAX, a, b), of(2, 1.0, 1.0), of(1, 0.0, 2.0)];
                let report = build(&Sources { rows: &rows, baselines: &[], pictures: &[], cells: &[], note: "" });
                for (name, of) in report.plots {
                    assert!(!plot::svg(&of).unwrap().unwrap().contains("NaN"), "{name} of {a} and {b}");
                    plot::png(&of).unwrap();
                }
            }
        }
    }

    #[test]
    fn tall_pictures_are_shown_small() {
        let mut png = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(1, 300_000).write_to(&mut png, image::ImageFormat::Png).unwrap();
        let shown = plot::png(&Plot::Pictures(vec![("tall".into(), png.into_inner())])).unwrap();
        let shown = image::load_from_memory(&shown).unwrap();
        assert!(shown.height() < 5000, "{}", shown.height());
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
