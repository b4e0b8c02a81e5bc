//! Improved precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020): whether images of
//! one set lie in the union of balls around those of the other, each as large as the distance to the k-th neighbour.
//!
//! Precision asks of generated images whether balls around real ones hold them, recall of real images whether balls around generated
//! ones do. Balls are open, as in Naeem et al.'s `prdc`; Kynkäänniemi et al.'s are closed, which is the same but for exact ties.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;

use super::pairs::{check, distances};
use crate::error::{Error, Result};

/// The four measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Manifold {
    /// Share of generated images inside a ball of a real one.
    pub precision: f64,
    /// Share of real images inside a ball of a generated one.
    pub recall: f64,
    /// Mean number of real balls around a generated image, over k.
    pub density: f64,
    /// Share of real images whose ball holds a generated one.
    pub coverage: f64,
}

/// Squared distance of each row to its k-th nearest other row.
fn radii(x: &Tensor, k: usize) -> Result<Vec<f64>> {
    distances(x, x, |i, row| {
        row[i] = f64::INFINITY;
        *row.select_nth_unstable_by(k - 1, f64::total_cmp).1
    })
}

/// The measures of feature matrices `[N, d]`, `[M, d]` with balls to the `k`-th neighbour.
///
/// # Errors
/// When widths differ, or a matrix has no more than `k` rows.
pub fn manifold(real: &Tensor, generated: &Tensor, k: usize) -> Result<Manifold> {
    if k == 0 {
        return Err(Error::invalid("balls to the neighbour k = 0 hold nothing: k is 1 or more"));
    }
    check(&format!("precision and recall with k = {k}"), real, generated, k)?;
    let (real_radii, generated_radii) = (radii(real, k)?, radii(generated, k)?);
    let (n, m) = (real_radii.len(), generated_radii.len());
    // How many real balls hold each generated image.
    let holds: Vec<AtomicUsize> = (0..m).map(|_| AtomicUsize::new(0)).collect();
    let found = distances(real, generated, |i, row| {
        let (mut recalled, mut covered) = (false, false);
        for ((d, r), count) in row.iter().zip(&generated_radii).zip(&holds) {
            recalled |= d < r;
            if *d < real_radii[i] {
                covered = true;
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        (recalled, covered)
    })?;
    let holds: Vec<usize> = holds.into_iter().map(AtomicUsize::into_inner).collect();
    Ok(Manifold {
        precision: holds.iter().filter(|count| **count > 0).count() as f64 / m as f64,
        recall: found.iter().filter(|(recalled, _)| *recalled).count() as f64 / n as f64,
        density: holds.iter().sum::<usize>() as f64 / (k * m) as f64,
        coverage: found.iter().filter(|(_, covered)| *covered).count() as f64 / n as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn points_on_a_line() {
        let column = |v: &[f64]| Tensor::from_vec(v.to_vec(), (v.len(), 1), &Device::Cpu).unwrap();
        // Real balls (k = 1) of radius 1 around 0, 1 and of radius 9 around 10; generated of radius 0.5, 0.5 and 97.
        let got = manifold(&column(&[0.0, 1.0, 10.0]), &column(&[0.5, 0.0, 100.0]), 1).unwrap();
        // 0.5 lies in the balls of 0 and 1 (and not of 10), 0 in that of 0 (1 is at distance 1, not less), 100 in none.
        assert_eq!(got.precision, 2.0 / 3.0);
        assert_eq!(got.density, 3.0 / 3.0);
        // 0 is at 0 from 0; 1 at 0.5 from 0.5 (not less), at 99 from 100 (its ball is 99.5 wide: inside).
        assert_eq!(got.recall, 1.0);
        assert_eq!(got.coverage, 2.0 / 3.0);
        for k in [0, 2] {
            assert!(manifold(&column(&[0.0, 1.0]), &column(&[0.0, 1.0]), k).is_err());
        }
    }

    #[test]
    fn a_collapsed_generator_has_precision_and_no_recall() {
        let column = |v: Vec<f64>| Tensor::from_vec(v, (10, 1), &Device::Cpu).unwrap();
        let real = column((0..10).map(f64::from).collect());
        let collapsed = column((0..10).map(|i| 4.5 + f64::from(i) / 1e4).collect());
        let got = manifold(&real, &collapsed, 3).unwrap();
        assert_eq!((got.precision, got.recall), (1.0, 0.0));
    }
}
