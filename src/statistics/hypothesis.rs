//! What may be asked of a difference of means, with what speaks for it and against it.

use super::{Comparison, detectable, least, power};

/// Power that a comparison should have (Cohen 1988).
const POWER: f64 = 0.8;
/// More values than anyone would take.
const MOST: u64 = 1000;

/// A statement about the true difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Hypothesis {
    /// It is below this.
    Below(f64),
    /// It is above this.
    Above(f64),
    /// It is within this of 0.
    Within(f64),
}

impl Hypothesis {
    /// p-values: the first is small where the comparison speaks for the statement, the second where it speaks against it.
    pub fn p(self, c: &Comparison) -> [f64; 2] {
        match self {
            Self::Below(shift) => [c.p_below(shift), c.p_above(shift)],
            Self::Above(shift) => [c.p_above(shift), c.p_below(shift)],
            Self::Within(margin) => [c.p_within(margin), c.p_beyond(margin)],
        }
    }

    /// Probability that other such samples decide, for or against, at a level, if the true difference is what these show.
    ///
    /// Two one-sided tests are both passed with the sum of their powers less 1, which leaves out that both fail together.
    fn power(self, c: &Comparison, level: f64) -> f64 {
        let of = |distance: f64| power(distance / c.error, c.freedom, level);
        let apart = c.difference.abs();
        match self {
            Self::Below(shift) | Self::Above(shift) => of((c.difference - shift).abs()),
            Self::Within(margin) if apart > margin => of(apart - margin),
            Self::Within(margin) => of(margin - apart) + of(margin + apart) - 1.0,
        }
    }

    /// The difference that would have shown the statement with a power of 80 % at a level; of [`Self::Within`] the margin, were there no
    /// difference.
    pub fn detectable(self, c: &Comparison, level: f64) -> f64 {
        let effect = |power: f64| c.error * detectable(c.freedom, level, power);
        match self {
            Self::Below(shift) => shift - effect(POWER),
            Self::Above(shift) => shift + effect(POWER),
            Self::Within(_) => effect(f64::midpoint(1.0, POWER)),
        }
    }

    /// Number of values on either side, up to 1,000, that decides with a power of 80 % at a level, if the true difference and
    /// deviations are what these show.
    pub fn values_needed(self, c: &Comparison, level: f64) -> Option<u64> {
        least(MOST, |n| self.power(&c.with_values(n), level) >= POWER)
    }
}

#[cfg(test)]
mod tests {
    use super::super::close;
    use super::*;

    #[test]
    fn values_needed_are_those_of_statsmodels() {
        // solve_power of a difference of 0.7 deviations, rounded up: TTestPower 14.07 at 5 %, 23.26 at 1 %; TTestIndPower 25.94 and 42.34
        let a = [-0.3, 0.7, 1.7];
        let paired = Comparison::paired(&a, &[0.0; 3]).unwrap();
        let welch = Comparison::welch(&a, &[-1.0, 0.0, 1.0]).unwrap();
        for hypothesis in [Hypothesis::Below(0.0), Hypothesis::Above(0.0)] {
            let needed = |c| [0.05, 0.01].map(|level| hypothesis.values_needed(c, level));
            assert_eq!(needed(&paired), [Some(15), Some(24)]);
            assert_eq!(needed(&welch), [Some(26), Some(43)]);
        }
        let none = Comparison::paired(&[-1.0, 0.0, 1.0], &[0.0; 3]).unwrap();
        assert_eq!(Hypothesis::Below(0.0).values_needed(&none, 0.05), None);
        // Of the nearer end of the margin only one has to be seen.
        assert_eq!(Hypothesis::Within(1.4).values_needed(&paired, 0.05), Some(15));
        assert_eq!(Hypothesis::Below(1.4).values_needed(&paired, 0.05), Some(15));
    }

    #[test]
    fn what_could_be_seen_is_what_statsmodels_says() {
        let paired = Comparison::paired(&[-0.3, 0.7, 1.7], &[0.0; 3]).unwrap();
        // The effect at which TTestPower().power(effect, 3, 0.05, alternative="larger") is 0.8
        close(Hypothesis::Below(0.1).detectable(&paired, 0.05), 0.1 - 2.2972747673051703);
        close(Hypothesis::Above(0.1).detectable(&paired, 0.05), 0.1 + 2.2972747673051703);
    }

    #[test]
    fn two_one_sided_tests_pass_as_often_as_simulated() {
        // 400,000 samples of 7 pairs with deviation 1, margin 1.5; their standard error is 0.0005.
        let of = |mean: f64| {
            let unit = [-1.0, 0.0, 1.0].map(|x| x + mean);
            Comparison::paired(&unit, &[0.0; 3]).unwrap().with_values(7)
        };
        for (difference, simulated) in [(0.0, 0.93301), (0.3, 0.868565)] {
            let power = Hypothesis::Within(1.5).power(&of(difference), 0.05);
            assert!((power - simulated).abs() < 0.002, "{power} is not {simulated}");
        }
        // The margin that is passed with 80 %: where the tests are, one sees it with 90 %.
        let margin = Hypothesis::Within(0.0).detectable(&of(0.0), 0.05);
        close(Hypothesis::Within(margin).power(&of(0.0), 0.05), 0.8);
    }
}
