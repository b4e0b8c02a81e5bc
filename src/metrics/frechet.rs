//! Fréchet distance between Gaussians of features (Heusel et al. 2017): ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2·√(Σ₁Σ₂)).
//!
//! Statistics are accumulated in f64 as a stream, covariances with N − 1, where the features are: a GPU makes the products of 10,000
//! of 2,048 dimensions (84 GFLOP) in the time that the copy to the host would take to begin, and nothing has to be overlapped.
//!
//! No root of a covariance is taken. With Σ = L·Lᵀ, where L has as many columns as Σ has rank, the trace of the root is the sum of
//! the singular values of L₁ᵀ·L₂, and the distance the least ‖L₁ − L₂·R‖² over rotations R. So fewer images than dimensions
//! cost no precision: what is zero stays out, while the root of its rounding would be 10⁸ times as large.

use candle_core::{DType, Device, Tensor};
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt_pivoting::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::{Mat, Par, Side, set_global_parallelism};

use crate::error::{Error, Result};
use crate::nn::image::add_channel_sum;
use crate::nn::matrix::{add_transposed_product, centred};
use crate::rng::Stream;
use crate::statistics::mean_and_deviation;

/// Rows widened to f64 at a time.
const ROWS: usize = 2048;

/// Running sums of features, of any number of images.
#[derive(Debug)]
pub struct FeatureSums {
    pub(super) n: usize,
    /// Subtracted from every feature, so that sums of squares do not lose the covariance: the first batch's mean.
    origin: Option<Tensor>,
    sum: Tensor,
    outer: Tensor,
}

/// Mean and covariance of features.
#[derive(Debug, Clone)]
pub struct Gaussian {
    /// Images they were taken from.
    pub n: usize,
    /// `dim` values.
    pub mean: Vec<f64>,
    /// `dim × dim`, symmetric.
    pub covariance: Mat<f64>,
}

impl FeatureSums {
    /// No image yet.
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn new(dim: usize) -> Result<Self> {
        let zeros = |shape: &[usize]| Tensor::from_vec(vec![0f64; shape.iter().product()], shape, &Device::Cpu);
        Ok(Self { n: 0, origin: None, sum: zeros(&[dim])?, outer: zeros(&[dim, dim])? })
    }

    /// Adds features `[N, dim]` of f32 or f64; the sums are where the first of them were.
    ///
    /// # Errors
    /// When their width differs.
    pub fn add(&mut self, features: &Tensor) -> Result<()> {
        let origin = match &self.origin {
            Some(origin) => origin.clone(),
            None => {
                let device = features.device();
                self.sum = self.sum.to_device(device)?;
                self.outer = self.outer.to_device(device)?;
                let first = features.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
                self.origin.insert(first.mean(0)?.to_device(device)?).clone()
            }
        };
        let x = centred(features, &origin)?;
        self.n += x.dim(0)?;
        add_channel_sum(&x, None, &self.sum)?;
        add_transposed_product(&x, &x, &self.outer)?;
        Ok(())
    }

    /// Mean and covariance.
    ///
    /// # Errors
    /// With fewer than two images, or features that are not finite.
    pub fn finish(&self) -> Result<Gaussian> {
        let Some(origin) = self.origin.as_ref().filter(|_| self.n > 1) else {
            return Err(Error::invalid(format!("a covariance needs at least two images, got {}", self.n)));
        };
        let row = |t: &Tensor| t.to_device(&Device::Cpu)?.to_vec1::<f64>();
        let (origin, sum) = (row(origin)?, row(&self.sum)?);
        let outer = self.outer.to_device(&Device::Cpu)?.to_vec2::<f64>()?;
        let n = self.n as f64;
        let mean: Vec<f64> = origin.iter().zip(&sum).map(|(o, s)| o + s / n).collect();
        let covariance = Mat::from_fn(sum.len(), sum.len(), |i, j| {
            // Both triangles from the same entry: the solver must see an exactly symmetric matrix.
            let (i, j) = (i.max(j), i.min(j));
            (outer[i][j] - sum[i] * sum[j] / n) / (n - 1.0)
        });
        if mean.iter().any(|m| !m.is_finite()) {
            return Err(Error::NotFinite("the features of images"));
        }
        Ok(Gaussian { n: self.n, mean, covariance })
    }
}

/// A Gaussian that others are compared with: its covariance is factored once.
#[derive(Debug)]
pub struct Reference {
    pub(super) mean: Vec<f64>,
    pub(super) factor: Mat<f64>,
}

/// Parts that linear algebra cuts its work into, on however many threads: sums would differ in their last digits otherwise.
pub(super) const PARTS: usize = 8;

/// An eigenvalue this far below zero, as a share of the largest, is no rounding, be it that of a file in f16.
const NEGATIVE: f64 = 1e-3;

