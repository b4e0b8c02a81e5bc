//! How methods stand to each other after the same evaluations, and which differences the noise between seeds does not explain.

use crate::report::runs::{Run, distinct};
use crate::report::series::{Network, Sample, Series};
use crate::statistics::Comparison;

/// Level of the test by which two samples differ.
const LEVEL: f64 = 0.05;

/// Whether two samples differ by more than seeds do: Welch's test, two-sided, at 5 %. Where it cannot be made, any difference counts.
pub(super) fn differ(a: &Sample, b: &Sample) -> bool {
    Comparison::welch(&a.0, &b.0).map_or(a.mean() != b.mean(), |welch| welch.p_beyond(0.0) < LEVEL)
}

/// Series of a network after the same evaluations.
pub(super) struct Standing<'a> {
    /// The last step at which all of them were evaluated.
    pub(super) step: u64,
    /// The series, from the lowest mean of their runs' lowest distances until then.
    pub(super) lowest: Vec<(&'a Series<'a>, Sample)>,
    /// The series that have no evaluation in common with the rest.
    pub(super) without: Vec<&'a Series<'a>>,
}

/// Steps after the first at which all of some runs were evaluated.
pub(super) fn common<'a>(runs: impl Iterator<Item = &'a Run> + Clone) -> Vec<u64> {
    let has = |run: &Run, step: u64| run.points.iter().any(|p| p.step == step);
    let steps = distinct(runs.clone().flat_map(|r| r.points.iter().map(|p| p.step)));
    steps.into_iter().filter(|step| *step > 0 && runs.clone().all(|r| has(r, *step))).collect()
}

/// The series of a network that were evaluated after training began, as they stand; none where no step is common to all of them.
pub(super) fn standing<'a>(network: &Network<'a>) -> Option<Standing<'a>> {
    let (with, without): (Vec<&Series>, Vec<&Series>) =
        network.series.iter().copied().partition(|s| !common(s.runs.iter().copied()).is_empty());
    let steps = common(with.iter().flat_map(|s| s.runs.iter().copied()));
    let step = *steps.last()?;
    let until = |run: &Run| {
        let here = run.points.iter().filter(|p| steps.contains(&p.step)).map(|p| p.fid);
        here.min_by(f64::total_cmp)
    };
    let mut lowest: Vec<(&Series, Sample)> =
        with.into_iter().filter_map(|s| Some((s, Sample::of(&s.runs, until)?))).collect();
    lowest.sort_by(|a, b| a.1.mean().total_cmp(&b.1.mean()));
    Some(Standing { step, lowest, without })
}

