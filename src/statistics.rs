//! What samples of numbers are summed up by.

use statrs::distribution::{ContinuousCDF, StudentsT};

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

/// Welch's comparison of two means, which may have different variances (Welch 1947).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welch {
    /// Mean of the first less that of the second.
    pub difference: f64,
    /// Standard error of the difference.
    pub error: f64,
    /// Degrees of freedom (Welch and Satterthwaite).
    pub freedom: f64,
}

impl Welch {
    /// Of two samples of at least two values each that are not all equal.
    pub fn new(a: &[f64], b: &[f64]) -> Option<Self> {
        if a.len() < 2 || b.len() < 2 {
            return None;
        }
        let [(mean_a, of_a, n_a), (mean_b, of_b, n_b)] = [a, b].map(|x| {
            let (mean, deviation) = mean_and_deviation(x);
            (mean, deviation.powi(2) / x.len() as f64, x.len() as f64)
        });
        let variance = of_a + of_b;
        let freedom = variance.powi(2) / (of_a.powi(2) / (n_a - 1.0) + of_b.powi(2) / (n_b - 1.0));
        (variance > 0.0).then(|| Self { difference: mean_a - mean_b, error: variance.sqrt(), freedom })
    }

    /// Probability of so small a difference, or a smaller one, if the true difference were `shift`: small where the first mean
    /// is below the second by more than that.
    pub fn p_below(&self, shift: f64) -> f64 {
        let t = (self.difference - shift) / self.error;
        StudentsT::new(0.0, 1.0, self.freedom).map_or(f64::NAN, |d| d.cdf(t))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        // scipy.stats.ttest_ind([1, 2, 4, 7], [5, 9, 8], equal_var=False, alternative="less")
        let w = Welch::new(&[1.0, 2.0, 4.0, 7.0], &[5.0, 9.0, 8.0]).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.abs(), "{a} is not {b}");
        close(w.difference / w.error, -2.1447610589527217);
        close(w.freedom, 4.943925233644861);
        close(w.p_below(0.0), 0.04271450959793674);
        // scipy.stats.t.ppf(0.975, 2)
        close(t_quantile(0.975, 2.0), 4.302652729749462);
        assert_eq!((Welch::new(&[1.0], &[2.0, 3.0]), half_width(&[1.0])), (None, None));
    }
}
