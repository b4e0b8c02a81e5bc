//! Statistics files as pytorch-fid reads and writes them: an npz with `mu` `[d]` and `sigma` `[d, d]` in f64.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use faer::Mat;
use npyz::WriterBuilder;
use npyz::npz::{NpzArchive, NpzWriter};

use super::frechet::Gaussian;
use crate::error::{AtPath, Error, Result};
use crate::files::write_atomic;

/// Widest features a file may claim, which bounds what is allocated before its content is seen.
const MOST: u64 = 1 << 14;

/// Writes the mean and covariance.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, gaussian: &Gaussian) -> Result<()> {
    let d = gaussian.mean.len() as u64;
    write_atomic(path, |file| {
        let mut npz = NpzWriter::new(std::io::BufWriter::new(file));
        let mut array = |name: &str, shape: &[u64], values: &mut dyn Iterator<Item = f64>| {
            let mut writer = npz.array(name, Default::default())?.default_dtype().shape(shape).begin_nd()?;
            writer.extend(values)?;
            writer.finish()
        };
        array("mu", &[d], &mut gaussian.mean.iter().copied()).at("write", path)?;
        let covariance = &gaussian.covariance;
        let mut rows = (0..d as usize).flat_map(|i| (0..d as usize).map(move |j| covariance[(i, j)]));
        array("sigma", &[d, d], &mut rows).at("write", path)
    })
}

/// Reads a mean and covariance in f32 or f64. The number of images is not in the file: it is given as zero.
///
/// # Errors
/// When the file is not such an npz, or its arrays do not fit each other.
pub fn read(path: &Path) -> Result<Gaussian> {
    let bad = |what: String| Error::content(path, format!("not a statistics file with `mu` and `sigma`: {what}"));
    let file = BufReader::new(File::open(path).at("open", path)?);
    let mut npz = NpzArchive::new(file).map_err(|e| bad(e.to_string()))?;
    let mut array = |name: &str, rank: usize| -> Result<(Vec<f64>, Vec<u64>)> {
        let npy =
            npz.by_name(name).map_err(|e| bad(e.to_string()))?.ok_or_else(|| bad(format!("no array `{name}`")))?;
        let shape = npy.shape().to_vec();
        if shape.len() != rank || shape.iter().any(|&s| s == 0 || s > MOST) {
            return Err(bad(format!("`{name}` has shape {shape:?}")));
        }
        if npy.order() != npyz::Order::C && rank > 1 {
            return Err(bad(format!("`{name}` is in column-major order")));
        }
        let wide = npy.dtype().num_bytes() == Some(8);
        let values = if wide {
            npy.into_vec::<f64>()
        } else {
            npy.into_vec::<f32>().map(|v| v.into_iter().map(f64::from).collect())
        };
        Ok((values.map_err(|e| bad(format!("`{name}`: {e}")))?, shape))
    };
    let (mean, shape) = array("mu", 1)?;
    let (sigma, square) = array("sigma", 2)?;
    if square != [shape[0], shape[0]] {
        return Err(bad(format!("`mu` has shape {shape:?}, `sigma` {square:?}")));
    }
    if mean.iter().chain(&sigma).any(|v| !v.is_finite()) {
        return Err(bad("it holds values that are not finite".to_owned()));
    }
    let d = mean.len();
    Ok(Gaussian { n: 0, covariance: Mat::from_fn(d, d, |i, j| sigma[i * d + j]), mean })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_survive_the_file() {
        let path = std::env::temp_dir().join(format!("pgn-bench-stats-{}.npz", std::process::id()));
        let covariance = Mat::from_fn(3, 3, |i, j| 1.0 / (1.0 + i as f64 + j as f64));
        let gaussian = Gaussian { n: 9, mean: vec![1.5, -2.0, 1e-300], covariance };
        write(&path, &gaussian).unwrap();
        let got = read(&path).unwrap();
        assert_eq!((got.mean, got.covariance), (gaussian.mean, gaussian.covariance));

        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("not a statistics file"));
        std::fs::remove_file(&path).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("cannot open"));
    }
}
