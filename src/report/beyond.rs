//! Questions that the paper does not ask, judged as its claims are: against R1 and R2, and with them.

use super::claims::{Judgement, distances, place};
use super::runs::{Protocol, Run, protocols, runs};
use super::series::{Series, series};
use super::verdict::{Claim, Finding, Found, judge};
use crate::losses::Loss;
use crate::results::Row;
use crate::statistics::Hypothesis;

/// The baseline.
const R1R2: &str = "r1r2";

/// The questions at a scale; none where no run has R1 and R2.
pub fn questions(rows: &[Row], scale: &str) -> Vec<Judgement> {
    let rows: Vec<Row> = rows.iter().filter(|row| row.scale == scale).cloned().collect();
    if !rows.iter().any(|row| row.method.ends_with(R1R2)) {
        return Vec::new();
    }
    let protocols = protocols(&rows);
    let by_protocol: Vec<(&Protocol, Vec<Run>)> = protocols.iter().map(|p| (p, runs(&rows, p))).collect();
    judge(vec![against(&by_protocol), together(&by_protocol)])
}

/// Series of one protocol, each with those of the same network and settings.
fn matched<'a>(
    by_protocol: &'a [(&'a Protocol, Vec<Run>)],
    is_first: impl Fn(&Series) -> bool,
) -> Vec<(&'a Protocol, Series<'a>, Vec<Series<'a>>)> {
    let mut out = Vec::new();
    for (protocol, runs) in by_protocol {
        let all = series(runs);
        for a in all.iter().filter(|s| is_first(s)) {
            let same = |s: &&Series<'a>| s.comparable(a) && (&s.arch, &s.width) == (&a.arch, &a.width);
            out.push((*protocol, a.clone(), all.iter().filter(same).cloned().collect()));
        }
    }
    out
}

fn lower(protocol: &Protocol, a: &Series, b: &Series) -> Option<Finding> {
    let names = [a, b].map(|s| format!("{} ({})", s.method, s.loss));
    distances(protocol, Hypothesis::Below(0.0), names.each_ref().map(String::as_str), [a, b])
}

fn against(by_protocol: &[(&Protocol, Vec<Run>)]) -> Claim {
    let mut findings = Vec::new();
    for (protocol, pgn, others) in matched(by_protocol, |s| s.method == "pgn") {
        // R1 and R2 under their own loss are the baseline whatever the loss of the other.
        let is_fair = |s: &&Series| s.method == R1R2 && (s.loss == pgn.loss || s.loss == Loss::Relativistic.id());
        findings.extend(others.iter().filter(is_fair).filter_map(|r1r2| lower(protocol, &pgn, r1r2)));
    }
    Claim {
        id: "C7",
        claim: "PGN beats R1+R2 on the same networks and budget",
        test: "one-sided t test on the logarithm of the lowest FID, paired over shared seeds, else Welch's; Holm over the table",
        findings,
        takes: "runs of pgn and r1r2 of the same architecture (experiments/r3.yaml), 3 seeds each",
    }
}

fn together(by_protocol: &[(&Protocol, Vec<Run>)]) -> Claim {
    let mut findings = Vec::new();
    for (protocol, both, others) in matched(by_protocol, |s| ["gn+r1r2", "pgn+r1r2"].contains(&s.method.as_str())) {
        let alone = both.method.split('+').next().unwrap_or_default();
        for part in [alone, R1R2] {
            let found = others.iter().find(|s| s.loss == both.loss && s.method == part);
            let missing = || {
                let evidence = format!("no such runs of {part} beside {}", both.method);
                Finding { place: place(protocol, &both), found: Found::Plain(None, evidence.clone(), evidence) }
            };
            findings.push(found.and_then(|part| lower(protocol, &both, part)).unwrap_or_else(missing));
        }
    }
    Claim {
        id: "C8",
        claim: "Normalisation and R1+R2 add up: with both the FID is below that with either",
        test: "one-sided t tests on the logarithm of the lowest FID against each alone, paired over shared seeds, else Welch's; Holm over the table",
        findings,
        takes: "runs of gn+r1r2 or pgn+r1r2, of gn or pgn and of r1r2 of the same architecture (experiments/r3.yaml), 3 seeds each",
    }
}

#[cfg(test)]
mod tests {
    use super::super::claims::Verdict;
    use super::*;
    use crate::results::tests::row;

    fn rows(of: &[(&str, &str, [f64; 3])]) -> Vec<Row> {
        let mut rows = Vec::new();
        for (method, loss, values) in of {
            for (seed, value) in values.iter().enumerate() {
                let one = row(method, seed as u64, 100, "fid2k_train", *value);
                let [family, config_hash] = [format!("{method} {loss}"), format!("{method} {loss} {seed}")];
                rows.push(Row { loss: (*loss).into(), family, config_hash, status: "finished".into(), ..one });
            }
        }
        rows
    }

    #[test]
    fn r1_and_r2_are_compared_with_and_added_to() {
        let verdicts = |of: &[(&str, &str, [f64; 3])]| {
            questions(&rows(of), "smoke").into_iter().map(|j| (j.id, j.verdict, j.evidence.len())).collect::<Vec<_>>()
        };
        let low = [10.0, 10.5, 10.2];
        let high = [20.0, 20.4, 20.1];
        assert_eq!(verdicts(&[("pgn", "hinge", low)]), []);
        assert_eq!(
            verdicts(&[
                ("pgn", "hinge", low),
                ("pgn", "relativistic", high),
                ("r1r2", "relativistic", [30.0, 30.1, 30.7]),
                ("pgn+r1r2", "relativistic", [20.2, 20.3, 20.1]),
            ]),
            [("C7", Verdict::Supported, 2), ("C8", Verdict::Undetermined, 2)]
        );
        assert_eq!(
            verdicts(&[
                ("pgn", "relativistic", high),
                ("r1r2", "relativistic", low),
                ("r1r2", "hinge", [5.0, 5.1, 5.2]),
                ("gn", "relativistic", high),
                ("gn+r1r2", "relativistic", [1.0, 1.1, 1.2]),
            ]),
            [("C7", Verdict::Refuted, 1), ("C8", Verdict::Supported, 2)]
        );
        // Half of the comparison decides nothing.
        assert_eq!(
            verdicts(&[("r1r2", "relativistic", low), ("gn+r1r2", "relativistic", [1.0, 1.1, 1.2])])[1],
            ("C8", Verdict::Undetermined, 2)
        );
    }
}
