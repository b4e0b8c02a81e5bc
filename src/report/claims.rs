//! The paper's claims, judged from rows: each by a stated test, for each scale on its own.
//!
//! Comparisons of means are Welch's over seeds at 5 %. That two things are alike is judged by two one-sided tests (Schuirmann
//! 1987) with a margin of [`MARGIN`]: failing to see a difference is not evidence that there is none.

use std::collections::BTreeMap;

use super::runs::{Protocol, Run, Sample, Series, is_full, protocols, runs, series};
use crate::config::FULL;
use crate::results::Row;
use crate::statistics::Welch;

/// Level of every test.
const LEVEL: f64 = 0.05;
/// Two means within this share of the second are alike.
const MARGIN: f64 = 0.05;
/// Seeds below which nothing is judged.
const SEEDS: usize = 3;
/// What a normalised gradient must not exceed (section III of the paper: "bounded by 1").
const BOUND: f64 = 1.0;

/// How a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The test speaks for it, everywhere it was made.
    Supported,
    /// The test speaks against it somewhere.
    Refuted,
    /// The rows do not decide.
    Undetermined,
}

impl Verdict {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::Refuted => "refuted",
            Self::Undetermined => "undetermined",
        }
    }
}

/// A claim and how it stands at one scale.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Number, such as C2.
    pub id: &'static str,
    /// What the paper says.
    pub claim: &'static str,
    /// The test.
    pub test: &'static str,
    /// The verdict.
    pub verdict: Verdict,
    /// What the rows show, or what would decide, in one sentence for any reader.
    pub answer: String,
    /// What the rows show, a sentence each.
    pub evidence: Vec<String>,
    /// What is missing for a decision.
    pub missing: Option<String>,
}

/// The result of one test.
pub(super) struct Finding {
    pub(super) holds: Option<bool>,
    pub(super) evidence: String,
}

pub(super) fn judge([id, claim, test]: [&'static str; 3], findings: Vec<Finding>, nothing: &str) -> Judgement {
    let any = |of: Option<bool>| findings.iter().any(|f| f.holds == of);
    let verdict = match (any(Some(false)), any(Some(true)), any(None)) {
        (true, _, _) => Verdict::Refuted,
        (false, true, false) => Verdict::Supported,
        _ => Verdict::Undetermined,
    };
    let missing = (verdict == Verdict::Undetermined).then(|| {
        if findings.is_empty() {
            nothing.to_owned()
        } else {
            "finished runs of three seeds at least that differ by more than the noise".to_owned()
        }
    });
    let evidence: Vec<String> = findings.into_iter().map(|f| f.evidence).collect();
    let answer = evidence.first().or(missing.as_ref()).cloned().unwrap_or_default();
    Judgement { id, claim, test, verdict, answer, evidence, missing }
}

/// The paper's claims at a scale.
pub fn judgements(rows: &[Row], scale: &str) -> Vec<Judgement> {
    let rows: Vec<Row> =
        rows.iter().filter(|r| r.scale == scale && (scale != FULL || is_full(&r.experiment, scale))).cloned().collect();
    let protocols = protocols(&rows);
    let by_protocol: Vec<(&Protocol, Vec<Run>)> = protocols.iter().map(|p| (p, runs(&rows, p))).collect();
    vec![
        bounded(&rows),
        better(&by_protocol),
        consistency(&by_protocol),
        cheap(&by_protocol),
        losses(&by_protocol),
        conditional(&by_protocol),
    ]
}

/// C1 from what `probe` measured.
fn bounded(rows: &[Row]) -> Judgement {
    let mut steepest: BTreeMap<(&str, &str, &str), (f64, &str, u64)> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.metric.starts_with("gradient_max_")) {
        let entry = steepest.entry((&row.dataset, &row.arch, &row.method)).or_insert((f64::NEG_INFINITY, "", 0));
        if row.value.total_cmp(&entry.0).is_gt() {
            *entry = (row.value, &row.metric["gradient_max_".len()..], row.n);
        }
    }
    let findings = steepest
        .iter()
        .filter(|((_, _, method), _)| *method == "pgn")
        .map(|((dataset, arch, _), (value, on, n))| {
            let others: Vec<String> = steepest
                .iter()
                .filter(|((d, a, m), _)| d == dataset && a == arch && *m != "pgn")
                .map(|((_, _, m), (v, ..))| format!("{m} {v:.3}"))
                .collect();
            let beside = if others.is_empty() { String::new() } else { format!("; beside it {}", others.join(", ")) };
            Finding {
                holds: value.is_finite().then_some(*value <= BOUND),
                evidence: format!(
                    "{dataset}, {arch}: largest ‖∇f̂‖ of pgn {value:.3} (on {on} images, {n} of each set){beside}"
                ),
            }
        })
        .collect();
    judge(
        [
            "C1",
            "PGN's normalised gradient is bounded (by 1)",
            "largest ‖∇f̂‖ that the probe measured on any set of images",
        ],
        findings,
        "probe rows, which pgn-bench probe RUN leaves beside the run's",
    )
}

