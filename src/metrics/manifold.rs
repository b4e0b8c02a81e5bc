//! Improved precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020): whether images of
//! one set lie in the union of balls around those of the other, each as large as the distance to the k-th neighbour.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Rows of the distance matrix held at a time.
const ROWS: usize = 500;

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

/// Calls `each` with the index of a row of `a` and its squared distances to all rows of `b`.
fn distances(a: &Tensor, b: &Tensor, mut each: impl FnMut(usize, &[f64])) -> Result<()> {
    let (n, _) = a.dims2()?;
    let norms = |t: &Tensor| -> Result<Vec<f64>> { Ok(t.sqr()?.sum(1)?.to_vec1()?) };
    let (na, nb) = (norms(a)?, norms(b)?);
    let bt = b.t()?;
    for first in (0..n).step_by(ROWS) {
        let product = a.narrow(0, first, ROWS.min(n - first))?.matmul(&bt)?.to_vec2::<f64>()?;
        for (i, mut row) in product.into_iter().enumerate() {
            for (d, nb) in row.iter_mut().zip(&nb) {
                *d = (na[first + i] + nb - 2.0 * *d).max(0.0);
            }
            each(first + i, &row);
        }
    }
    Ok(())
}

/// Squared distance of each row to its k-th nearest other row.
fn radii(x: &Tensor, k: usize) -> Result<Vec<f64>> {
    let mut rows = Vec::new();
    distances(x, x, |i, row| {
        let mut others: Vec<f64> = row.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, d)| *d).collect();
        rows.push(*others.select_nth_unstable_by(k - 1, f64::total_cmp).1);
    })?;
    Ok(rows)
}

/// The measures of feature matrices `[N, d]`, `[M, d]` with balls to the `k`-th neighbour.
///
/// # Errors
/// When widths differ, or a matrix has no more than `k` rows.
pub fn manifold(real: &Tensor, generated: &Tensor, k: usize) -> Result<Manifold> {
    let (x, y) = (real.to_dtype(DType::F64)?, generated.to_dtype(DType::F64)?);
    let ((n, d), (m, e)) = (x.dims2()?, y.dims2()?);
    if d != e || n <= k || m <= k || k == 0 {
        return Err(Error::invalid(format!(
            "precision and recall with k = {k} need two matrices of one width and more than {k} rows, got {n}×{d} and {m}×{e}"
        )));
    }
    let (real_radii, generated_radii) = (radii(&x, k)?, radii(&y, k)?);
    // How many real balls hold each generated image.
    let mut holds = vec![0usize; m];
    let (mut recalled, mut covered) = (0, 0);
    distances(&x, &y, |i, row| {
        holds.par_iter_mut().zip(row).for_each(|(count, d)| *count += usize::from(*d < real_radii[i]));
        recalled += usize::from(row.iter().zip(&generated_radii).any(|(d, r)| d < r));
        covered += usize::from(row.iter().any(|d| *d < real_radii[i]));
    })?;
    Ok(Manifold {
        precision: holds.iter().filter(|c| **c > 0).count() as f64 / m as f64,
        recall: recalled as f64 / n as f64,
        density: holds.iter().sum::<usize>() as f64 / (k * m) as f64,
        coverage: covered as f64 / n as f64,
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
        assert!(manifold(&column(&[0.0, 1.0]), &column(&[0.0, 1.0]), 2).is_err());
    }
}
