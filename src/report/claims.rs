//! The paper's claims, asked of rows, for each scale on its own.
//!
//! `comparison` says which test decides, `verdict` how many tests together are judged. That two things are alike is judged by two one-sided
//! tests (Schuirmann 1987) with a margin of [`MARGIN`]: failing to see a difference is not evidence that there is none.

use std::collections::BTreeMap;

use super::comparison::{Compared, Number, Question};
use super::runs::{Protocol, Run, is_full, protocols, runs};
use super::series::{Series, series};
use super::verdict::{Claim, Finding, Found, judge};
pub use super::verdict::{Judgement, Verdict};
use crate::config::FULL;
use crate::results::Row;
use crate::statistics::Hypothesis;

/// Two numbers are alike whose ratio is within this share of 1, or the inverse of that.
const MARGIN: f64 = 0.05;
/// What a normalised gradient must not exceed (section III of the paper: "bounded by 1").
const BOUND: f64 = 1.0;

/// The paper's claims at a scale.
pub fn judgements(rows: &[Row], scale: &str) -> Vec<Judgement> {
    let rows: Vec<Row> =
        rows.iter().filter(|r| r.scale == scale && (scale != FULL || is_full(&r.experiment, scale))).cloned().collect();
    let protocols = protocols(&rows);
    let by_protocol: Vec<(&Protocol, Vec<Run>)> = protocols.iter().map(|p| (p, runs(&rows, p))).collect();
    judge(vec![
        bounded(&rows),
        better(&by_protocol),
        consistency(&by_protocol),
        cheap(&by_protocol),
        losses(&by_protocol),
        conditional(&by_protocol),
    ])
}

/// C1 from what `probe` measured.
fn bounded(rows: &[Row]) -> Claim {
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
            let evidence = format!("largest ‖∇f̂‖ of pgn {value:.3} (on {on} images, {n} of each set){beside}");
            let answer = format!("pgn's largest gradient norm is {value:.3}, and the bound {BOUND}");
            let found = Found::Plain(value.is_finite().then_some(*value <= BOUND), evidence, answer);
            Finding { place: format!("{dataset}, {arch}"), found }
        })
        .collect();
    Claim {
        id: "C1",
        claim: "PGN's normalised gradient is bounded (by 1)",
        test: "largest ‖∇f̂‖ that the probe measured on any set of images",
        findings,
        takes: "probe rows, which pgn-bench probe RUN leaves beside the run's",
    }
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

/// A comparison of two series, where both have the number.
fn compare(place: String, question: &Question, pair: [&Series; 2]) -> Option<Finding> {
    let found = Found::Compared(Box::new(Compared::new(question, pair)?));
    Some(Finding { place, found })
}

/// Whether the Fréchet distance of the first is to that of the second as the hypothesis has it.
pub(super) fn distances(
    protocol: &Protocol,
    hypothesis: Hypothesis,
    names: [&str; 2],
    pair: [&Series; 2],
) -> Option<Finding> {
    let question = Question { number: Number::Distance, what: protocol.distance(), hypothesis, names };
    compare(place(protocol, pair[0]), &question, pair)
}

fn better(by_protocol: &[(&Protocol, Vec<Run>)]) -> Claim {
    let mut findings = Vec::new();
    for (protocol, pgn, gn) in pairs(by_protocol, |s| (s.method == "pgn", s.method == "gn")) {
        let (names, pair) = ([pgn.label.as_str(), gn.label.as_str()], [&pgn, &gn]);
        findings.extend(distances(protocol, Hypothesis::Below(0.0), names, pair));
        let higher = Question { number: Number::Score, what: "IS", hypothesis: Hypothesis::Above(0.0), names };
        findings.extend(compare(place(protocol, &pgn), &higher, pair));
    }
    Claim {
        id: "C2",
        claim: "PGN beats GN on FID and IS with the same architecture",
        test: "one-sided t tests on the logarithms of the lowest FID and of the IS beside it, paired over shared seeds, else Welch's; Holm over the table",
        findings,
        takes: "runs of pgn and gn of the same architecture with 3 seeds each",
    }
}

/// That two numbers are alike within the margin.
fn alike() -> Hypothesis {
    Hypothesis::Within(MARGIN.ln_1p())
}