/// Pairs of series of one protocol, architecture, width and loss that `pick` calls first and second, and whose runs had
/// the same settings and have all ended after the same evaluations.
fn pairs<'a>(
    by_protocol: &'a [(&'a Protocol, Vec<Run>)],
    pick: impl Fn(&Series) -> (bool, bool),
) -> Vec<(&'a Protocol, Series<'a>, Series<'a>)> {
    let mut out = Vec::new();
    for (protocol, runs) in by_protocol {
        let all = series(runs);
        for a in all.iter().filter(|s| pick(s).0) {
            for b in all
                .iter()
                .filter(|s| s.comparable(a))
                .filter(|s| pick(s).1 && (&s.arch, &s.width, &s.loss) == (&a.arch, &a.width, &a.loss))
            {
                out.push((*protocol, a.clone(), b.clone()));
            }
        }
    }
    out
}

pub(super) fn place(protocol: &Protocol, series: &Series) -> String {
    format!("{}, {} ({})", protocol.dataset, series.arch, protocol.weights)
}

/// Two samples in words and Welch's comparison of them, or why there is none.
fn compared(
    place: &str,
    what: &str,
    names: [&str; 2],
    a: &Sample,
    b: &Sample,
) -> std::result::Result<(String, Welch), Finding> {
    let one = |name: &str, s: &Sample| format!("{name} {} (n {})", s.show(2), s.0.len());
    let shown = format!("{place}: {what} {}, {}", one(names[0], a), one(names[1], b));
    if a.0.len() < SEEDS || b.0.len() < SEEDS {
        return Err(Finding { holds: None, evidence: format!("{shown}; fewer than {SEEDS} seeds") });
    }
    Welch::new(&a.0, &b.0).map_or_else(
        || Err(Finding { holds: None, evidence: format!("{shown}; no variance to compare by") }),
        |welch| Ok((shown.clone(), welch)),
    )
}

/// True where the test says so, false where it says the opposite.
fn decide(p: f64) -> Option<bool> {
    if p < LEVEL {
        Some(true)
    } else if 1.0 - p < LEVEL {
        Some(false)
    } else {
        None
    }
}

/// Whether the first is below the second.
pub(super) fn below(place: &str, what: &str, names: [&str; 2], a: &Sample, b: &Sample) -> Finding {
    match compared(place, what, names, a, b) {
        Ok((shown, welch)) => {
            let p = welch.p_below(0.0);
            Finding { holds: decide(p), evidence: format!("{shown}; one-sided p = {p:.3}") }
        }
        Err(finding) => finding,
    }
}

/// Whether two means are alike within the margin.
fn equal(place: &str, names: [&str; 2], a: &Sample, b: &Sample) -> Finding {
    let (shown, welch) = match compared(place, "FID", names, a, b) {
        Ok(found) => found,
        Err(finding) => return finding,
    };
    let margin = MARGIN * b.mean();
    let p = (1.0 - welch.p_below(-margin)).max(welch.p_below(margin));
    let differ = 2.0 * welch.p_below(0.0).min(1.0 - welch.p_below(0.0));
    let holds = if p < LEVEL {
        Some(true)
    } else if differ < LEVEL && welch.difference.abs() > margin {
        Some(false)
    } else {
        None
    };
    Finding { holds, evidence: format!("{shown}; alike within {margin:.2}: p = {p:.3}; different: p = {differ:.3}") }
}

