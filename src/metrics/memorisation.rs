//! MiFID (Bai et al. 2021): FID over the memorisation distance, the mean over generated images of the least cosine distance to a
//! training image, which counts as 1 unless it is below 0.1.

use candle_core::{DType, Tensor};

use super::pairs::{check, products, squared_norms};
use crate::error::{Error, Result};

/// Memorisation distances from here on are no sign of memorisation.
pub const THRESHOLD: f64 = 0.1;
/// Keeps the quotient finite where all images are copies; as the competition's code has it.
const LEAST: f64 = 1e-14;
/// An FID no larger than this is 0, and MiFID with it.
const ZERO: f64 = 1e-8;

/// Mean over the rows of `generated` `[M, d]` of the least 1 − |cos| to a row of `train` `[N, d]`. Rows of zeros, which have no
/// direction, are left out of both.
///
/// # Errors
/// When widths differ, or no row is left.
pub fn memorisation_distance(train: &Tensor, generated: &Tensor) -> Result<f64> {
    check("the memorisation distance", train, generated, 0)?;
    let (train, generated) = (directions(train)?, directions(generated)?);
    let least =
        products(&generated, &train, |_, row| 1.0 - row.iter().fold(0.0, |most: f64, cos| most.max(cos.abs())))?;
    Ok((least.iter().sum::<f64>() / least.len() as f64).max(0.0))
}

/// The rows over their norms, but for rows of zeros.
fn directions(t: &Tensor) -> Result<Tensor> {
    let norms = squared_norms(t)?;
    let there: Vec<u32> = (0..norms.len()).filter(|&i| norms[i] != 0.0).map(|i| i as u32).collect();
    if there.is_empty() {
        return Err(Error::invalid("features of zeros alone have no cosine distance"));
    }
    let norms: Vec<f64> = there.iter().map(|&i| norms[i as usize].sqrt()).collect();
    let rows = t.index_select(&Tensor::new(there.as_slice(), t.device())?, 0)?.to_dtype(DType::F64)?;
    Ok(rows.broadcast_div(&Tensor::from_vec(norms, (there.len(), 1), t.device())?)?)
}

/// MiFID of a Fréchet distance and a [`memorisation_distance`] of the same features.
pub fn mifid(fid: f64, memorisation_distance: f64) -> f64 {
    let penalty = if memorisation_distance < THRESHOLD { memorisation_distance + LEAST } else { 1.0 };
    if fid > ZERO { fid / penalty } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn angles_to_the_nearest_line() {
        let rows = |v: &[[f64; 2]]| Tensor::from_vec(v.concat(), (v.len(), 2), &Device::Cpu).unwrap();
        let train = rows(&[[2.0, 0.0], [0.0, 0.0], [0.0, -5.0]]);
        // Cosines to the nearest are 1, 0.8 and, on a line with it, 1; generated images take the mean, not training images.
        let generated = rows(&[[9.0, 0.0], [3.0, 4.0], [0.0, 0.0], [0.0, 1.0]]);
        assert!((memorisation_distance(&train, &generated).unwrap() - 0.2 / 3.0).abs() < 1e-15);
        assert_eq!(memorisation_distance(&train, &rows(&[[4.0, 0.0]])).unwrap(), 0.0);
        assert!(memorisation_distance(&train, &rows(&[[0.0, 0.0]])).is_err());
    }

    #[test]
    fn only_small_distances_count() {
        assert_eq!((mifid(5.0, 0.1), mifid(5.0, 0.7), mifid(1e-9, 0.05)), (5.0, 5.0, 0.0));
        assert!((mifid(5.0, 0.05) - 100.0).abs() < 1e-9);
    }
}
