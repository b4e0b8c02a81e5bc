//! How claims are judged: each by its findings, and all tests of one table together.
//!
//! The tests of a table share the level of 5 % by Holm's procedure, once for what they support and once for what they refute: with
//! 95 % probability nothing is supported wrongly, and with 95 % nothing is refuted wrongly. A claim is supported where all its findings
//! are, and refuted where one is. The verdict is that at the lowest distance, which is how the field reports; choosing the best checkpoint
//! favours noisy methods, so the same is judged at the last step and said where it differs.

use super::comparison::{Compared, LEVEL, SEEDS, Test};
use crate::statistics::holm;

/// How a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The tests speak for it, everywhere it was made.
    Supported,
    /// A test speaks against it somewhere.
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

    fn of(findings: &[Option<bool>]) -> Self {
        if findings.contains(&Some(false)) {
            Self::Refuted
        } else if findings.is_empty() || findings.contains(&None) {
            Self::Undetermined
        } else {
            Self::Supported
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
    /// What the rows show, and what would decide where they do not, in one sentence for any reader.
    pub answer: String,
    /// What the rows show, a sentence each.
    pub evidence: Vec<String>,
    /// What is missing for a decision.
    pub missing: Option<String>,
}

/// A claim with what was found, before it is judged among others.
pub(super) struct Claim {
    pub(super) id: &'static str,
    pub(super) claim: &'static str,
    pub(super) test: &'static str,
    pub(super) findings: Vec<Finding>,
    /// What it takes to find anything.
    pub(super) takes: &'static str,
}

/// What was found in one place.
pub(super) struct Finding {
    /// Where.
    pub(super) place: String,
    /// What.
    pub(super) found: Found,
}

/// What was found.
pub(super) enum Found {
    /// Two series side by side.
    Compared(Box<Compared>),
    /// What needs no test, or what there is nothing to test of: how it stands, in words, and in a sentence.
    Plain(Option<bool>, String, String),
}

impl Finding {
    fn holds(&self) -> Option<bool> {
        match &self.found {
            Found::Compared(compared) => compared.best.as_ref()?.holds(),
            Found::Plain(holds, ..) => *holds,
        }
    }

    fn holds_at_the_end(&self) -> Option<bool> {
        match &self.found {
            Found::Compared(compared) => compared.last.as_ref().map_or_else(|| self.holds(), Test::holds),
            Found::Plain(..) => self.holds(),
        }
    }

    fn evidence(&self) -> String {
        match &self.found {
            Found::Compared(compared) => format!("{}: {}", self.place, compared.evidence()),
            Found::Plain(_, evidence, _) => format!("{}: {evidence}", self.place),
        }
    }

    fn answer(&self) -> String {
        match &self.found {
            Found::Compared(compared) => compared.answer(),
            Found::Plain(.., answer) => answer.clone(),
        }
    }

    fn test(&self) -> Option<&Test> {
        match &self.found {
            Found::Compared(compared) => compared.best.as_ref(),
            Found::Plain(..) => None,
        }
    }
}

/// Judges all claims of a table.
pub(super) fn judge(mut claims: Vec<Claim>) -> Vec<Judgement> {
    let compared = claims.iter_mut().flat_map(|c| &mut c.findings).filter_map(|f| match &mut f.found {
        Found::Compared(compared) => {
            let Compared { best, last, .. } = &mut **compared;
            Some((best.as_mut(), last.as_mut()))
        }
        Found::Plain(..) => None,
    });
    let (best, last): (Vec<_>, Vec<_>) = compared.unzip();
    adjust(best.into_iter().flatten().collect());
    adjust(last.into_iter().flatten().collect());
    claims.into_iter().map(judgement).collect()
}

/// Adjusts the p of all tests of a table at one evaluation.
fn adjust(mut tests: Vec<&mut Test>) {
    let level = LEVEL / tests.len() as f64;
    tests.iter_mut().for_each(|t| t.level = level);
    for side in 0..2 {
        let p: Vec<f64> = tests.iter().map(|t| t.p[side]).collect();
        tests.iter_mut().zip(holm(&p)).for_each(|(t, p)| t.adjusted[side] = p);
    }
}

fn judgement(Claim { id, claim, test, findings, takes }: Claim) -> Judgement {
    let verdict = Verdict::of(&findings.iter().map(Finding::holds).collect::<Vec<_>>());
    let at_the_end = Verdict::of(&findings.iter().map(Finding::holds_at_the_end).collect::<Vec<_>>());
    let mut evidence: Vec<String> = findings.iter().map(Finding::evidence).collect();
    if at_the_end != verdict {
        evidence.push(format!("At the last step the verdict is {}", at_the_end.word()));
    }
    let missing = (verdict == Verdict::Undetermined).then(|| missing(&findings, takes));
    Judgement { id, claim, test, verdict, answer: answer(&findings, verdict, takes), evidence, missing }
}

/// What an undetermined claim lacks.
fn missing(findings: &[Finding], takes: &str) -> String {
    let open = || findings.iter().filter(|f| f.holds().is_none());
    if findings.is_empty() {
        return takes.to_owned();
    }
    if open().any(|f| f.test().is_none()) {
        return format!("finished runs of {SEEDS} seeds at least, which vary");
    }
    match open().map(|f| f.test().and_then(Test::needed)).max_by_key(|n| n.unwrap_or(u64::MAX)).flatten() {
        Some(n) => format!("about {n} seeds of each method, if they go on as they do"),
        None => "a difference that fewer than 1000 seeds would show".to_owned(),
    }
}

/// The finding that the verdict hangs on, in a sentence.
fn answer(findings: &[Finding], verdict: Verdict, takes: &str) -> String {
    let wanted = match verdict {
        Verdict::Supported => Some(true),
        Verdict::Refuted => Some(false),
        Verdict::Undetermined => None,
    };
    let those: Vec<&Finding> = findings.iter().filter(|f| f.holds() == wanted).collect();
    let p = |f: &Finding, side: usize| f.test().map_or(0.0, |t| t.p[side]);
    let chosen = match verdict {
        Verdict::Refuted => those.iter().min_by(|a, b| p(a, 1).total_cmp(&p(b, 1))),
        _ => those.iter().max_by(|a, b| p(a, 0).total_cmp(&p(b, 0))),
    };
    let Some(finding) = chosen else { return format!("No runs say anything of it: it takes {takes}") };
    let (n, all) = (those.len(), findings.len());
    let lead = match verdict {
        _ if all == 1 => String::new(),
        Verdict::Supported => format!("For it: all {all} comparisons, the weakest in {}: ", finding.place),
        Verdict::Refuted => format!("Against it: {n} of {all} comparisons, the clearest in {}: ", finding.place),
        Verdict::Undetermined => format!("Open: {n} of {all} comparisons, such as in {}: ", finding.place),
    };
    lead + &finding.answer()
}