fn better(by_protocol: &[(&Protocol, Vec<Run>)]) -> Judgement {
    let mut findings = Vec::new();
    for (protocol, pgn, gn) in pairs(by_protocol, |s| (s.method == "pgn", s.method == "gn")) {
        let place = place(protocol, &pgn);
        if let (Some(a), Some(b)) = (pgn.best_fid(), gn.best_fid()) {
            findings.push(below(&place, "FID", [&pgn.label, &gn.label], &a, &b));
        }
        if let (Some(a), Some(b)) = (pgn.best_score(), gn.best_score()) {
            findings.push(below(&place, "IS", [&gn.label, &pgn.label], &b, &a));
        }
    }
    judge(
        [
            "C2",
            "PGN beats GN on FID and IS with the same architecture",
            "one-sided Welch test over seeds on the lowest FID and the IS beside it",
        ],
        findings,
        "runs of pgn and gn of the same architecture with 3 seeds each",
    )
}

fn consistency(by_protocol: &[(&Protocol, Vec<Run>)]) -> Judgement {
    let pairs = pairs(by_protocol, |s| (s.method == "pgn+cr", s.method == "pgn"));
    let findings = pairs.into_iter().filter_map(|(protocol, a, b)| {
        Some(equal(&place(protocol, &a), [&a.label, &b.label], &a.best_fid()?, &b.best_fid()?))
    });
    judge(
        [
            "C3",
            "PGN without CR is about as good as with CR",
            "two one-sided Welch tests on the lowest FID over seeds, margin 5 %",
        ],
        findings.collect(),
        "runs of pgn and pgn+cr of the same architecture with 3 seeds each",
    )
}

fn cheap(by_protocol: &[(&Protocol, Vec<Run>)]) -> Judgement {
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for (protocol, pgn, gn) in pairs(by_protocol, |s| (s.method == "pgn", s.method == "gn")) {
        // A run costs the same under each of its protocols.
        let here = (protocol.experiment.clone(), pgn.family.clone(), gn.family.clone());
        if seen.contains(&here) || pgn.devices() != gn.devices() {
            continue;
        }
        seen.push(here);
        let log = |s: &Series| Sample::of(&s.runs, |r| r.cost.map(f64::ln));
        let (Some(a), Some(b)) = (log(&pgn), log(&gn)) else { continue };
        let ratio = (a.mean() - b.mean()).exp();
        let shown = format!(
            "{}, {}: s/step of pgn over gn {ratio:.3} (n {} and {})",
            protocol.dataset,
            pgn.arch,
            a.0.len(),
            b.0.len()
        );
        let (holds, evidence) = match Welch::new(&a.0, &b.0) {
            Some(welch) if a.0.len() >= SEEDS && b.0.len() >= SEEDS => {
                let p = welch.p_below(MARGIN.ln_1p());
                (decide(p), format!("{shown}; at most 5 % more: p = {p:.3}"))
            }
            _ => (None, format!("{shown}; fewer than {SEEDS} seeds, or no variance")),
        };
        findings.push(Finding { holds, evidence });
    }
    judge(
        [
            "C4",
            "PGN costs no more than GN",
            "one-sided Welch test over seeds on the logarithm of seconds a step, margin 5 %",
        ],
        findings,
        "runs of pgn and gn of the same architecture with 3 seeds each",
    )
}

fn losses(by_protocol: &[(&Protocol, Vec<Run>)]) -> Judgement {
    let mut findings = Vec::new();
    for (protocol, runs) in by_protocol {
        let all = series(runs);
        let of = |loss: &'static str| all.iter().filter(move |s| s.method == "pgn" && s.loss == loss);
        for hinge in of("hinge") {
            for bce in
                of("bce").filter(|s| s.comparable(hinge)).filter(|s| (&s.arch, &s.width) == (&hinge.arch, &hinge.width))
            {
                if let (Some(a), Some(b)) = (hinge.best_fid(), bce.best_fid()) {
                    findings.push(equal(&place(protocol, hinge), ["hinge", "bce"], &a, &b));
                }
            }
        }
    }
    judge(
        [
            "C5",
            "The choice of hinge or non-saturating loss hardly matters",
            "two one-sided Welch tests on the lowest FID of pgn over seeds, margin 5 %",
        ],
        findings,
        "runs of pgn with loss hinge and with loss bce (--set train.loss=bce, and another -o below the same folder), 3 seeds each",
    )
}

