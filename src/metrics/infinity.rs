//! Measures of infinitely many images (Chong & Forsyth 2020): FD and IS of n images are biased by about c/n, so a line is fitted to
//! values at 15 sizes over 1/n, and its intercept is FD∞ or IS∞.
//!
//! Sizes are those of the first images of one stream, whose order is the caller's: random, or the intercept means nothing. So values are
//! taken as images come, from sums that go on, and no image is seen twice. IS∞ takes the score of one split.

use std::ops::Range;

use crate::error::{Error, Result};

/// Sizes at which a value is taken.
pub const POINTS: usize = 15;
/// The first size, where a tenth of the images is no fewer.
const FIRST: usize = 5000;

/// Values at growing numbers of images.
#[derive(Debug)]
pub struct Points {
    sizes: Vec<usize>,
    seen: usize,
    values: Vec<f64>,
}

/// A line's value at infinitely many images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intercept {
    /// The value.
    pub value: f64,
    /// Its standard error by the residuals of the line. They are of one stream whose parts share images: this tells how straight the
    /// line is, and not how the value would vary over other images.
    pub error: f64,
}

/// Sizes evenly spread from the smaller of 5,000 and a tenth of `total` (two images at least) up to `total`, rounded down.
fn sizes(total: usize) -> Vec<usize> {
    let first = FIRST.min((total / 10).max(2));
    let step = total.saturating_sub(first) as f64 / (POINTS - 1) as f64;
    (0..POINTS - 1).map(|i| (i as f64 * step + first as f64) as usize).chain([total]).collect()
}

impl Points {
    /// Fewest images that have so many sizes.
    pub const FEWEST: usize = 16;

    /// For a stream of `total` images.
    ///
    /// # Errors
    /// When there are too few for so many sizes.
    pub fn new(total: usize) -> Result<Self> {
        if total < Self::FEWEST {
            return Err(Error::invalid(format!("{total} images are too few for an extrapolation from {POINTS} sizes")));
        }
        Ok(Self { sizes: sizes(total), seen: 0, values: Vec::new() })
    }

    /// The least of the sizes.
    pub fn first(&self) -> usize {
        self.sizes[0]
    }

    /// The parts of the next `n` images of the stream, and whether a value is due ([`Points::take`]) when one is added.
    pub fn parts(&mut self, n: usize) -> Vec<(Range<usize>, bool)> {
        let (start, end) = (self.seen, self.seen + n);
        self.seen = end;
        let due = self.sizes.iter().filter(|&&size| start < size && size <= end).map(|size| size - start);
        let mut first = 0;
        let mut parts: Vec<_> = due.map(|to| (std::mem::replace(&mut first, to)..to, true)).collect();
        if first < n {
            parts.push((first..n, false));
        }
        parts
    }

    /// Takes the value of all images up to the size that was due.
    pub fn take(&mut self, value: f64) {
        self.values.push(value);
    }

    /// The line's intercept by least squares.
    ///
    /// # Errors
    /// When fewer values were taken than there are sizes, or one is not finite.
    pub fn intercept(&self) -> Result<Intercept> {
        if self.values.len() != POINTS {
            return Err(Error::invalid(format!(
                "{POINTS} values make an extrapolation, and {} came",
                self.values.len()
            )));
        }
        if self.values.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite("values of an extrapolation"));
        }
        let n = POINTS as f64;
        let x: Vec<f64> = self.sizes.iter().map(|&size| 1.0 / size as f64).collect();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
        let (mean_x, mean_y) = (mean(&x), mean(&self.values));
        let points = || x.iter().map(|x| x - mean_x).zip(self.values.iter().map(|y| y - mean_y));
        let of_x: f64 = points().map(|(x, _)| x * x).sum();
        let slope = points().map(|(x, y)| x * y).sum::<f64>() / of_x;
        let residuals: f64 = points().map(|(x, y)| (y - slope * x).powi(2)).sum();
        let error = (residuals / (n - 2.0) * (1.0 / n + mean_x * mean_x / of_x)).sqrt();
        Ok(Intercept { value: mean_y - slope * mean_x, error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numpys() {
        // numpy.linspace(min(5000, max(N // 10, 2)), N, 15).astype(int)
        let of_50000 =
            [5000, 8214, 11428, 14642, 17857, 21071, 24285, 27500, 30714, 33928, 37142, 40357, 43571, 46785, 50000];
        assert_eq!(sizes(50_000), of_50000);
        assert_eq!(sizes(300), [30, 49, 68, 87, 107, 126, 145, 165, 184, 203, 222, 242, 261, 280, 300]);
        assert!(Points::new(16).is_ok() && Points::new(15).is_err() && Points::new(0).is_err());
    }

    #[test]
    fn a_stream_is_cut_where_values_are_due_whatever_its_batches() {
        for batch in [1, 7, 64, 300] {
            let mut points = Points::new(300).unwrap();
            let (mut seen, mut due) = (0, Vec::new());
            for first in (0..300).step_by(batch) {
                let n = batch.min(300 - first);
                let parts = points.parts(n);
                assert_eq!(parts.iter().map(|(part, _)| part.len()).sum::<usize>(), n);
                for (part, is_due) in parts {
                    assert_eq!(first + part.start, seen);
                    seen += part.len();
                    due.extend(is_due.then_some(seen));
                }
            }
            assert_eq!(due, sizes(300));
        }
    }

    #[test]
    fn lines_are_met_and_errors_are_those_of_least_squares() {
        let of = |value: &dyn Fn(usize) -> f64| {
            let mut points = Points::new(300).unwrap();
            sizes(300).into_iter().for_each(|n| points.take(value(n)));
            points.intercept().unwrap()
        };
        let straight = of(&|n| 3.0 + 100.0 / n as f64);
        assert!((straight.value - 3.0).abs() < 1e-12 && straight.error < 1e-12);
        // scipy.stats.linregress of 3 + 100/n + sin(n): intercept and intercept_stderr.
        let bent = of(&|n| 3.0 + 100.0 / n as f64 + (n as f64).sin());
        assert!(
            (bent.value - 3.434_284_655_590_662_5).abs() < 1e-12
                && (bent.error - 0.272_786_698_149_286_3).abs() < 1e-12,
            "{bent:?}"
        );
        assert!(Points::new(300).unwrap().intercept().is_err());
    }
}
