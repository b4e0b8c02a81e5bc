//! A number of two series compared over seeds.
//!
//! Numbers are compared by their logarithms, so a comparison is of a ratio: distances are positive, their noise grows with them, and
//! 5 % less means the same at 10 as at 40. A seed gives the runs of every method the same images in the same order and the same latents. So
//! **where both series have the same seeds, the paired t test decides**, and where they have not, Welch's: which of them is settled by the
//! design and never by what they show. Welch's p stands beside the paired one. Time is no matter of seeds, and always Welch's.

use std::collections::BTreeMap;

use super::markdown::significant;
use super::runs::{Point, Run};
use super::series::{Sample, Series};
use crate::statistics::{Comparison, Hypothesis};

/// Level of all tests of a table together, for each of two errors: to support what is wrong, and to refute what is right.
pub(super) const LEVEL: f64 = 0.05;
/// Seeds below which nothing is judged.
pub(super) const SEEDS: usize = 3;
/// How sure an interval is.
const CONFIDENCE: f64 = 0.95;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// The Fréchet distance.
    Distance,
    /// The Inception Score beside it.
    Score,
    /// Seconds of training a step.
    Cost,
}

impl Number {
    fn of(self, run: &Run, at: &Point) -> Option<f64> {
        match self {
            Self::Distance => Some(at.fid),
            Self::Score => at.score.map(|s| s.0),
            Self::Cost => run.cost,
        }
    }

    /// Of each seed at the evaluation of lowest distance, or at the last one.
    fn by_seed(self, series: &Series, is_last: bool) -> BTreeMap<u64, f64> {
        let at = |r: &Run| self.of(r, if is_last { r.last() } else { r.best() });
        series.runs.iter().filter_map(|r| Some((r.seed, at(r)?))).collect()
    }
}

/// What is asked of two series: whether the ratio of the first one's number to the second one's is as the hypothesis has it.
pub(super) struct Question<'a> {
    /// What is compared.
    pub(super) number: Number,
    /// Its name, such as FID.
    pub(super) what: &'a str,
    /// Of the logarithm of the ratio.
    pub(super) hypothesis: Hypothesis,
    /// What the series are called.
    pub(super) names: [&'a str; 2],
}

/// Two series beside each other, and the tests that there are of them.
pub(super) struct Compared {
    /// Means and deviations in words.
    pub(super) shown: String,
    /// Start of a sentence about the ratio, such as `pgn's FID is {}× gn's`, in two parts.
    subject: [String; 2],
    /// The ratio of means, where there is no test.
    ratio: f64,
    /// Fewest seeds on a side.
    seeds: usize,
    /// At the lowest distance.
    pub(super) best: Option<Test>,
    /// At the last step, where the number is another one there.
    pub(super) last: Option<Test>,
}

impl Compared {
    /// None where one of the series has no such number.
    pub(super) fn new(question: &Question, [a, b]: [&Series; 2]) -> Option<Self> {
        let Question { number, what, names, hypothesis } = question;
        let samples = |is_last: bool| [a, b].map(|s| number.by_seed(s, is_last));
        let best = samples(false);
        let values = best.each_ref().map(|s| Sample(s.values().copied().collect()));
        if values.iter().any(|v| v.0.is_empty()) {
            return None;
        }
        let digits = if *number == Number::Cost { 4 } else { 2 };
        let one = |i: usize| format!("{} {} (n {})", names[i], values[i].show(digits), values[i].0.len());
        let is_paired = *number != Number::Cost;
        Some(Self {
            shown: format!("{what} {}, {}", one(0), one(1)),
            subject: [format!("{}'s {what} is ", names[0]), format!("× {}'s", names[1])],
            ratio: values[0].mean() / values[1].mean(),
            seeds: values[0].0.len().min(values[1].0.len()),
            best: Test::new(*hypothesis, &best, is_paired),
            last: Test::new(*hypothesis, &samples(true), is_paired).filter(|_| *number != Number::Cost),
        })
    }

    /// The whole as evidence.
    pub(super) fn evidence(&self) -> String {
        let Some(test) = &self.best else { return format!("{}; {}", self.shown, self.why_untested()) };
        let mut text = format!("{}; {}", self.shown, test.describe());
        if test.holds().is_none() {
            text.push_str(&format!("; {}", test.outlook()));
        }
        if let Some(last) = self.last.as_ref().filter(|last| last.holds() != test.holds()) {
            let word = match last.holds() {
                Some(true) => "for it",
                Some(false) => "against it",
                None => "undecided",
            };
            text.push_str(&format!("; at the last step {word}: {}", last.describe()));
        }
        text
    }

    /// The whole in one sentence.
    pub(super) fn answer(&self) -> String {
        let [subject, object] = &self.subject;
        let Some(test) = &self.best else {
            return format!("{subject}{}{object}; {}", ratio(self.ratio), self.why_untested());
        };
        let [low, high] = test.interval();
        let shown = format!("{subject}{}{object} ({low}–{high}, {})", test.ratio(), test.design());
        match test.holds() {
            Some(_) => shown,
            None => format!("{shown}: not decided; {}", test.would_decide()),
        }
    }

