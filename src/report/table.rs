//! The comparison of methods for a terminal: one Markdown table for each protocol and architecture.

use std::fmt::Write;

use super::markdown::{aligned, plain};
use super::runs::{distinct, protocols, runs, short, statuses, steps, warnings};
use super::series::{Sample, Series, networks, series};
use crate::results::Row;

/// Markdown tables of all protocols in `rows`, methods in order of their best Fréchet distance.
pub fn comparison(rows: &[Row]) -> String {
    let mut out = String::new();
    for p in protocols(rows) {
        let runs = runs(rows, &p);
        let all = series(&runs);
        for network in networks(&all) {
            let (arch, width) = (network.arch, network.width);
            let title = format!("### {} ({} scale): {arch} on {}, width {width}", p.experiment, p.scale, p.dataset);
            let protocol = format!(
                "{} over {} ({}…), resize {}, {} weights, batch norm: {}",
                p.metric,
                p.extractor,
                short(&p.extractor_sha256),
                p.resize,
                p.weights,
                p.batch_norm
            );
            let _ = writeln!(out, "{}\n\n{}\n", plain(&title), plain(&protocol));
            if !p.is_full() {
                let _ = writeln!(
                    out,
                    "These are {} runs, not of the paper's settings: they rank nothing beyond them.\n",
                    plain(&p.scale)
                );
            }
            let settings = distinct(network.runs().map(|run| run.settings.as_str()));
            if settings.len() > 1 {
                let _ = writeln!(
                    out,
                    "They are of {} different settings: what differs between two of them need not be the method's doing.\n",
                    settings.len()
                );
            }
            for warning in warnings(network.runs()) {
                let _ = writeln!(out, "Warning: {}.\n", plain(warning));
            }
            out.push_str(&table(&network.by_lowest(), &p.metric));
            out.push('\n');
        }
    }
    out
}

fn table(all: &[&Series], metric: &str) -> String {
    let show = |sample: Option<Sample>, digits: usize| sample.map_or_else(|| "–".to_owned(), |s| s.show(digits));
    let lines = all.iter().map(|s| {
        let score = match s.runs.as_slice() {
            [run] => run.best().score.map_or_else(|| "–".to_owned(), |(mean, std)| format!("{mean:.2} ± {std:.2}")),
            _ => show(s.best_score(), 2),
        };
        vec![
            s.label.clone(),
            s.runs.len().to_string(),
            show(s.best_fid(), 2),
            steps(&s.runs, |r| r.best().step),
            show(Sample::of(&s.runs, |r| Some(r.first().fid)), 2),
            show(Sample::of(&s.runs, |r| Some(r.last().fid)), 2),
            steps(&s.runs, |r| r.last().step),
            score,
            show(Sample::of(&s.runs, |r| r.cost), 3),
            statuses(&s.runs),
        ]
    });
    let best = format!("best {metric} ↓");
    let head = ["method", "seeds", &best, "at step", "first", "last", "at step", "IS ↑ at best", "s/step", "status"];
    aligned(&head.map(str::to_owned), lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::COST;
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
