//! Kernel Inception Distance (Bińkowski et al. 2018): the unbiased squared MMD under the kernel (x·y/d + 1)³. Over the features of another
//! network than Inception it is called KD (Stein et al. 2023), and is the same.

use candle_core::{DType, Tensor};

use super::pairs::{check, products, squared_norms};
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::statistics::mean_and_deviation;

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

/// The kernel of an inner product.
fn kernel(product: f64, d: usize) -> f64 {
    (product / d as f64 + 1.0).powi(3)
}

/// Sum of the kernel over all pairs of rows.
fn kernel_sum(a: &Tensor, b: &Tensor) -> Result<f64> {
    let d = a.dim(1)?;
    let sums = products(a, b, |_, row| row.iter().map(|&product| kernel(product, d)).sum::<f64>())?;
    Ok(sums.iter().sum())
}

/// Unbiased squared MMD between all rows of two feature matrices `[N, d]`, `[M, d]`.
///
/// # Errors
/// When widths differ, a matrix has fewer than two rows, or features are not finite.
pub fn mmd2(real: &Tensor, generated: &Tensor) -> Result<f64> {
    check("an MMD", real, generated, 1)?;
    let ((n, d), m) = (real.dims2()?, generated.dim(0)?);
    let within = |t: &Tensor, n: usize| -> Result<f64> {
        let own: f64 = squared_norms(t)?.into_iter().map(|norm| kernel(norm, d)).sum();
        Ok((kernel_sum(t, t)? - own) / (n * (n - 1)) as f64)
    };
    Ok(within(real, n)? + within(generated, m)? - 2.0 * kernel_sum(real, generated)? / (n * m) as f64)
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

/// Standard deviation of [`mmd2`] over bootstrap replicates of the generated rows. A pair of one row with itself is no
/// pair of different images, so replicates leave it out wherever it was drawn twice.
///
/// # Errors
/// As for [`mmd2`].
pub fn bootstrap(real: &Tensor, generated: &Tensor, replicates: usize, seed: u64) -> Result<f64> {
    let (x, y) = (real.to_dtype(DType::F64)?, generated.to_dtype(DType::F64)?);
    let ((n, _), (m, d)) = (x.dims2()?, y.dims2()?);
    let mut counts = vec![0f64; m * replicates];
    for replicate in 0..replicates {
        let mut stream = Stream::new(seed, "kid/bootstrap", replicate as u64);
        (0..m).for_each(|_| counts[stream.below(m) * replicates + replicate] += 1.0);
    }
    let counts = Tensor::from_vec(counts, (m, replicates), y.device())?;
    let kernel = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        let t = ((a.matmul(&b.t()?)? / d as f64)? + 1.0)?;
        Ok((t.sqr()? * t)?)
    };
    let (mut within, mut pairs, mut across) = (vec![0.0; replicates], vec![0.0; replicates], vec![0.0; replicates]);
    let add = |to: &mut [f64], of: Tensor| -> Result<()> {
        to.iter_mut().zip(of.sum(0)?.to_vec1::<f64>()?).for_each(|(to, v)| *to += v);
        Ok(())
    };
    for first in (0..m).step_by(ROWS) {
        let len = ROWS.min(m - first);
        let (rows, w) = (y.narrow(0, first, len)?, counts.narrow(0, first, len)?);
        let own = ((rows.sqr()?.sum_keepdim(1)? / d as f64)? + 1.0)?.powf(3.0)?;
        add(&mut within, (kernel(&rows, &y)?.matmul(&counts)? * &w)?)?;
        add(&mut within, w.sqr()?.broadcast_mul(&own)?.neg()?)?;
        add(&mut pairs, (&w * m as f64 - w.sqr()?)?)?;
        let to_real = kernel(&rows, &x)?.sum_keepdim(1)?;
        add(&mut across, (w.broadcast_mul(&to_real)? / (n * m) as f64)?)?;
    }
    let values: Vec<f64> =
        within.iter().zip(&pairs).zip(&across).map(|((within, pairs), across)| within / pairs - 2.0 * across).collect();
    Ok(mean_and_deviation(&values).1)
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

    #[test]
    fn bootstrap_is_the_spread_over_fresh_samples() {
        let make = |k: usize| random(&format!("y{k}"), &[200, 3]);
        let real = (random("x", &[300, 3]) * 1.5).unwrap();
        let fresh: Vec<f64> = (0..300).map(|k| mmd2(&real, &make(k)).unwrap()).collect();
        let got = bootstrap(&real, &make(0), 300, 0).unwrap();
        let want = mean_and_deviation(&fresh).1;
        assert!((got / want - 1.0).abs() < 0.25, "{got} against {want}");
    }
}
