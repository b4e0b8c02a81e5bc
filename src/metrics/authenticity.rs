//! AuthPct, authenticity (Alaa et al. 2022): a generated image is authentic where the training image nearest to it has another
//! training image that is nearer still, so that it is no closer to that one than training images are to each other.

use candle_core::Tensor;

use super::pairs::{check, distances};
use crate::error::Result;

/// Share of generated images that are authentic, in percent, of features `[N, d]` of the training set and `[M, d]`.
///
/// # Errors
/// When widths differ, a matrix has fewer than two rows, or features are not finite.
pub fn auth_pct(train: &Tensor, generated: &Tensor) -> Result<f64> {
    check("AuthPct", train, generated, 1)?;
    let nearest = distances(generated, train, |_, row| least(row))?;
    // Only of training images that are the nearest to some image need the neighbours be known.
    let mut hit: Vec<u32> = nearest.iter().map(|(at, _)| *at as u32).collect();
    hit.sort_unstable();
    hit.dedup();
    let rows = train.index_select(&Tensor::new(hit.as_slice(), train.device())?, 0)?;
    let own = distances(&rows, train, |i, row| {
        row[hit[i] as usize] = f64::INFINITY;
        least(row).1
    })?;
    let authentic = nearest.iter().filter(|(at, distance)| {
        let place = hit.partition_point(|&h| (h as usize) < *at);
        own[place] < *distance
    });
    Ok(100.0 * authentic.count() as f64 / nearest.len() as f64)
}

/// The place and value of the first least of a row.
fn least(row: &[f64]) -> (usize, f64) {
    row.iter().copied().enumerate().fold((0, f64::INFINITY), |best, at| if at.1 < best.1 { at } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn points_on_a_line() {
        let column = |v: &[f64]| Tensor::from_vec(v.to_vec(), (v.len(), 1), &Device::Cpu).unwrap();
        // 0.1 is nearer to 0 than 1 is: a copy. 2 is as far from 1 as 0 is, which is not nearer: a copy. 50 is authentic, since 10
        // has 1 at distance 9; 6 is not, at distance 4.
        let train = column(&[0.0, 1.0, 10.0]);
        assert_eq!(auth_pct(&train, &column(&[0.1, 2.0, 50.0, 6.0])).unwrap(), 25.0);
        assert_eq!(auth_pct(&train, &train).unwrap(), 0.0);
        assert!(auth_pct(&train, &column(&[0.0])).is_err());
    }
}
