//! Statistics files as pytorch-fid reads and writes them: an npz with `mu` `[d]` and `sigma` `[d, d]` in f64. Ours have two
//! more arrays that others ignore: `n`, the number of images, and in the cache `features` `[k, d]` in f32.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::{Device, Tensor};
use faer::Mat;

use super::frechet::Gaussian;
use crate::error::{AtPath, Error, Result};
use crate::files::write_atomic;
use crate::npy::{Archive, Writer};

/// Widest features a file may claim, which bounds what is allocated before its content is seen.
const MOST: u64 = 1 << 14;
const LONGEST_MESSAGE: usize = 300;

/// Writes the mean and covariance, and features if there are any.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, gaussian: &Gaussian, features: Option<&Tensor>) -> Result<()> {
    let d = gaussian.mean.len() as u64;
    write_atomic(path, |file| {
        let mut npz = Writer::new(BufWriter::new(file));
        let covariance = &gaussian.covariance;
        let rows = (0..d as usize).flat_map(|i| (0..d as usize).map(move |j| covariance[(i, j)].to_le_bytes()));
        npz.add("mu", "<f8", &[d], gaussian.mean.iter().map(|m| m.to_le_bytes())).at("write", path)?;
        npz.add("sigma", "<f8", &[d, d], rows).at("write", path)?;
        npz.add("n", "<i8", &[], [(gaussian.n as i64).to_le_bytes()].into_iter()).at("write", path)?;
        if let Some(features) = features {
            let shape: Vec<u64> = features.dims().iter().map(|&s| s as u64).collect();
            let values: Vec<f32> = features.flatten_all()?.to_vec1()?;
            npz.add("features", "<f4", &shape, values.into_iter().map(f32::to_le_bytes)).at("write", path)?;
        }
        npz.finish().and_then(|mut out| out.flush()).at("write", path)
    })
}

/// Reads a mean and covariance in f32 or f64, with the features if there are any. A file that does not say its number of
/// images gives zero.
///
/// # Errors
/// When the file is not such an npz, or its arrays do not fit each other.
pub fn read(path: &Path) -> Result<(Gaussian, Option<Tensor>)> {
    let bad = |what: String| {
        // It may quote the file's own words.
        let what: String = what.chars().take(LONGEST_MESSAGE).collect();
        Error::content(path, format!("not a statistics file with `mu` and `sigma`: {what}"))
    };
    let mut npz = Archive::new(File::open(path).at("open", path)?).map_err(bad)?;
    let names = npz.names();
    let mut array = |name: &str, rank: usize| -> Result<(Vec<f64>, Vec<u64>)> {
        let member = npz.member(name).map_err(bad)?;
        let header = member.header.clone();
        if header.shape.len() != rank || header.shape.iter().any(|&s| s == 0 || s > MOST) {
            return Err(bad(format!("`{name}` has shape {:?}", header.shape)));
        }
        let values = header.numbers(member).map_err(|what| bad(format!("`{name}` {what}")))?;
        Ok((values, header.shape))
    };
    let mut optional = |name: &str, rank: usize| names.iter().any(|n| n == name).then(|| array(name, rank)).transpose();
    let n = optional("n", 0)?.and_then(|(n, _)| n.first().map(|&n| n.max(0.0) as usize)).unwrap_or(0);
    let features = optional("features", 2)?;
    let (mean, shape) = array("mu", 1)?;
    let (sigma, square) = array("sigma", 2)?;
    if square != [shape[0], shape[0]] {
        return Err(bad(format!("`mu` has shape {shape:?}, `sigma` {square:?}")));
    }
    if mean.iter().chain(&sigma).any(|v| !v.is_finite()) {
        return Err(bad("it holds values that are not finite".to_owned()));
    }
    let d = mean.len();
    let features = match features {
        Some((_, shape)) if shape[1] != d as u64 => {
            return Err(bad(format!("`mu` has shape [{d}], `features` {shape:?}")));
        }
        Some((values, shape)) => {
            let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
            Some(Tensor::from_vec(values, (shape[0] as usize, d), &Device::Cpu)?)
        }
        None => None,
    };
    Ok((Gaussian { n, covariance: Mat::from_fn(d, d, |i, j| sigma[i * d + j]), mean }, features))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_survive_the_file() {
        let path = std::env::temp_dir().join(format!("pgn-bench-stats-{}.npz", std::process::id()));
        let covariance = Mat::from_fn(3, 3, |i, j| 1.0 / (1.0 + i as f64 + j as f64));
        let gaussian = Gaussian { n: 9, mean: vec![1.5, -2.0, 1e-300], covariance };
        let features = Tensor::from_vec(vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 3), &Device::Cpu).unwrap();
        for features in [None, Some(&features)] {
            write(&path, &gaussian, features).unwrap();
            let (got, kept) = read(&path).unwrap();
            assert_eq!((got.n, got.mean, got.covariance), (9, gaussian.mean.clone(), gaussian.covariance.clone()));
            let rows = |t: &Tensor| t.to_vec2::<f32>().unwrap();
            assert_eq!(kept.as_ref().map(rows), features.map(rows));
        }

        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("not a statistics file"));
        // The header of `mu` said to be of version 2, with a length of 660 MB.
        let mut wild = bytes.clone();
        let at = wild.windows(6).position(|w| w == b"\x93NUMPY").unwrap();
        wild[at + 6] = 2;
        std::fs::write(&path, wild).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("`mu` claims a header of"));
        let mut nested = bytes.clone();
        let at = nested.windows(7).position(|w| w == b"{'descr").unwrap();
        nested[at..at + 7].fill(b'[');
        std::fs::write(&path, nested).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("`mu` is not a plain array"));
        std::fs::remove_file(&path).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("cannot open"));
    }
}