fn consistency(by_protocol: &[(&Protocol, Vec<Run>)]) -> Claim {
    let pairs = pairs(by_protocol, |s| (s.method == "pgn+cr", s.method == "pgn"));
    let findings = pairs.iter().filter_map(|(p, a, b)| distances(p, alike(), [&a.label, &b.label], [a, b]));
    Claim {
        id: "C3",
        claim: "PGN without CR is about as good as with CR",
        test: "two one-sided t tests on the logarithm of the lowest FID, margin 5 %, paired over shared seeds, else Welch's; Holm over the table",
        findings: findings.collect(),
        takes: "runs of pgn and pgn+cr of the same architecture with 3 seeds each",
    }
}

fn cheap(by_protocol: &[(&Protocol, Vec<Run>)]) -> Claim {
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for (protocol, pgn, gn) in pairs(by_protocol, |s| (s.method == "pgn", s.method == "gn")) {
        // A run costs the same under each of its protocols.
        let here = (protocol.experiment.clone(), pgn.family.clone(), gn.family.clone());
        if seen.contains(&here) || pgn.devices() != gn.devices() {
            continue;
        }
        seen.push(here);
        let question = Question {
            number: Number::Cost,
            what: "time a step",
            hypothesis: Hypothesis::Below(MARGIN.ln_1p()),
            names: [&pgn.label, &gn.label],
        };
        let place = format!("{}, {}", protocol.dataset, pgn.arch);
        findings.extend(compare(place, &question, [&pgn, &gn]));
    }
    Claim {
        id: "C4",
        claim: "PGN costs no more than GN",
        test: "one-sided Welch test on the logarithm of seconds a step, margin 5 %; Holm over the table",
        findings,
        takes: "runs of pgn and gn of the same architecture with 3 seeds each",
    }
}

fn losses(by_protocol: &[(&Protocol, Vec<Run>)]) -> Claim {
    let mut findings = Vec::new();
    for (protocol, runs) in by_protocol {
        let all = series(runs);
        let of = |loss: &'static str| all.iter().filter(move |s| s.method == "pgn" && s.loss == loss);
        for hinge in of("hinge") {
            let same = |s: &&Series| s.comparable(hinge) && (&s.arch, &s.width) == (&hinge.arch, &hinge.width);
            let found = |bce| distances(protocol, alike(), ["hinge", "bce"], [hinge, bce]);
            findings.extend(of("bce").filter(same).filter_map(found));
        }
    }
    Claim {
        id: "C5",
        claim: "The choice of hinge or non-saturating loss hardly matters",
        test: "two one-sided t tests on the logarithm of pgn's lowest FID, margin 5 %, paired over shared seeds, else Welch's; Holm over the table",
        findings,
        takes: "runs of pgn with loss hinge and with loss bce (--set train.loss=bce, and another -o below the same folder), 3 seeds each",
    }
}

