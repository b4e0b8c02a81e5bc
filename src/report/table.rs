//! The comparison of methods: one Markdown table for each protocol, never ranking across protocols.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::results::{COST, Row};
use crate::statistics::mean_and_deviation;

/// What must agree for two numbers to stand in one table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Protocol {
    experiment: String,
    scale: String,
    dataset: String,
    arch: String,
    width: String,
    metric: String,
    extractor: String,
    sha256: String,
    resize: String,
    reference: String,
    batch_norm: String,
    weights: String,
}

impl Protocol {
    fn of(row: &Row) -> Self {
        Self {
            experiment: row.experiment.clone(),
            scale: row.scale.clone(),
            dataset: row.dataset.clone(),
            arch: row.arch.clone(),
            width: row.width.to_string(),
            metric: row.metric.clone(),
            extractor: row.extractor.clone(),
            sha256: row.extractor_sha256.clone(),
            resize: row.resize.clone(),
            reference: row.reference_sha256.clone(),
            batch_norm: row.batch_norm.clone(),
            weights: row.weights.clone(),
        }
    }
}

/// One run's numbers.
struct Run {
    method: String,
    first: f64,
    best: f64,
    best_step: u64,
    last: f64,
    last_step: u64,
    score: Option<(f64, f64)>,
    cost: Option<f64>,
    status: String,
}

fn show(values: &[f64], digits: usize) -> String {
    let (mean, std) = mean_and_deviation(values);
    if values.len() > 1 { format!("{mean:.digits$} ± {std:.digits$}") } else { format!("{mean:.digits$}") }
}

fn runs(rows: &[Row], protocol: &Protocol) -> Vec<Run> {
    let mut by_run: BTreeMap<(String, u64), Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|r| Protocol::of(r) == *protocol) {
        by_run.entry((row.method.clone(), row.seed)).or_default().push(row);
    }
    let of_run = |(method, seed): (String, u64), mut fid: Vec<&Row>| {
        fid.sort_by_key(|r| r.step);
        let (first, last) = (fid.first()?, fid.last()?);
        let best = fid.iter().min_by(|a, b| a.value.total_cmp(&b.value))?;
        let same_run = |r: &&Row| {
            r.method == method && r.seed == seed && r.config_hash == best.config_hash && r.experiment == best.experiment
        };
        let score = rows
            .iter()
            .filter(same_run)
            .find(|r| r.metric.starts_with("is") && r.step == best.step && r.weights == best.weights)
            .map(|r| (r.value, r.std.unwrap_or(0.0)));
        let cost = rows.iter().filter(same_run).filter(|r| r.metric == COST).max_by_key(|r| r.step).map(|r| r.value);
        Some(Run {
            first: first.value,
            best: best.value,
            best_step: best.step,
            last: last.value,
            last_step: last.step,
            score,
            cost,
            status: last.status.clone(),
            method: method.clone(),
        })
    };
    by_run.into_iter().filter_map(|(key, rows)| of_run(key, rows)).collect()
}

/// Markdown tables of all protocols in `rows`, methods in order of their best Fréchet distance.
pub fn comparison(rows: &[Row]) -> String {
    let mut protocols: Vec<Protocol> = rows.iter().filter(|r| r.metric.starts_with("fid")).map(Protocol::of).collect();
    protocols.sort();
    protocols.dedup();
    let mut out = String::new();
    for p in protocols {
        let _ = writeln!(
            out,
            "### {} ({} scale): {} on {}, width {}\n\n{} over {} ({}…), resize {}, {} weights, batch norm: {}\n",
            p.experiment,
            p.scale,
            p.arch,
            p.dataset,
            p.width,
            p.metric,
            p.extractor,
            p.sha256.chars().take(8).collect::<String>(),
            p.resize,
            p.weights,
            p.batch_norm
        );
        if p.scale != "full" {
            let _ = writeln!(out, "These are {} runs: they show that training works, and rank nothing.\n", p.scale);
        }
        let mut warnings: Vec<&str> =
            rows.iter().filter(|r| !r.warning.is_empty() && Protocol::of(r) == p).map(|r| r.warning.as_str()).collect();
        warnings.sort_unstable();
        warnings.dedup();
        for warning in warnings {
            let _ = writeln!(out, "Warning: {warning}.\n");
        }
        out.push_str(&table(runs(rows, &p), &p.metric));
        out.push('\n');
    }
    out
}

