//! MIND, Monge Inception Distance (Berthet et al. 2026): α times the mean, over random unit directions, of the squared 2-Wasserstein
//! distance between the projections of two sets, which is that of their sorted values; α = 3·d.

use candle_core::{D, Device, Tensor};

use super::pairs::{check, products};
use crate::error::{Error, Result};
use crate::rng::Stream;

/// Number of directions of the published protocol.
pub const DIRECTIONS: usize = 1000;
/// Directions whose sorted projections are held at a time.
const HELD: usize = 128;

/// Random unit vectors `[count, dim]`, f64.
///
/// # Errors
/// When the memory is refused.
pub fn directions(count: usize, dim: usize, seed: u64) -> Result<Tensor> {
    let mut stream = Stream::new(seed, "mind/directions", 0);
    let normals: Vec<f64> = (0..count * dim).map(|_| stream.normal()).collect();
    let vectors = Tensor::from_vec(normals, (count, dim), &Device::Cpu)?;
    Ok(vectors.broadcast_div(&vectors.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?)
}

/// MIND of as many features `[N, d]` on either side, along unit `directions` `[K, d]`.
///
/// # Errors
/// When shapes differ, or there are none.
pub fn mind(real: &Tensor, generated: &Tensor, directions: &Tensor) -> Result<f64> {
    check("MIND", real, generated, 0)?;
    check("MIND", real, directions, 0)?;
    let ((n, d), m) = (real.dims2()?, generated.dim(0)?);
    if n != m {
        return Err(Error::invalid(format!("MIND compares as many features, not {n} with {m}: leave the rest out")));
    }
    let count = directions.dim(0)?;
    let mut sum = 0.0;
    for first in (0..count).step_by(HELD) {
        let some = directions.narrow(0, first, HELD.min(count - first))?;
        let sorted = |features: &Tensor| {
            products(&some, features, |_, row| {
                row.sort_unstable_by(f64::total_cmp);
                row.to_vec()
            })
        };
        let (real, generated) = (sorted(real)?, sorted(generated)?);
        let pairs = real.iter().flatten().zip(generated.iter().flatten());
        sum += pairs.map(|(x, y)| (x - y).powi(2)).sum::<f64>();
    }
    Ok(3.0 * d as f64 * sum / (n * count) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::random;

    #[test]
    fn along_axes_it_is_the_sorted_difference() {
        let rows = |v: &[[f64; 2]]| Tensor::from_vec(v.concat(), (v.len(), 2), &Device::Cpu).unwrap();
        let (x, y) = (rows(&[[0.0, 5.0], [3.0, 1.0]]), rows(&[[4.0, 1.0], [1.0, 6.0]]));
        // First axis: 0, 3 against 1, 4; second: 1, 5 against 1, 6.
        let axes = rows(&[[1.0, 0.0], [0.0, 1.0]]);
        assert!((mind(&x, &y, &axes).unwrap() - 6.0 * (1.0 + 1.0 + 0.0 + 1.0) / 4.0).abs() < 1e-12);
        assert!(mind(&x, &rows(&[[0.0, 0.0]]), &axes).unwrap_err().to_string().contains("not 2 with 1"));
    }

    #[test]
    fn a_shift_costs_three_times_its_square() {
        let x = random("x", &[40, 6]);
        let y = x.broadcast_add(&Tensor::new(&[2f64, 0.0, 0.0, 0.0, 0.0, 0.0], &Device::Cpu).unwrap()).unwrap();
        // The mean of (u·δ)² over unit vectors is |δ|²/d.
        let got = mind(&x, &y, &directions(20_000, 6, 0).unwrap()).unwrap();
        assert!((got / 12.0 - 1.0).abs() < 0.03, "{got}");
    }
}
