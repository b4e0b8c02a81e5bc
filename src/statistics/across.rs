//! Scores of runs in many cells summed up (Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical
//! Precipice"; their code is rliable). A stratum holds the scores of the runs of one cell; more is better.

use crate::rng::Stream;

/// Replicates of a bootstrap.
const REPLICATES: u64 = 2000;
/// Probabilities of the ends of an interval.
const ENDS: [f64; 2] = [0.025, 0.975];

/// Mean of what is left of all scores without the lowest and the highest quarter (rounded down).
pub fn interquartile_mean(strata: &[Vec<f64>]) -> f64 {
    let mut all = strata.concat();
    all.sort_by(f64::total_cmp);
    let cut = all.len() / 4;
    let middle = &all[cut..all.len() - cut];
    middle.iter().sum::<f64>() / middle.len() as f64
}

/// Probability that a run of the first scores more than one of the second in the same cell, mean over cells; a tie is half of it (the
/// statistic of Mann and Whitney).
pub fn improvement(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let of_cell = |(a, b): (&Vec<f64>, &Vec<f64>)| {
        let won = |x: f64, y: f64| if x > y { 1.0 } else { 0.5 * f64::from(u8::from(x == y)) };
        let sum: f64 = a.iter().flat_map(|x| b.iter().map(move |y| won(*x, *y))).sum();
        sum / (a.len() * b.len()) as f64
    };
    a.iter().zip(b).map(of_cell).sum::<f64>() / a.len() as f64
}

/// Share of all runs that score more than each threshold: a performance profile.
pub fn profile(strata: &[Vec<f64>], thresholds: &[f64]) -> Vec<f64> {
    let all = strata.concat();
    let share = |t: &f64| all.iter().filter(|score| *score > t).count() as f64 / all.len() as f64;
    thresholds.iter().map(share).collect()
}

/// Ends of the 95 % interval of each number of a statistic: percentiles of what it is of runs drawn with replacement within their
/// strata, always the same ones of the stream of that name.
pub fn bootstrap(strata: &[Vec<f64>], name: &str, statistic: impl Fn(&[Vec<f64>]) -> Vec<f64>) -> Vec<[f64; 2]> {
    let mut values: Vec<Vec<f64>> = Vec::new();
    for replicate in 0..REPLICATES {
        let mut stream = Stream::new(0, name, replicate);
        let drawn: Vec<Vec<f64>> =
            strata.iter().map(|of| of.iter().map(|_| of[stream.below(of.len())]).collect()).collect();
        for (i, value) in statistic(&drawn).into_iter().enumerate() {
            if replicate == 0 {
                values.push(Vec::new());
            }
            values[i].push(value);
        }
    }
    values
        .into_iter()
        .map(|mut of| {
            of.sort_by(f64::total_cmp);
            ENDS.map(|p| quantile(&of, p))
        })
        .collect()
}

/// Quantile of sorted values, linear between them.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let (low, share) = (at as usize, at.fract());
    sorted[low] + share * (sorted[at.ceil() as usize] - sorted[low])
}

#[cfg(test)]
mod tests {
    use super::super::close;
    use super::*;

    /// Cells of two methods.
    fn cells() -> [Vec<Vec<f64>>; 2] {
        [vec![vec![0.9, 0.7, 0.6], vec![0.5, 0.8, 0.8]], vec![vec![0.8, 1.0, 0.0, 0.7], vec![0.4, 0.8, 0.3, 0.2]]]
    }

    #[test]
    fn agrees_with_rliable() {
        let [x, y] = cells();
        close(interquartile_mean(&x), 0.725);
        close(interquartile_mean(&y), 0.55);
        close(improvement(&x, &y), 0.6458333333333334);
        close(improvement(&x, &x), 0.5);
        let thresholds = [0.0, 0.25, 0.5, 0.75, 1.0];
        assert_eq!(profile(&x, &thresholds), [1.0, 1.0, 5.0 / 6.0, 0.5, 0.0]);
        assert_eq!(profile(&y, &thresholds), [0.875, 0.75, 0.5, 0.375, 0.0]);
    }

    /// A statistic of every draw with replacement within strata, all equally likely, in order.
    fn every_draw(strata: &[Vec<f64>], statistic: impl Fn(&[Vec<f64>]) -> f64) -> Vec<f64> {
        let draws: usize = strata.iter().map(|of| of.len().pow(of.len() as u32)).product();
        let mut all: Vec<f64> = (0..draws)
            .map(|mut draw| {
                let mut pick = |of: &Vec<f64>| {
                    let value = of[draw % of.len()];
                    draw /= of.len();
                    value
                };
                statistic(&strata.iter().map(|of| of.iter().map(|_| pick(of)).collect()).collect::<Vec<_>>())
            })
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    #[test]
    fn intervals_are_those_of_all_draws() {
        let [x, _] = cells();
        let reversed: Vec<Vec<f64>> = x.iter().rev().cloned().collect();
        let both = [x.clone(), reversed].concat();
        let check = |strata: &[Vec<f64>], statistic: fn(&[Vec<f64>]) -> f64| {
            let all = every_draw(strata, statistic);
            let ends = bootstrap(strata, "test", |drawn| vec![statistic(drawn)])[0];
            for (end, p) in ends.into_iter().zip(ENDS) {
                let share = |n: usize| n as f64 / all.len() as f64;
                let [below, up_to] = [all.partition_point(|v| *v < end), all.partition_point(|v| *v <= end)].map(share);
                // Three standard errors of a share of the replicates.
                let error = 3.0 * (p * (1.0 - p) / REPLICATES as f64).sqrt();
                assert!(below < p + error && up_to > p - error, "{end}: {below} to {up_to} is not {p}");
            }
        };
        check(&x, interquartile_mean);
        check(&x, |drawn| profile(drawn, &[0.75])[0]);
        check(&both, |drawn| improvement(&drawn[..2], &drawn[2..]));
    }
}