fn table(runs: Vec<Run>, metric: &str) -> String {
    let mut by_method: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for run in runs {
        by_method.entry(run.method.clone()).or_default().push(run);
    }
    let pick = |runs: &[Run], f: fn(&Run) -> f64| runs.iter().map(f).collect::<Vec<f64>>();
    let mut lines: Vec<(f64, Vec<String>)> = by_method
        .iter()
        .map(|(method, runs)| {
            let scores: Vec<(f64, f64)> = runs.iter().filter_map(|r| r.score).collect();
            let score = match scores.as_slice() {
                [] => "–".to_owned(),
                [(mean, std)] => format!("{mean:.2} ± {std:.2}"),
                many => show(&many.iter().map(|s| s.0).collect::<Vec<_>>(), 2),
            };
            let costs: Vec<f64> = runs.iter().filter_map(|r| r.cost).collect();
            let mut status: Vec<&str> = runs.iter().map(|r| r.status.as_str()).collect();
            status.sort_unstable();
            status.dedup();
            let best = mean_and_deviation(&pick(runs, |r| r.best)).0;
            let cells = vec![
                method.clone(),
                runs.len().to_string(),
                show(&pick(runs, |r| r.best), 2),
                steps(runs, |r| r.best_step),
                show(&pick(runs, |r| r.first), 2),
                show(&pick(runs, |r| r.last), 2),
                steps(runs, |r| r.last_step),
                score,
                if costs.is_empty() { "–".to_owned() } else { show(&costs, 3) },
                status.join(", "),
            ];
            (best, cells)
        })
        .collect();
    lines.sort_by(|a, b| a.0.total_cmp(&b.0));
    let head = [
        "method",
        "seeds",
        &format!("best {metric} ↓"),
        "at step",
        "first",
        "last",
        "at step",
        "IS ↑ at best",
        "s/step",
        "status",
    ];
    aligned(&head.map(str::to_owned), lines.into_iter().map(|l| l.1).collect())
}

fn steps(runs: &[Run], f: fn(&Run) -> u64) -> String {
    let mut steps: Vec<u64> = runs.iter().map(f).collect();
    steps.sort_unstable();
    steps.dedup();
    steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// A Markdown table that also reads well as plain text.
pub fn aligned(head: &[String], rows: Vec<Vec<String>>) -> String {
    let width = |column: usize| {
        rows.iter().map(|r| r[column].chars().count()).chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(c, &w)| format!("{c}{}", " ".repeat(w - c.chars().count()))).collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|&w| "-".repeat(w)).collect();
    let body: String = rows.iter().map(|r| line(r)).collect();
    format!("{}{}{body}", line(head), line(&rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::row;

    #[test]
    fn methods_are_ranked_by_their_best_within_a_protocol() {
        let mut rows = vec![
            row("gn", 0, 0, "fid2k_train", 9.0),
            row("gn", 0, 10, "fid2k_train", 3.0),
            row("gn", 0, 20, "fid2k_train", 4.0),
            row("gn", 0, 10, "is2k", 5.0),
            row("gn", 0, 20, COST, 0.25),
            row("pgn", 0, 10, "fid2k_train", 1.0),
            row("pgn", 1, 10, "fid2k_train", 2.0),
        ];
        let mut other = row("sn", 0, 10, "fid2k_train", 0.1);
        other.extractor = "inception".into();
        rows.push(other);
        let text = comparison(&rows);
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("| ")).collect();
        assert_eq!(lines.len(), 7, "{text}");
        let cells = |l: &str| l.split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(cells(lines[2])[1..5], ["pgn", "2", "1.50 ± 0.71", "10"]);
        assert_eq!(
            cells(lines[3])[1..11],
            ["gn", "1", "3.00", "10", "9.00", "4.00", "20", "5.00 ± 0.10", "0.250", "finished"]
        );
        assert!(cells(lines[6])[1] == "sn" && text.contains("rank nothing"));
    }
}