fn conditional(by_protocol: &[(&Protocol, Vec<Run>)]) -> Claim {
    let pairs = pairs(by_protocol, |s| {
        (s.arch == "biggan32" && s.method == "pgn", s.arch == "biggan32" && s.method == "sn+cr")
    });
    let below = Hypothesis::Below(0.0);
    let findings = pairs.iter().filter_map(|(p, pgn, cr)| distances(p, below, [&pgn.label, &cr.label], [pgn, cr]));
    Claim {
        id: "C6",
        claim: "BigGAN with PGN beats BigGAN with CR",
        test: "one-sided t test on the logarithm of the lowest FID of conditional CIFAR-10, paired over shared seeds, else Welch's; Holm over the table",
        findings: findings.collect(),
        takes: "runs of biggan32 with pgn and sn+cr (experiments/cifar10-conditional.yaml), 3 seeds each",
    }
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

        // What is below 5 % of one test is not of two.
        let narrow = fid([10.0, 11.0, 12.0], [10.5, 11.8, 13.6]);
        assert_eq!(verdict(&narrow, "C2"), Verdict::Supported);
        let scores = [seeds("pgn", [10.5, 11.8, 13.6], "is2k"), seeds("gn", [10.0, 11.0, 12.0], "is2k")].concat();
        assert_eq!(verdict(&[narrow, scores].concat(), "C2"), Verdict::Undetermined);

        let probe =
            |max| vec![row("pgn", 0, 100, "gradient_max_real", 0.4), row("pgn", 0, 100, "gradient_max_mixed", max)];
        assert_eq!(verdict(&probe(0.9), "C1"), Verdict::Supported);
        assert_eq!(verdict(&probe(1.2), "C1"), Verdict::Refuted);
    }

    #[test]
    fn words_have_the_numbers_of_scipy_and_statsmodels() {
        // tests/peer/comparisons.py, claims.
        let fid = |pgn, gn| [seeds("pgn", pgn, "fid2k_train"), seeds("gn", gn, "fid2k_train")].concat();
        let of = |rows: &[Row]| judgements(rows, "smoke").into_iter().find(|j| j.id == "C2").unwrap();
        let apart = of(&fid([10.0, 10.2, 10.1], [12.0, 12.1, 12.2]));
        assert_eq!(apart.answer, "pgn's FID is 0.835× gn's (0.816–0.854, paired over 3 seeds)");
        assert_eq!(
            apart.evidence,
            [
                "shapes, cnn32 (raw): FID pgn 10.10 ± 0.10 (n 3), gn 12.10 ± 0.10 (n 3); ratio 0.835 (0.816 to 0.854, paired over 3 \
              seeds), below 1.00: p < 0.001, Holm's p < 0.001, Welch's p < 0.001"
            ]
        );
        let open = of(&fid([10.0, 14.0, 12.0], [10.1, 13.9, 12.2]));
        assert_eq!(
            open.answer,
            "pgn's FID is 0.994× gn's (0.964–1.024, paired over 3 seeds): not decided; it would take about 24 seeds to decide, were \
             this the true ratio"
        );
        assert_eq!(
            open.evidence,
            [
                "shapes, cnn32 (raw): FID pgn 12.00 ± 2.00 (n 3), gn 12.07 ± 1.90 (n 3); ratio 0.994 (0.964 to 1.024, paired over 3 \
              seeds), below 1.00: p = 0.229, Holm's p = 0.229, Welch's p = 0.482; with 80 % power these seeds could show a ratio of \
              0.972 or less; it would take about 24 seeds to decide, were this the true ratio"
            ]
        );
        assert_eq!(open.missing.unwrap(), "about 24 seeds of each method, if they go on as they do");
        // Of several the weakest is told.
        let scores = [seeds("pgn", [3.0, 3.1, 3.3], "is2k"), seeds("gn", [2.0, 2.1, 2.0], "is2k")].concat();
        let two = of(&[fid([10.0, 10.2, 10.1], [12.0, 12.1, 12.2]), scores].concat());
        let start = "For it: all 2 comparisons, the weakest in shapes, cnn32 (raw): pgn's IS is 1.5";
        assert!(two.answer.starts_with(start), "{}", two.answer);
        assert_eq!(
            of(&[]).answer,
            "No runs say anything of it: it takes runs of pgn and gn of the same architecture with 3 seeds each"
        );
        // Other seeds are no pairs.
        let mut rows = fid([10.0, 11.0, 12.0], [10.5, 11.8, 13.6]);
        rows.iter_mut().filter(|r| r.method == "gn").for_each(|r| r.seed += 1);
        let unpaired = of(&rows);
        assert!(
            unpaired.evidence[0].contains("3 and 3 runs unpaired), below 1.00: p = 0.215, Holm's p = 0.215"),
            "{unpaired:?}"
        );
    }

    #[test]
    fn the_last_step_is_judged_beside_the_lowest_distance() {
        let mut rows =
            [seeds("pgn", [10.0, 10.2, 10.1], "fid2k_train"), seeds("gn", [12.0, 12.1, 12.2], "fid2k_train")].concat();
        rows.iter_mut().for_each(|r| r.step = 50);
        rows.extend(
            [seeds("pgn", [10.0, 14.0, 12.0], "fid2k_train"), seeds("gn", [10.1, 13.9, 12.2], "fid2k_train")].concat(),
        );
        rows.iter_mut().filter(|r| r.step == 100).for_each(|r| r.value += 20.0);
        let judged = judgements(&rows, "smoke").into_iter().find(|j| j.id == "C2").unwrap();
        assert_eq!((judged.verdict, judged.evidence.len()), (Verdict::Supported, 2));
        assert!(judged.evidence[0].contains("; at the last step undecided: ratio 0.99"), "{judged:?}");
        assert_eq!(judged.evidence[1], "At the last step the verdict is undetermined");
    }
}
