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

/// Subsets of the rows of a matrix.
struct Subsets {
    /// Those rows that are in any, `[N, d]`.
    rows: Tensor,
    /// Which of them each subset has.
    of: Vec<Vec<usize>>,
}

impl Subsets {
    fn new(t: &Tensor, of: &[Vec<u32>]) -> Result<Self> {
        let mut rows = of.concat();
        rows.sort_unstable();
        rows.dedup();
        let place = |row: &u32| rows.partition_point(|r| r < row);
        let of = of.iter().map(|subset| subset.iter().map(place).collect()).collect();
        Ok(Self { rows: t.index_select(&Tensor::new(rows.as_slice(), t.device())?, 0)?, of })
    }

    /// Sum of the kernel over all pairs of a row of a subset and one of the other's, for each subset.
    fn kernel_sums(&self, other: &Self) -> Result<Vec<f64>> {
        let (n, d) = self.rows.dims2()?;
        let mut holders = vec![Vec::new(); n];
        for (subset, rows) in self.of.iter().enumerate() {
            rows.iter().for_each(|&row| holders[row].push(subset));
        }
        let of_rows = products(&self.rows, &other.rows, |i, row| {
            row.iter_mut().for_each(|product| *product = kernel(*product, d));
            holders[i].iter().map(|&subset| other.of[subset].iter().map(|&j| row[j]).sum()).collect::<Vec<f64>>()
        })?;
        let mut sums = vec![0.0; self.of.len()];
        for (holders, of_row) in holders.iter().zip(of_rows) {
            holders.iter().zip(of_row).for_each(|(&subset, sum)| sums[subset] += sum);
        }
        Ok(sums)
    }

    /// Mean of the kernel over all pairs of different rows of a subset, for each subset.
    fn within(&self) -> Result<Vec<f64>> {
        let d = self.rows.dim(1)?;
        let own: Vec<f64> = squared_norms(&self.rows)?.into_iter().map(|norm| kernel(norm, d)).collect();
        let mean = |(sum, rows): (f64, &Vec<usize>)| {
            let n = rows.len();
            (sum - rows.iter().map(|&row| own[row]).sum::<f64>()) / (n * (n - 1)) as f64
        };
        Ok(self.kernel_sums(self)?.into_iter().zip(&self.of).map(mean).collect())
    }
}

/// Unbiased squared MMD between subsets of either side, one after the other.
fn between(real: &Subsets, generated: &Subsets) -> Result<Vec<f64>> {
    let within = real.within()?.into_iter().zip(generated.within()?);
    let pairs = real.of.iter().zip(&generated.of).map(|(x, y)| (x.len() * y.len()) as f64);
    let across = real.kernel_sums(generated)?.into_iter().zip(pairs).map(|(sum, pairs)| sum / pairs);
    Ok(within.zip(across).map(|((real, generated), across)| real + generated - 2.0 * across).collect())
}

/// Unbiased squared MMD between all rows of two feature matrices `[N, d]`, `[M, d]`.
///
/// # Errors
/// When widths differ, a matrix has fewer than two rows, or features are not finite.
pub fn mmd2(real: &Tensor, generated: &Tensor) -> Result<f64> {
    check("an MMD", real, generated, 1)?;
    let all = |t: &Tensor| Ok::<_, Error>(Subsets { rows: t.clone(), of: vec![(0..t.dim(0)?).collect()] });
    Ok(between(&all(real)?, &all(generated)?)?[0])
}

/// [`mmd2`] over random subsets drawn without replacement.
///
/// # Errors
/// As for [`mmd2`], and when a subset is larger than a matrix.
pub fn over_subsets(real: &Tensor, generated: &Tensor, subsets: usize, size: usize, seed: u64) -> Result<Kid> {
    check("an MMD", real, generated, 1)?;
    let (n, m) = (real.dim(0)?, generated.dim(0)?);
    if !(2..=n.min(m)).contains(&size) || subsets == 0 {
        return Err(Error::invalid(format!("{subsets} subsets of {size} rows cannot be drawn from {}", n.min(m))));
    }
    let drawn = |n: usize, which: &str| -> Vec<Vec<u32>> {
        let of = |subset: usize| {
            let mut order = Stream::new(seed, which, subset as u64).permutation(n);
            order.truncate(size);
            order
        };
        (0..subsets).map(of).collect()
    };
    let (of_real, of_generated) = (drawn(n, "kid/real"), drawn(m, "kid/generated"));
    // The kernel of all pairs once, where subsets have more pairs than there are.
    let together = if n.max(m).pow(2) <= subsets * size * size { subsets } else { 1 };
    let mut values = Vec::new();
    for (x, y) in of_real.chunks(together).zip(of_generated.chunks(together)) {
        values.extend(between(&Subsets::new(real, x)?, &Subsets::new(generated, y)?)?);
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
        // Subsets of five of seven rows, and all five: of their own rows, or of the kernel of all pairs.
        let draw = |which: &str, t: &Tensor, subset: u64| {
            let mut order = Stream::new(0, which, subset).permutation(t.dim(0).unwrap());
            order.truncate(5);
            t.index_select(&Tensor::new(order, &candle_core::Device::Cpu).unwrap(), 0).unwrap()
        };
        for subsets in [1, 3] {
            let of = |k| mmd2(&draw("kid/real", &x, k), &draw("kid/generated", &y, k)).unwrap();
            let values: Vec<f64> = (0..subsets).map(of).collect();
            let (got, mean) = (over_subsets(&x, &y, subsets as usize, 5, 0).unwrap(), mean_and_deviation(&values).0);
            assert!((got.mean - mean).abs() < 1e-12 && (got.std > 0.0) == (subsets > 1), "{got:?}, {mean}");
        }
        assert!(over_subsets(&x, &y, 1, 6, 0).is_err() && over_subsets(&x, &y, 1, 1, 0).is_err());
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
