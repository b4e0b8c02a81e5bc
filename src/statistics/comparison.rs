//! Two samples of numbers compared by Student's t.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::{mean_and_deviation, t_quantile};

/// A difference of two means and how well it is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Mean of the first less that of the second.
    pub difference: f64,
    /// Standard error of the difference.
    pub error: f64,
    /// Degrees of freedom.
    pub freedom: f64,
    /// Standard deviation of the difference of a value of the first and one of the second.
    spread: f64,
    /// Degrees of freedom that each further value on both sides brings.
    gain: f64,
}

impl Comparison {
    /// Of pairs, at least two, whose differences are not all equal: the paired t test (Student 1908). None of samples of unequal length.
    pub fn paired(a: &[f64], b: &[f64]) -> Option<Self> {
        if a.len() < 2 || a.len() != b.len() {
            return None;
        }
        let n = a.len() as f64;
        let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let (difference, spread) = mean_and_deviation(&differences);
        (spread > 0.0).then(|| Self { difference, error: spread / n.sqrt(), freedom: n - 1.0, spread, gain: 1.0 })
    }

    /// Of two samples of at least two values each that are not all equal, and may have different variances (Welch 1947).
    pub fn welch(a: &[f64], b: &[f64]) -> Option<Self> {
        if a.len() < 2 || b.len() < 2 {
            return None;
        }
        let [(mean_a, of_a, n_a), (mean_b, of_b, n_b)] = [a, b].map(|x| {
            let (mean, deviation) = mean_and_deviation(x);
            (mean, deviation.powi(2), x.len() as f64)
        });
        let [share_a, share_b] = [of_a / n_a, of_b / n_b];
        let variance = share_a + share_b;
        (variance > 0.0).then(|| Self {
            difference: mean_a - mean_b,
            error: variance.sqrt(),
            freedom: variance.powi(2) / (share_a.powi(2) / (n_a - 1.0) + share_b.powi(2) / (n_b - 1.0)),
            spread: (of_a + of_b).sqrt(),
            gain: (of_a + of_b).powi(2) / (of_a.powi(2) + of_b.powi(2)),
        })
    }

    /// The same difference and deviations as `n` values on either side would show them.
    #[must_use]
    pub fn with_values(&self, n: u64) -> Self {
        let n = n as f64;
        Self { error: self.spread / n.sqrt(), freedom: self.gain * (n - 1.0), ..*self }
    }

    fn p(&self, of: impl Fn(StudentsT) -> f64) -> f64 {
        StudentsT::new(0.0, 1.0, self.freedom).map_or(f64::NAN, of)
    }

    /// Probability of so small a difference, or a smaller one, if the true difference were `shift`: small where the first mean
    /// is below the second by more than that.
    pub fn p_below(&self, shift: f64) -> f64 {
        self.p(|t| t.cdf((self.difference - shift) / self.error))
    }

    /// Probability of so large a difference, or a larger one, if the true difference were `shift`.
    pub fn p_above(&self, shift: f64) -> f64 {
        self.p(|t| t.sf((self.difference - shift) / self.error))
    }

    /// The larger p of two one-sided tests (Schuirmann 1987): small where the means differ by less than `margin`.
    pub fn p_within(&self, margin: f64) -> f64 {
        self.p_above(-margin).max(self.p_below(margin))
    }

    /// Probability of so large a difference, or a larger one, to either side if the true difference were `margin`: small where the
    /// means differ by more. With margin 0 this is the two-sided p.
    pub fn p_beyond(&self, margin: f64) -> f64 {
        let difference = self.difference.abs();
        self.p(|t| t.sf((difference - margin) / self.error) + t.cdf((-difference - margin) / self.error))
    }

    /// Ends of the interval that has the true difference in it with probability `confidence`.
    pub fn interval(&self, confidence: f64) -> [f64; 2] {
        let half = t_quantile(f64::midpoint(1.0, confidence), self.freedom) * self.error;
        [self.difference - half, self.difference + half]
    }
}

#[cfg(test)]
mod tests {
    use super::super::close;
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        let a = [1.0, 2.0, 4.0, 7.0];
        let all = |ours: &[f64], theirs: &[f64]| ours.iter().zip(theirs).for_each(|(a, b)| close(*a, *b));
        // ttest_ind(equal_var=False) and its interval
        let welch = Comparison::welch(&a, &[5.0, 9.0, 8.0]).unwrap();
        all(
            &[welch.difference / welch.error, welch.freedom, welch.p_below(0.0)],
            &[-2.1447610589527217, 4.943925233644861, 0.04271450959793674],
        );
        all(&welch.interval(0.95), &[-8.443454479767954, 0.7767878131012891]);
        // ttest_rel, of shifted samples for two one-sided tests
        let paired = Comparison::paired(&a, &[1.5, 2.5, 3.0, 9.0]).unwrap();
        all(
            &[paired.difference / paired.error, paired.freedom, paired.p_below(0.0), paired.p_above(0.0)],
            &[-0.8164965809277261, 3.0, 0.23701069424753188, 0.7629893057524681],
        );
        all(&paired.interval(0.95), &[-2.448842395437666, 1.4488423954376661]);
        all(
            &[paired.p_beyond(0.0), paired.p_beyond(0.2), paired.p_within(2.0)],
            &[0.47402138849506376, 0.4968753771193936, 0.04586055665578593],
        );
    }

    #[test]
    fn what_cannot_be_compared_is_not() {
        assert_eq!(Comparison::welch(&[1.0], &[2.0, 3.0]), None);
        assert_eq!(Comparison::welch(&[1.0, 1.0], &[2.0, 2.0]), None);
        assert_eq!(Comparison::paired(&[1.0, 2.0], &[1.0, 2.0, 3.0]), None);
        assert_eq!(Comparison::paired(&[1.0, 2.0], &[2.0, 3.0]), None);
    }

    #[test]
    fn as_many_values_as_there_are_change_nothing() {
        let [a, b] = [[1.0, 2.0, 4.0, 7.0], [1.5, 2.5, 3.0, 9.0]];
        for c in [Comparison::paired(&a, &b).unwrap(), Comparison::welch(&a, &b).unwrap()] {
            let again = c.with_values(4);
            close(again.error, c.error);
            close(again.freedom, c.freedom);
        }
    }
}