pub(super) fn failed(e: impl std::fmt::Debug) -> Error {
    Error::invalid(format!("the eigen-decomposition of a covariance failed: {e:?}"))
}

/// `L` of Σ = `L`·`L`ᵀ, `[dim, rank]`, by Cholesky's way with the largest remaining variance first, which ends where no more than
/// rounding is left.
///
/// # Errors
/// When it is no covariance.
fn factor(of: &Mat<f64>) -> Result<Mat<f64>> {
    let d = of.nrows();
    if (0..d).all(|j| (0..d).all(|i| of[(i, j)] == 0.0)) {
        return Ok(Mat::zeros(d, 0));
    }
    let par = Par::rayon(PARTS);
    set_global_parallelism(par);
    let (mut lower, mut order, mut places) = (of.clone(), vec![0usize; d], vec![0usize; d]);
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<usize, f64>(d, par, Default::default()));
    let stack = MemStack::new(&mut memory);
    let done = cholesky_in_place(lower.as_mut(), &mut order, &mut places, par, stack, Default::default());
    if let Ok((info, _)) = done {
        let entry = |i: usize, j: usize| if places[i] < j { 0.0 } else { lower[(places[i], j)] };
        let factor = Mat::from_fn(d, info.rank, entry);
        // It trusts what it is given. A matrix that is no product shows itself by what it does to any vector.
        let mut stream = Stream::new(0, "fid/factor", 0);
        let signs = Mat::from_fn(d, 1, |_, _| if stream.below(2) == 0 { -1.0 } else { 1.0 });
        let largest = (0..d).map(|i| of[(i, i)]).fold(0.0, f64::max);
        let left = of * &signs - &factor * (factor.transpose() * &signs);
        if left.norm_max() <= 8.0 * (d * d) as f64 * f64::EPSILON * largest {
            return Ok(factor);
        }
    }
    eigen_factor(of)
}

/// The factor of a covariance that was rounded to fewer digits, so that some eigenvalues are below zero: what is no larger than
/// these is noise.
fn eigen_factor(of: &Mat<f64>) -> Result<Mat<f64>> {
    let eigen = of.self_adjoint_eigen(Side::Lower).map_err(failed)?;
    let (vectors, values) = (eigen.U(), eigen.S().column_vector());
    let d = values.nrows();
    let (lowest, largest) = (values[0], values[d - 1]);
    if lowest.is_nan() || lowest < -NEGATIVE * largest {
        return Err(Error::invalid(format!(
            "not a covariance: its eigenvalues reach from {lowest:e} to {largest:e}, and none of a covariance is negative"
        )));
    }
    let noise = (-lowest).max(d as f64 * f64::EPSILON * largest);
    let first = (0..d).find(|&j| values[j] > noise).unwrap_or(d);
    Ok(Mat::from_fn(d, d - first, |i, j| vectors[(i, first + j)] * values[first + j].sqrt()))
}

/// Sum of the singular values of `a`ᵀ·`b`. They are the roots of the eigenvalues of its square, which keep their digits: the columns
/// of the factors are in order of size.
fn root_trace(a: &Mat<f64>, b: &Mat<f64>) -> Result<f64> {
    let (few, many) = if a.ncols() < b.ncols() { (a, b) } else { (b, a) };
    if few.ncols() == 0 {
        return Ok(0.0);
    }
    let product = many.transpose() * few;
    let values = (product.transpose() * &product).self_adjoint_eigenvalues(Side::Lower).map_err(failed)?;
    Ok(values.iter().map(|v| v.max(0.0).sqrt()).sum())
}

impl Reference {
    /// Factors the covariance.
    ///
    /// # Errors
    /// When it is no covariance.
    pub fn new(of: &Gaussian) -> Result<Self> {
        Ok(Self { mean: of.mean.clone(), factor: factor(&of.covariance)? })
    }

    /// Fréchet distance of a Gaussian to this one.
    ///
    /// # Errors
    /// When widths differ, the other's covariance is none, or numbers are so large that the distance overflows.
    pub fn distance(&self, to: &Gaussian) -> Result<f64> {
        let (d, e) = (self.mean.len(), to.mean.len());
        if d != e {
            return Err(Error::invalid(format!("features of {d} and {e} dimensions cannot be compared")));
        }
        let means: f64 = self.mean.iter().zip(&to.mean).map(|(x, y)| (x - y).powi(2)).sum();
        let factor = factor(&to.covariance)?;
        let traces = self.factor.squared_norm_l2() + factor.squared_norm_l2();
        let distance = means + traces - 2.0 * root_trace(&self.factor, &factor)?;
        if !distance.is_finite() {
            return Err(Error::invalid(format!("the Fréchet distance is {distance}: the statistics are too large")));
        }
        // Below zero is rounding, of the size of the traces' last digits.
        Ok(distance.max(0.0))
    }

