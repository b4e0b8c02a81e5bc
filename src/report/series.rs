//! Runs over seeds: samples of a number, series of runs that differ in nothing else, and networks, whose series are compared.

use std::collections::BTreeMap;

use super::chart::order;
use super::runs::{Run, distinct};
use crate::statistics::{half_width, mean_and_deviation};

/// A number over seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample(pub Vec<f64>);

impl Sample {
    /// Of what each run gives; none if no run does.
    pub fn of(runs: &[&Run], f: impl Fn(&Run) -> Option<f64>) -> Option<Self> {
        let values: Vec<f64> = runs.iter().filter_map(|r| f(r)).collect();
        (!values.is_empty()).then_some(Self(values))
    }

    /// Mean.
    pub fn mean(&self) -> f64 {
        mean_and_deviation(&self.0).0
    }

    /// `mean ± deviation`, or the only value.
    pub fn show(&self, digits: usize) -> String {
        let (mean, std) = mean_and_deviation(&self.0);
        if self.0.len() > 1 { format!("{mean:.digits$} ± {std:.digits$}") } else { format!("{mean:.digits$}") }
    }

    /// The 95 % interval of the mean over seeds (Student's t) of what is never negative.
    pub fn interval(&self, digits: usize) -> String {
        let Some(half) = half_width(&self.0) else { return "–".to_owned() };
        format!("{:.digits$} to {:.digits$}", (self.mean() - half).max(0.0), self.mean() + half)
    }
}

/// Runs that differ in nothing but the seed.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// Architecture.
    pub arch: String,
    /// Width.
    pub width: String,
    /// Method.
    pub method: String,
    /// Loss.
    pub loss: String,
    /// Hash of what they share.
    pub family: String,
    /// Method, and what tells it from another series of the same method where there is one.
    pub label: String,
    /// Which series of its method it is, from 0.
    pub nth: usize,
    /// The runs.
    pub runs: Vec<&'a Run>,
}

impl Series<'_> {
    /// Whether every run made all its steps.
    pub fn finished(&self) -> bool {
        self.runs.iter().all(|r| r.status == "finished")
    }

    /// What they computed on.
    pub fn devices(&self) -> Vec<&str> {
        distinct(self.runs.iter().map(|r| r.device.as_str()))
    }

    /// The steps at which every run was evaluated; none where runs differ.
    pub fn evaluations(&self) -> Option<Vec<u64>> {
        let of = |r: &Run| r.points.iter().map(|p| p.step).collect::<Vec<u64>>();
        let first = of(self.runs.first()?);
        self.runs.iter().all(|r| of(r) == first).then_some(first)
    }

    /// Whether the best of the one may be compared with the best of the other: both had the same settings, and ended after the
    /// same evaluations.
    pub fn comparable(&self, other: &Self) -> bool {
        self.runs[0].settings == other.runs[0].settings
            && self.finished()
            && other.finished()
            && self.evaluations().is_some()
            && self.evaluations() == other.evaluations()
    }

    /// Lowest Fréchet distances.
    pub fn best_fid(&self) -> Option<Sample> {
        Sample::of(&self.runs, |r| Some(r.best().fid))
    }

    /// Inception Scores at the lowest Fréchet distances.
    pub fn best_score(&self) -> Option<Sample> {
        Sample::of(&self.runs, |r| r.best().score.map(|s| s.0))
    }
}

/// Runs grouped over seeds, in order of architecture, width and method.
pub fn series(runs: &[Run]) -> Vec<Series<'_>> {
    let mut by: BTreeMap<(&str, String, &str, &str), Vec<&Run>> = BTreeMap::new();
    for run in runs {
        by.entry((&run.arch, run.width.to_string(), &run.method, &run.family)).or_default().push(run);
    }
    let mut all = Vec::new();
    for ((arch, width, method, family), runs) in &by {
        all.push(Series {
            arch: (*arch).to_owned(),
            width: width.clone(),
            method: (*method).to_owned(),
            loss: runs[0].loss.clone(),
            family: (*family).to_owned(),
            label: runs[0].label.clone(),
            nth: runs[0].nth,
            runs: runs.clone(),
        });
    }
    all.sort_by(|a, b| {
        let method = |s: &Series| (order(&s.method), s.method.clone(), s.nth);
        let key = |s: &Series| (s.arch.clone(), s.width.clone(), method(s));
        key(a).cmp(&key(b))
    });
    all
}

/// Series of one architecture and width, which stand in one table block and one chart.
pub struct Network<'a> {
    /// Architecture.
    pub arch: &'a str,
    /// Width.
    pub width: &'a str,
    /// The series, in their order.
    pub series: Vec<&'a Series<'a>>,
}

impl<'a> Network<'a> {
    /// Architecture, and the width where it is not the paper's.
    pub fn title(&self) -> String {
        network_title(self.arch, self.width)
    }

    /// All runs.
    pub fn runs(&self) -> impl Iterator<Item = &'a Run> {
        self.series.iter().flat_map(|s| s.runs.iter().copied())
    }

    /// The series in order of their lowest Fréchet distance.
    pub fn by_lowest(mut self) -> Vec<&'a Series<'a>> {
        let lowest = |s: &Series| s.best_fid().map_or(f64::INFINITY, |f| f.mean());
        self.series.sort_by(|a, b| lowest(a).total_cmp(&lowest(b)));
        self.series
    }
}

/// Architecture, and the width where it is not the paper's.
pub fn network_title(arch: &str, width: &str) -> String {
    if width == "1" { arch.to_owned() } else { format!("{arch}, width {width}") }
}

/// Series, which are in order of architecture and width, by these.
pub fn networks<'a>(all: &'a [Series<'a>]) -> Vec<Network<'a>> {
    let of =
        |part: &'a [Series<'a>]| Network { arch: &part[0].arch, width: &part[0].width, series: part.iter().collect() };
    all.chunk_by(|a, b| (&a.arch, &a.width) == (&b.arch, &b.width)).map(of).collect()
}