impl Standing<'_> {
    /// In a sentence; `distance` is the distance's name.
    pub(super) fn sentence(&self, distance: &str) -> String {
        let one = |(s, sample): &(&Series, Sample)| format!("{} {}", s.label, sample.show(2));
        let all = |of: &[&(&Series, Sample)]| of.iter().map(|s| one(s)).collect::<Vec<_>>().join(", ");
        let (several, single): (Vec<_>, Vec<_>) = self.lowest.iter().partition(|(s, _)| s.runs.len() > 1);
        // Methods of one seed stand apart where others can be told apart.
        let (here, alone) =
            if several.len() > 1 { (several, single) } else { (self.lowest.iter().collect(), Vec::new()) };
        let Some((&best, others)) = here.split_first() else { return String::new() };
        let seeds = distinct(here.iter().map(|(s, _)| s.runs.len()));
        let mut out = match (others.is_empty(), seeds[0]) {
            (true, _) => format!("{distance} of {} within {} updates; no other method beside it", one(best), self.step),
            (_, 1) => format!(
                "lowest {distance} within {} updates: {}; one seed says nothing of the noise, so this is an order and no ranking",
                self.step,
                all(&here)
            ),
            _ => {
                let (higher, same): (Vec<_>, Vec<_>) = others.iter().partition(|s| differ(&s.1, &best.1));
                let part = |name: &str, of: &[&(&Series, Sample)]| {
                    if of.is_empty() { String::new() } else { format!("; {name}: {}", all(of)) }
                };
                let [least, most] = [seeds[0], seeds[seeds.len() - 1]];
                let seeds = if least == most { least.to_string() } else { format!("{least} to {most}") };
                format!(
                    "{} has the lowest {distance} within {} updates, {}{}{} (mean ± deviation over {seeds} seeds; Welch’s test at 5 %)",
                    best.0.label,
                    self.step,
                    best.1.show(2),
                    part("not told apart from it", &same),
                    part("higher", &higher)
                )
            }
        };
        if !alone.is_empty() {
            out.push_str(&format!("; of one seed, which says nothing of the noise: {}", all(&alone)));
        }
        let settings = distinct(self.lowest.iter().map(|(s, _)| &s.runs[0].settings));
        if settings.len() > 1 {
            out.push_str("; their settings differ, as the list of runs says");
        }
        if !self.without.is_empty() {
            let label = |s: &&Series| match s.runs.iter().all(|r| r.status == "diverged") {
                true => format!("{} (diverged)", s.label),
                false => s.label.clone(),
            };
            let labels: Vec<String> = self.without.iter().map(label).collect();
            out.push_str(&format!("; without an evaluation after training: {}", labels.join(", ")));
        }
        out.push('.');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::runs::{protocols, runs};
    use crate::report::series::{networks, series};
    use crate::results::Row;
    use crate::results::tests::row;

    fn sentence(rows: &[Row]) -> String {
        let runs = runs(rows, &protocols(rows)[0]);
        let all = series(&runs);
        let network = networks(&all).remove(0);
        standing(&network).map_or_else(String::new, |s| s.sentence("FID"))
    }

    fn seeds(method: &str, step: u64, values: &[f64]) -> Vec<Row> {
        (0..).zip(values).map(|(seed, value)| row(method, seed, step, "fid2k_train", *value)).collect()
    }

    #[test]
    fn the_lowest_is_named_with_what_is_not_told_apart_from_it() {
        // scipy.stats.ttest_ind(equal_var=False): p = 0.28 of the first two, 2e-5 of the first and the last.
        let rows = [
            seeds("gn", 100, &[10.0, 11.0, 12.0]),
            seeds("pgn", 100, &[11.0, 12.0, 13.2]),
            seeds("sn", 100, &[30.0, 31.0, 32.0]),
            seeds("none", 0, &[400.0, 400.0, 400.0]),
        ];
        assert_eq!(
            sentence(&rows.concat()),
            "gn has the lowest FID within 100 updates, 11.00 ± 1.00; not told apart from it: pgn 12.07 ± 1.10; higher: sn 31.00 ± 1.00 \
             (mean ± deviation over 3 seeds; Welch’s test at 5 %); without an evaluation after training: none."
        );
    }

    #[test]
    fn methods_of_one_seed_stand_apart_from_those_of_several() {
        let rows =
            [seeds("gn", 100, &[30.0, 31.0, 32.0]), seeds("pgn", 100, &[11.0, 12.0, 13.0]), seeds("sn", 100, &[1.0])];
        assert_eq!(
            sentence(&rows.concat()),
            "pgn has the lowest FID within 100 updates, 12.00 ± 1.00; higher: gn 31.00 ± 1.00 (mean ± deviation over 3 seeds; Welch’s \
             test at 5 %); of one seed, which says nothing of the noise: sn 1.00."
        );
    }

    #[test]
    fn only_common_evaluations_count_and_one_seed_ranks_nothing() {
        let rows = [seeds("gn", 100, &[20.0]), seeds("gn", 200, &[5.0]), seeds("sn", 100, &[10.0])].concat();
        let text = sentence(&rows);
        assert!(text.starts_with("lowest FID within 100 updates: sn 10.00, gn 20.00; one seed"), "{text}");
        assert_eq!(sentence(&seeds("gn", 0, &[3.0])), "");
        assert_eq!(sentence(&seeds("gn", 10, &[3.0])), "FID of gn 3.00 within 10 updates; no other method beside it.");
    }
}
