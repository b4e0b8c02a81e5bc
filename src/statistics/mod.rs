//! What samples of numbers are summed up and compared by. Reports take logarithms first, so differences are of ratios.
//!
//! Proofs are numbers of scipy, statsmodels and rliable, which `tests/peer/comparisons.py` prints.

pub mod across;
mod comparison;
mod hypothesis;
mod multiple;
mod power;

use statrs::distribution::{ContinuousCDF, StudentsT};

pub use comparison::Comparison;
pub use hypothesis::Hypothesis;
pub use multiple::holm;
pub use power::{detectable, least, noncentral_above, power};

/// Mean and standard deviation with N − 1, which is 0 for fewer than two values.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt())
}

/// Quantile of Student's t with so many degrees of freedom; infinite without any.
pub fn t_quantile(p: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(p))
}

/// Half the width of the 95 % interval of a mean (Student's t), where there are at least two values.
pub fn half_width(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    (values.len() > 1).then(|| t_quantile(0.975, n - 1.0) * mean_and_deviation(values).1 / n.sqrt())
}

#[cfg(test)]
fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9 * b.abs(), "{a} is not {b}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_scipys() {
        // scipy.stats.t.ppf(0.975, 2)
        close(t_quantile(0.975, 2.0), 4.302652729749462);
        assert_eq!(half_width(&[1.0]), None);
    }
}
