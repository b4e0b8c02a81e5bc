//! Fréchet distances of a growing set of features to one Gaussian, for FD∞.

use candle_core::{DType, Device, Tensor};
use faer::{Mat, Par, Side, set_global_parallelism};

use super::frechet::{FeatureSums, PARTS, Reference, failed};
use crate::error::{Error, Result};

/// The features so far. The trace of √(Σ₁Σ₂) is the sum of the singular values of X·`L`/√(n − 1), where
/// Σ₁ = `L`·`L`ᵀ and X are the centred features: these are multiplied with `L` once, and what is decomposed is X·`L`'s square
/// from its shorter side.
pub struct Growing<'a> {
    reference: &'a Reference,
    mean: Tensor,
    factor: Tensor,
    /// Sum of features less the reference's mean, and of their squares.
    sum: Tensor,
    squares: f64,
    /// Their products with `L`, while they are fewer than its columns.
    few: Option<Tensor>,
    /// Sums of these products.
    products: FeatureSums,
}

impl<'a> Growing<'a> {
    /// No image yet.
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn new(reference: &'a Reference) -> Result<Self> {
        let Reference { mean, factor } = reference;
        let (d, rank) = (mean.len(), factor.ncols());
        let by_rows: Vec<f64> = (0..d).flat_map(|i| (0..rank).map(move |j| factor[(i, j)])).collect();
        Ok(Self {
            reference,
            mean: Tensor::new(mean.as_slice(), &Device::Cpu)?,
            factor: Tensor::from_vec(by_rows, (d, rank), &Device::Cpu)?,
            sum: Tensor::zeros(d, DType::F64, &Device::Cpu)?,
            squares: 0.0,
            few: Some(Tensor::zeros((0, rank), DType::F64, &Device::Cpu)?),
            products: FeatureSums::new(rank)?,
        })
    }

    /// Adds features `[N, dim]` on the CPU.
    ///
    /// # Errors
    /// When their width differs.
    pub fn add(&mut self, features: &Tensor) -> Result<()> {
        let x = features.to_dtype(DType::F64)?.broadcast_sub(&self.mean)?;
        self.sum = (&self.sum + x.sum(0)?)?;
        self.squares += x.sqr()?.sum_all()?.to_scalar::<f64>()?;
        let products = x.matmul(&self.factor)?;
        let is_few = self.products.n + products.dim(0)? < self.reference.factor.ncols();
        self.few = match self.few.take().filter(|_| is_few) {
            Some(few) => Some(Tensor::cat(&[few, products.clone()], 0)?),
            None => None,
        };
        self.products.add(&products)
    }

    /// Fréchet distance of all features so far.
    ///
    /// # Errors
    /// With fewer than two, or such as are not finite.
    pub fn distance(&self) -> Result<f64> {
        let n = self.products.n as f64;
        let squared_sum = self.sum.sqr()?.sum_all()?.to_scalar::<f64>()?;
        let square = match &self.few {
            Some(few) if n > 1.0 => {
                let x = few.broadcast_sub(&few.mean_keepdim(0)?)?;
                let square = (x.matmul(&x.t()?)? / (n - 1.0))?.to_vec2::<f64>()?;
                Mat::from_fn(square.len(), square.len(), |i, j| square[i.max(j)][i.min(j)])
            }
            _ => self.products.finish()?.covariance,
        };
        set_global_parallelism(Par::rayon(PARTS));
        let mut values = square.self_adjoint_eigenvalues(Side::Lower).map_err(failed)?;
        values.sort_unstable_by(|a, b| b.total_cmp(a));
        // So many centred images have no more than this rank: what is left is rounding.
        let root: f64 = values.iter().take(self.products.n - 1).map(|v| v.max(0.0).sqrt()).sum();
        let trace = (self.squares - squared_sum / n) / (n - 1.0);
        let distance = squared_sum / (n * n) + self.reference.factor.squared_norm_l2() + trace - 2.0 * root;
        if !distance.is_finite() {
            return Err(Error::NotFinite("the features of images"));
        }
        Ok(distance.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::random;

    #[test]
    fn a_growing_set_is_at_the_distance_of_its_gaussian() {
        for (real, dim) in [(15, 20), (200, 20)] {
            let mut sums = FeatureSums::new(dim).unwrap();
            sums.add(&(random("a", &[real, dim]) + 100.0).unwrap()).unwrap();
            let reference = Reference::new(&sums.finish().unwrap()).unwrap();
            let x = (random("b", &[90, dim]) + 100.5).unwrap().to_dtype(DType::F32).unwrap();
            let (mut growing, mut sums) = (Growing::new(&reference).unwrap(), FeatureSums::new(dim).unwrap());
            for (first, n) in [(0, 3), (3, 6), (9, 30), (39, 51)] {
                let part = x.narrow(0, first, n).unwrap();
                growing.add(&part).unwrap();
                sums.add(&part).unwrap();
                let want = reference.distance(&sums.finish().unwrap()).unwrap();
                let got = growing.distance().unwrap();
                assert!((got - want).abs() < 1e-10 * want, "{got} is not {want}");
            }
        }
    }
}