    /// Standard deviation of [`Reference::distance`] over bootstrap replicates of features `[N, dim]` (Efron 1979): each
    /// is N of the rows drawn with replacement. The reference stays as it is: it is part of the protocol.
    ///
    /// # Errors
    /// As for [`Reference::distance`].
    pub fn bootstrap(
        &self,
        features: &Tensor,
        replicates: usize,
        seed: u64,
        progress: &mut dyn FnMut(),
    ) -> Result<f64> {
        let (n, d) = features.dims2()?;
        let mut values = Vec::new();
        for replicate in 0..replicates {
            let mut stream = Stream::new(seed, "fid/bootstrap", replicate as u64);
            let rows: Vec<u32> = (0..n).map(|_| stream.below(n) as u32).collect();
            let mut sums = FeatureSums::new(d)?;
            for part in rows.chunks(ROWS) {
                sums.add(&features.index_select(&Tensor::new(part, features.device())?, 0)?)?;
            }
            values.push(self.distance(&sums.finish()?)?);
            progress();
        }
        Ok(mean_and_deviation(&values).1)
    }
}

/// Fréchet distance between two Gaussians.
///
/// # Errors
/// As for [`Reference::distance`].
pub fn distance(a: &Gaussian, b: &Gaussian) -> Result<f64> {
    Reference::new(a)?.distance(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::compute::Compute;
    use crate::nn::testing::random;

    fn gaussian(name: &str, n: usize, dim: usize, batches: usize) -> Gaussian {
        let x = (random(name, &[n, dim]) + 100.0).unwrap();
        let mut sums = FeatureSums::new(dim).unwrap();
        for part in x.chunk(batches, 0).unwrap() {
            sums.add(&part).unwrap();
        }
        sums.finish().unwrap()
    }

    #[test]
    fn streaming_is_the_two_pass_covariance() {
        let x = (random("a", &[50, 4]) + 100.0).unwrap();
        let centred = x.broadcast_sub(&x.mean(0).unwrap()).unwrap();
        let want = (centred.t().unwrap().matmul(&centred).unwrap() / 49.0).unwrap().to_vec2::<f64>().unwrap();
        let got = gaussian("a", 50, 4, 7);
        let worst = (0..16).map(|k| (got.covariance[(k / 4, k % 4)] - want[k / 4][k % 4]).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-12, "{worst}");
    }

    #[test]
    fn devices_sum_as_the_cpu_does() {
        let x = (random("x", &[90, 70]) + 3.0).unwrap().to_dtype(DType::F32).unwrap();
        let sums = |x: &Tensor| {
            let mut sums = FeatureSums::new(70).unwrap();
            x.chunk(4, 0).unwrap().iter().for_each(|part| sums.add(part).unwrap());
            assert!(sums.outer.device().same_device(x.device()));
            sums.finish().unwrap()
        };
        let (got, want) = (sums(&x), Compute::cpu().run(|| sums(&x.to_device(&Device::Cpu).unwrap())));
        let means = got.mean.iter().zip(&want.mean).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let covariances = (&got.covariance - &want.covariance).norm_max();
        assert!(means < 1e-12 && covariances < 1e-12, "{means}, {covariances}");
    }

    #[test]
    fn diagonal_gaussians_have_a_closed_form() {
        let make = |mean: [f64; 2], var: [f64; 2]| Gaussian {
            n: 10,
            mean: mean.to_vec(),
            covariance: Mat::from_fn(2, 2, |i, j| if i == j { var[i] } else { 0.0 }),
        };
        let (a, b) = (make([0.0, 1.0], [4.0, 9.0]), make([3.0, 1.0], [1.0, 16.0]));
        // 3² + (2 − 1)² + (3 − 4)²
        assert!((distance(&a, &b).unwrap() - 11.0).abs() < 1e-12);
    }

    #[test]
    fn bootstrap_is_the_spread_over_fresh_samples() {
        let make = |k: usize| random(&format!("x{k}"), &[400, 3]);
        let gaussian = |x: &Tensor| {
            let mut sums = FeatureSums::new(3).unwrap();
            sums.add(x).unwrap();
            sums.finish().unwrap()
        };
        let reference = Reference::new(&gaussian(&(make(1000) * 1.5).unwrap())).unwrap();
        let fresh: Vec<f64> = (0..300).map(|k| reference.distance(&gaussian(&make(k))).unwrap()).collect();
        let got = reference.bootstrap(&make(0), 300, 0, &mut || ()).unwrap();
        let want = mean_and_deviation(&fresh).1;
        assert!((got / want - 1.0).abs() < 0.25, "{got} against {want}");
        assert_eq!(got, reference.bootstrap(&make(0), 300, 0, &mut || ()).unwrap());
    }

    fn of(rows: &[&[f64]]) -> Gaussian {
        let mut sums = FeatureSums::new(rows[0].len()).unwrap();
        sums.add(&Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), &Device::Cpu).unwrap()).unwrap();
        sums.finish().unwrap()
    }

    fn variance(of: &Gaussian) -> f64 {
        (0..of.mean.len()).map(|i| of.covariance[(i, i)]).sum()
    }

    #[test]
    fn fewer_images_than_dimensions_cost_no_precision() {
        let a = of(&[
            &[0.0, 5.0, 10.0, 4.0, 9.0, 3.0],
            &[3.0, 9.0, 6.0, 5.0, 6.0, 9.0],
            &[1.0, 8.0, 8.0, 1.0, 9.0, 10.0],
            &[5.0, 2.0, 5.0, 3.0, 7.0, 6.0],
        ]);
        let b = of(&[
            &[0.0, 7.0, 1.0, 8.0, 2.0, 9.0],
            &[2.0, 10.0, 7.0, 6.0, 7.0, 10.0],
            &[8.0, 4.0, 4.0, 8.0, 3.0, 2.0],
            &[5.0, 2.0, 5.0, 1.0, 3.0, 11.0],
            &[6.0, 4.0, 10.0, 11.0, 7.0, 11.0],
        ]);
        // Singular values of the product of the centred features with 60 digits (mpmath); scipy's sqrtm says 72.53095836.
        let want = 72.530_958_934_504_84;
        for got in [distance(&a, &b).unwrap(), distance(&b, &a).unwrap()] {
            assert!((got - want).abs() < 1e-12 * want, "{got}");
        }
        // Of two images a side, Σ = ½·δ·δᵀ, and the trace of the root |δ₁·δ₂|/2: and these have the same mean.
        let (a, b) = (of(&[&[0.0, 0.0, 0.0], &[1.0, 2.0, 3.0]]), of(&[&[-0.5, -0.5, 0.0], &[1.5, 2.5, 3.0]]));
        assert!((distance(&a, &b).unwrap() - (14.0 + 22.0 - 2.0 * 17.0) / 2.0).abs() < 1e-12);
        assert!(FeatureSums::new(3).unwrap().finish().is_err());
    }

    #[test]
    fn equal_sets_are_at_zero() {
        for (n, dim) in [(2, 20), (8, 20), (20, 20), (21, 20), (500, 20), (90, 300)] {
            let (a, b) = (gaussian("a", n, dim, 1), gaussian("a", n, dim, 2));
            for other in [&a, &b] {
                let got = distance(&a, other).unwrap();
                assert!((0.0..1e-12 * variance(&a)).contains(&got), "{n} images of {dim}: {got}");
            }
        }
        let still = Gaussian { n: 5, mean: vec![0.0, 3.0], covariance: Mat::zeros(2, 2) };
        assert_eq!(distance(&still, &still).unwrap(), 0.0);
    }

    #[test]
    fn distances_are_symmetric_and_of_any_number_of_threads() {
        let (a, b) = (gaussian("a", 150, 300, 1), gaussian("b", 700, 300, 1));
        let on = |threads: usize, a: &Gaussian, b: &Gaussian| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| distance(a, b).unwrap())
        };
        let want = on(1, &a, &b);
        assert!((on(1, &b, &a) - want).abs() < 1e-12 * variance(&a));
        for threads in [2, 3] {
            assert_eq!(on(threads, &a, &b).to_bits(), want.to_bits());
        }
    }

    #[test]
    fn covariances_of_fewer_digits_are_fine_and_what_is_none_is_refused() {
        let (exact, other) = (gaussian("a", 100, 300, 1), gaussian("b", 100, 300, 1));
        let with = |entry: &dyn Fn(usize, usize) -> f64| Gaussian {
            covariance: Mat::from_fn(300, 300, entry),
            ..exact.clone()
        };
        let rounded = with(&|i, j| f64::from(exact.covariance[(i, j)] as f32));
        let (got, want) = (distance(&rounded, &other).unwrap(), distance(&exact, &other).unwrap());
        assert!((got / want - 1.0).abs() < 1e-5, "{got} against {want}");

        let negative = with(&|i, j| -exact.covariance[(i, j)]);
        let indefinite = with(&|i, j| f64::from(i.abs_diff(j) == 1) + f64::from(i == j));
        let hollow = with(&|i, j| f64::from(i != j));
        let wild = with(&|i, j| if i == j { f64::NAN } else { 0.0 });
        for none in [negative, indefinite, hollow, wild] {
            for refused in [distance(&none, &exact), distance(&exact, &none)] {
                assert!(refused.unwrap_err().to_string().contains("covariance"));
            }
        }
        let far = Gaussian { mean: vec![1e200; 300], ..exact.clone() };
        assert!(distance(&exact, &far).unwrap_err().to_string().contains("too large"));
    }
}
