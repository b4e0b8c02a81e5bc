//! CMMD (Jayasumana et al. 2024): the squared MMD under the kernel exp(−‖x − y‖²/2σ²), σ = 10, over all pairs, those of a row with
//! itself included (the biased estimator), times 1,000. Its features are image embeddings of CLIP ViT-L/14 at 336 pixels, each divided
//! by its norm.

use candle_core::{D, DType, Tensor};

use super::pairs::{check, distances, squared_norms};
use crate::error::{Error, Result};

const SIGMA: f64 = 10.0;
const SCALE: f64 = 1000.0;

/// CMMD of embeddings `[N, d]`, `[M, d]` as the network gives them: they are divided by their norms here.
///
/// # Errors
/// When widths differ, a matrix has no row, or a row is of zeros.
pub fn cmmd(real: &Tensor, generated: &Tensor) -> Result<f64> {
    check("CMMD", real, generated, 0)?;
    for embeddings in [real, generated] {
        if squared_norms(embeddings)?.contains(&0.0) {
            return Err(Error::invalid("CMMD compares directions of embeddings, and one of zeros has none"));
        }
    }
    let (x, y) = (normalised(real)?, normalised(generated)?);
    Ok(SCALE * (mean_kernel(&x, &x)? + mean_kernel(&y, &y)? - 2.0 * mean_kernel(&x, &y)?))
}

fn normalised(t: &Tensor) -> Result<Tensor> {
    let t = t.to_dtype(DType::F64)?;
    Ok(t.broadcast_div(&t.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?)
}

/// Mean of the kernel over all pairs of rows.
fn mean_kernel(a: &Tensor, b: &Tensor) -> Result<f64> {
    let kernel = |squared: &f64| (-squared / (2.0 * SIGMA * SIGMA)).exp();
    let sums = distances(a, b, |_, row| row.iter().map(kernel).sum::<f64>())?;
    Ok(sums.iter().sum::<f64>() / (a.dim(0)? * b.dim(0)?) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn embeddings_count_by_their_direction() {
        let rows = |v: &[[f64; 2]]| Tensor::from_vec(v.concat(), (v.len(), 2), &Device::Cpu).unwrap();
        let (x, y) = (rows(&[[3.0, 0.0], [0.0, 0.5]]), rows(&[[7.0, 0.0]]));
        // Squared distances of directions are 0 and 2.
        let k = (-0.01f64).exp();
        let want = 1000.0 * ((2.0 + 2.0 * k) / 4.0 + 1.0 - (1.0 + k));
        assert!((cmmd(&x, &y).unwrap() - want).abs() < 1e-10);
        assert!(cmmd(&x, &x).unwrap().abs() < 1e-10);
        assert!(cmmd(&x, &rows(&[[0.0, 0.0]])).unwrap_err().to_string().contains("of zeros"));
        assert!(cmmd(&x, &Tensor::ones((2, 3), DType::F64, &Device::Cpu).unwrap()).is_err());
    }
}