fn conditional(by_protocol: &[(&Protocol, Vec<Run>)]) -> Judgement {
    let mut findings = Vec::new();
    for (protocol, pgn, cr) in
        pairs(by_protocol, |s| (s.arch == "biggan32" && s.method == "pgn", s.arch == "biggan32" && s.method == "sn+cr"))
    {
        if let (Some(a), Some(b)) = (pgn.best_fid(), cr.best_fid()) {
            findings.push(below(&place(protocol, &pgn), "FID", [&pgn.label, &cr.label], &a, &b));
        }
    }
    judge(
        [
            "C6",
            "BigGAN with PGN beats BigGAN with CR",
            "one-sided Welch test over seeds on the lowest FID of conditional CIFAR-10",
        ],
        findings,
        "runs of biggan32 with pgn and sn+cr (experiments/cifar10-conditional.yaml), 3 seeds each",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::COST;
    use crate::results::tests::row;

    fn seeds(method: &str, values: [f64; 3], metric: &str) -> Vec<Row> {
        (0..3).map(|s| row(method, s, 100, metric, values[s as usize])).collect()
    }

    fn verdict(rows: &[Row], id: &str) -> Verdict {
        judgements(rows, "smoke").into_iter().find(|j| j.id == id).unwrap().verdict
    }

    #[test]
    fn verdicts_follow_the_tests() {
        let fid = |pgn, gn| [seeds("pgn", pgn, "fid2k_train"), seeds("gn", gn, "fid2k_train")].concat();
        assert_eq!(verdict(&fid([10.0, 10.2, 10.1], [12.0, 12.1, 12.2]), "C2"), Verdict::Supported);
        assert_eq!(verdict(&fid([12.0, 12.1, 12.2], [10.0, 10.2, 10.1]), "C2"), Verdict::Refuted);
        assert_eq!(verdict(&fid([10.0, 14.0, 12.0], [10.1, 13.9, 12.2]), "C2"), Verdict::Undetermined);
        assert!(judgements(&[], "smoke").iter().all(|j| j.verdict == Verdict::Undetermined && j.missing.is_some()));

        let cr =
            [seeds("pgn", [100.0, 100.5, 100.2], "fid2k_train"), seeds("pgn+cr", [100.3, 100.1, 100.6], "fid2k_train")];
        assert_eq!(verdict(&cr.concat(), "C3"), Verdict::Supported);
        let cr =
            [seeds("pgn", [100.0, 100.5, 100.2], "fid2k_train"), seeds("pgn+cr", [80.3, 80.1, 80.6], "fid2k_train")];
        assert_eq!(verdict(&cr.concat(), "C3"), Verdict::Refuted);

        let mut rows = fid([1.0, 1.1, 1.2], [1.0, 1.1, 1.2]);
        rows.extend([seeds("pgn", [0.501, 0.502, 0.5], COST), seeds("gn", [0.5, 0.499, 0.501], COST)].concat());
        assert_eq!(verdict(&rows, "C4"), Verdict::Supported);

        // What is not alike in the rest is not compared.
        let with = |change: fn(&mut Row)| {
            let mut rows = rows.clone();
            rows.iter_mut().filter(|r| r.method == "pgn").for_each(change);
            rows
        };
        assert_eq!(verdict(&with(|r| r.settings = "other".into()), "C4"), Verdict::Undetermined);
        assert_eq!(verdict(&with(|r| r.device = "cuda f32".into()), "C4"), Verdict::Undetermined);

        let probe =
            |max| vec![row("pgn", 0, 100, "gradient_max_real", 0.4), row("pgn", 0, 100, "gradient_max_mixed", max)];
        assert_eq!(verdict(&probe(0.9), "C1"), Verdict::Supported);
        assert_eq!(verdict(&probe(1.2), "C1"), Verdict::Refuted);
    }
}
