//! Kernel Inception Distance (Bińkowski et al. 2018): the unbiased squared MMD under the kernel (x·y/d + 1)³.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::rng::Stream;

/// Rows of the kernel matrix held at a time.
const ROWS: usize = 1000;

/// Mean and standard deviation (ddof 0) over subsets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kid {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

/// Sum of the kernel over all pairs of rows, and over the pairs of a row with itself where `a` is `b`.
fn kernel_sums(a: &Tensor, b: &Tensor) -> Result<[f64; 2]> {
    let (n, d) = a.dims2()?;
    let bt = b.t()?;
    let mut all = 0.0;
    for first in (0..n).step_by(ROWS) {
        let rows = a.narrow(0, first, ROWS.min(n - first))?;
        let product = ((rows.matmul(&bt)? / d as f64)? + 1.0)?;
        all += (product.sqr()? * product)?.sum_all()?.to_scalar::<f64>()?;
    }
    let own = ((a.sqr()?.sum(1)? / d as f64)? + 1.0)?;
    Ok([all, (own.sqr()? * own)?.sum_all()?.to_scalar::<f64>()?])
}

/// Unbiased squared MMD between all rows of two feature matrices `[N, d]`, `[M, d]`.
///
/// # Errors
/// When widths differ, or a matrix has fewer than two rows.
pub fn mmd2(real: &Tensor, generated: &Tensor) -> Result<f64> {
    let (x, y) = (real.to_dtype(DType::F64)?, generated.to_dtype(DType::F64)?);
    let ((n, d), (m, e)) = (x.dims2()?, y.dims2()?);
    if d != e || n < 2 || m < 2 {
        return Err(Error::invalid(format!(
            "an MMD needs two matrices of one width and two rows or more, got {n}×{d} and {m}×{e}"
        )));
    }
    let within = |t: &Tensor, n: usize| -> Result<f64> {
        let [all, own] = kernel_sums(t, t)?;
        Ok((all - own) / (n * (n - 1)) as f64)
    };
    Ok(within(&x, n)? + within(&y, m)? - 2.0 * kernel_sums(&x, &y)?[0] / (n * m) as f64)
}

/// [`mmd2`] over random subsets drawn without replacement.
///
/// # Errors
/// As for [`mmd2`], and when a subset is larger than a matrix.
pub fn over_subsets(real: &Tensor, generated: &Tensor, subsets: usize, size: usize, seed: u64) -> Result<Kid> {
    let smaller = real.dim(0)?.min(generated.dim(0)?);
    if size > smaller || subsets == 0 {
        return Err(Error::invalid(format!("{subsets} subsets of {size} rows cannot be drawn from {smaller}")));
    }
    let mut values = Vec::new();
    for subset in 0..subsets {
        let draw = |t: &Tensor, which: &str| -> Result<Tensor> {
            let mut order = Stream::new(seed, which, subset as u64).permutation(t.dim(0)?);
            order.truncate(size);
            Ok(t.index_select(&Tensor::from_vec(order, size, t.device())?, 0)?)
        };
        values.push(mmd2(&draw(real, "kid/real")?, &draw(generated, "kid/generated")?)?);
    }
    let mean = values.iter().sum::<f64>() / subsets as f64;
    let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / subsets as f64).sqrt();
    Ok(Kid { mean, std })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::random;

    #[test]
    fn it_is_the_double_sum() {
        let (x, y) = (random("x", &[7, 3]), random("y", &[5, 3]));
        let rows = |t: &Tensor| t.to_vec2::<f64>().unwrap();
        let kernel = |a: &[f64], b: &[f64]| (a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / 3.0 + 1.0).powi(3);
        let within = |t: &[Vec<f64>]| {
            let n = t.len();
            let pairs = (0..n * n).filter(|p| p / n != p % n);
            pairs.map(|p| kernel(&t[p / n], &t[p % n])).sum::<f64>() / (n * (n - 1)) as f64
        };
        let (a, b) = (rows(&x), rows(&y));
        let across = a.iter().flat_map(|a| b.iter().map(move |b| kernel(a, b))).sum::<f64>() / 35.0;
        let want = within(&a) + within(&b) - 2.0 * across;
        assert!((mmd2(&x, &y).unwrap() - want).abs() < 1e-12);
        // A subset of all rows is the whole.
        let whole = over_subsets(&x, &y.clone(), 3, 5, 0).unwrap();
        assert!(whole.std > 0.0 && over_subsets(&x, &y, 1, 6, 0).is_err());
    }
}
