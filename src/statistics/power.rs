//! What a test of Student's t would show: its power, from the noncentral t distribution.

use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::beta::beta_reg;
use statrs::function::gamma::ln_gamma;

use super::t_quantile;

/// P(T > t) of the noncentral t distribution, for t ≥ 0 and a noncentrality ≥ 0: algorithm AS 243 (Lenth 1989), its terms from
/// logarithms.
pub fn noncentral_above(t: f64, freedom: f64, noncentrality: f64) -> f64 {
    let x = t * t / (t * t + freedom);
    let half = noncentrality * noncentrality / 2.0;
    let below_zero = Normal::standard().cdf(-noncentrality);
    if half == 0.0 {
        return 0.5 - 0.5 * beta_reg(0.5, freedom / 2.0, x);
    }
    // Poisson weights, which are negligible so far from their mean.
    let terms = (half + 12.0 * half.sqrt() + 30.0) as u32;
    let between: f64 = (0..=terms)
        .map(|j| {
            let j = f64::from(j);
            let even = (j * half.ln() - half - ln_gamma(j + 1.0)).exp();
            let odd = ((j + 0.5) * half.ln() - half - ln_gamma(j + 1.5)).exp();
            even * beta_reg(j + 0.5, freedom / 2.0, x) + odd * beta_reg(j + 1.0, freedom / 2.0, x)
        })
        .sum();
    (1.0 - below_zero - 0.5 * between).clamp(0.0, 1.0)
}

/// Probability that a one-sided test of a level sees an effect of so many standard errors.
pub fn power(effect: f64, freedom: f64, level: f64) -> f64 {
    noncentral_above(t_quantile(1.0 - level, freedom), freedom, effect.max(0.0))
}

/// The effect, in standard errors, that a one-sided test of a level sees with probability `power`.
pub fn detectable(freedom: f64, level: f64, power: f64) -> f64 {
    let sees = |effect: f64| self::power(effect, freedom, level) >= power;
    let mut high = 1.0;
    while !sees(high) && high < 1e4 {
        high *= 2.0;
    }
    let mut low = 0.0;
    while high - low > 1e-12 * high {
        let middle = f64::midpoint(low, high);
        if sees(middle) { high = middle } else { low = middle }
    }
    high
}

/// The least number from 2 to `most` that is enough, where every number above an enough one is.
pub fn least(most: u64, is_enough: impl Fn(u64) -> bool) -> Option<u64> {
    let mut high = 2;
    while !is_enough(high) {
        if high >= most {
            return None;
        }
        high = (2 * high).min(most);
    }
    let mut low = 1;
    while high - low > 1 {
        let middle = u64::midpoint(low, high);
        if is_enough(middle) { high = middle } else { low = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::super::close;
    use super::*;

    #[test]
    fn agrees_with_scipy_and_statsmodels() {
        // scipy.stats.nct.sf
        for (t, freedom, noncentrality, p) in [
            (2.0, 3.0, 1.0, 0.25637013159233457),
            (4.3, 2.0, 6.0, 0.8360687375492427),
            (31.6, 2.0, 50.0, 0.9178822613284309),
            (1.7, 30.5, 0.0, 0.04965432245826155),
            (2.1, 4.6, 90.0, 1.0),
        ] {
            close(noncentral_above(t, freedom, noncentrality), p);
        }
        // TTestPower of 5 pairs and TTestIndPower of two samples of 5, an effect of 1.2 deviations, one-sided
        close(power(1.2 * 5f64.sqrt(), 4.0, 0.05), 0.7119106100631851);
        close(power(1.2 * 2.5f64.sqrt(), 8.0, 0.05), 0.5356626021920377);
        // Where these have a power of 80 %: 3 pairs, and two samples of 3
        close(detectable(2.0, 0.05, 0.8) / 3f64.sqrt(), 2.2972747673051703);
        close(detectable(4.0, 0.05, 0.8) / 1.5f64.sqrt(), 2.4819462704749484);
    }

    #[test]
    fn the_least_enough_number_is_found() {
        for enough in [0, 1, 2, 3, 17, 64, 999, 1000] {
            assert_eq!(least(1000, |n| n >= enough), Some(enough.max(2)));
        }
        assert_eq!(least(1000, |n| n > 1000), None);
    }
}