    fn why_untested(&self) -> String {
        if self.seeds < SEEDS { format!("fewer than {SEEDS} seeds") } else { "no variance to compare by".to_owned() }
    }
}

/// A test, which is judged among others.
pub(super) struct Test {
    hypothesis: Hypothesis,
    comparison: Comparison,
    /// Welch's, beside a paired one.
    beside: Option<Comparison>,
    seeds: [usize; 2],
    /// p for and p against.
    pub(super) p: [f64; 2],
    /// The same among all tests of the table (Holm).
    pub(super) adjusted: [f64; 2],
    /// Share of [`LEVEL`] that every test of the table may take.
    pub(super) level: f64,
}

impl Test {
    /// None of fewer than [`SEEDS`] seeds, of values without logarithms, or of values that do not vary.
    fn new(hypothesis: Hypothesis, samples: &[BTreeMap<u64, f64>; 2], is_paired: bool) -> Option<Self> {
        let logarithms = samples.each_ref().map(|s| s.values().map(|v| v.ln()).collect::<Vec<f64>>());
        let seeds = logarithms.each_ref().map(Vec::len);
        if seeds.iter().any(|n| *n < SEEDS) || logarithms.iter().flatten().any(|v| !v.is_finite()) {
            return None;
        }
        let [a, b] = &logarithms;
        let welch = Comparison::welch(a, b);
        let (comparison, beside) = if is_paired && samples[0].keys().eq(samples[1].keys()) {
            (Comparison::paired(a, b)?, welch)
        } else {
            (welch?, None)
        };
        let p = hypothesis.p(&comparison);
        Some(Self { hypothesis, comparison, beside, seeds, p, adjusted: p, level: LEVEL })
    }

    /// True where it speaks for the hypothesis among all tests, false where against it.
    pub(super) fn holds(&self) -> Option<bool> {
        match self.adjusted.map(|p| p < LEVEL) {
            [true, _] => Some(true),
            [false, true] => Some(false),
            [false, false] => None,
        }
    }

    fn ratio(&self) -> String {
        ratio(self.comparison.difference.exp())
    }

    fn interval(&self) -> [String; 2] {
        self.comparison.interval(CONFIDENCE).map(|end| ratio(end.exp()))
    }

    fn design(&self) -> String {
        match (&self.beside, self.seeds) {
            (Some(_), [n, _]) => format!("paired over {n} seeds"),
            (None, [a, b]) => format!("{a} and {b} runs unpaired"),
        }
    }

    /// Ratio, interval and the smaller of the two p.
    fn describe(&self) -> String {
        let side = usize::from(self.p[1] < self.p[0]);
        let (Hypothesis::Below(bound) | Hypothesis::Above(bound) | Hypothesis::Within(bound)) = self.hypothesis;
        let of = match (self.hypothesis, side) {
            (Hypothesis::Below(_), 0) | (Hypothesis::Above(_), 1) => "below",
            (Hypothesis::Below(_) | Hypothesis::Above(_), _) => "above",
            (Hypothesis::Within(_), 0) => "alike within a factor of",
            (Hypothesis::Within(_), _) => "apart by more than a factor of",
        };
        let of = format!("{of} {}", significant(bound.exp(), 3));
        let [low, high] = self.interval();
        let mut text = format!(
            "ratio {} ({low} to {high}, {}), {of}: {}, {}",
            self.ratio(),
            self.design(),
            probability("p", self.p[side]),
            probability("Holm's p", self.adjusted[side])
        );
        if let Some(welch) = &self.beside {
            text.push_str(&format!(", {}", probability("Welch's p", self.hypothesis.p(welch)[side])));
        }
        text
    }

    /// What so many seeds could have shown, and how many would show what is seen.
    fn outlook(&self) -> String {
        let least = ratio(self.hypothesis.detectable(&self.comparison, self.level).exp());
        let shows = match self.hypothesis {
            Hypothesis::Below(_) => format!("a ratio of {least} or less"),
            Hypothesis::Above(_) => format!("a ratio of {least} or more"),
            Hypothesis::Within(_) => format!("that two are alike within a factor of {least}"),
        };
        format!("with 80 % power these seeds could show {shows}; {}", self.would_decide())
    }

    fn would_decide(&self) -> String {
        let seeds = self.needed().map_or_else(|| "more than 1000".to_owned(), |n| format!("about {n}"));
        format!("it would take {seeds} seeds to decide, were this the true ratio")
    }

    /// Seeds on either side that would decide, up to 1,000.
    pub(super) fn needed(&self) -> Option<u64> {
        self.hypothesis.values_needed(&self.comparison, self.level)
    }
}

/// Three decimals of what is near 1, else three digits.
fn ratio(x: f64) -> String {
    if (0.1..10.0).contains(&x) { format!("{x:.3}") } else { significant(x, 3) }
}

fn probability(name: &str, p: f64) -> String {
    if p < 0.001 { format!("{name} < 0.001") } else { format!("{name} = {p:.3}") }
}
