//! Statistics files as pytorch-fid reads and writes them: an npz with `mu` `[d]` and `sigma` `[d, d]` in f64. Ours have two
//! more arrays that others ignore: `n`, the number of images, and in the cache `features` `[k, d]` in f32.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use candle_core::{Device, Tensor};
use faer::Mat;
use npyz::npz::{NpzArchive, NpzWriter, file_name_from_array_name};
use npyz::zip::CompressionMethod;
use npyz::zip::write::FileOptions;
use npyz::{NpyFile, WriterBuilder};

use super::frechet::Gaussian;
use crate::error::{AtPath, Error, Result};
use crate::files::write_atomic;

/// Widest features a file may claim, which bounds what is allocated before its content is seen.
const MOST: u64 = 1 << 14;
/// More than deflate can shrink anything.
const SHRINK: u64 = 1100;
const LONGEST_HEADER: usize = 1 << 16;
const LONGEST_MESSAGE: usize = 300;

/// Writes the mean and covariance, and features if there are any.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, gaussian: &Gaussian, features: Option<&Tensor>) -> Result<()> {
    let d = gaussian.mean.len() as u64;
    write_atomic(path, |file| {
        let mut npz = NpzWriter::new(std::io::BufWriter::new(file));
        let covariance = &gaussian.covariance;
        let rows = (0..d as usize).flat_map(|i| (0..d as usize).map(move |j| covariance[(i, j)]));
        array(&mut npz, "mu", &[d], gaussian.mean.iter().copied()).at("write", path)?;
        array(&mut npz, "sigma", &[d, d], rows).at("write", path)?;
        array(&mut npz, "n", &[], [gaussian.n as i64].into_iter()).at("write", path)?;
        if let Some(features) = features {
            let shape: Vec<u64> = features.dims().iter().map(|&s| s as u64).collect();
            let values: Vec<f32> = features.flatten_all()?.to_vec1()?;
            array(&mut npz, "features", &shape, values.into_iter()).at("write", path)?;
        }
        // Left to its end of life, the archive would hide a full disk.
        let mut out = npz.zip_writer().finish().map_err(std::io::Error::from).at("write", path)?;
        std::io::Write::flush(&mut out).at("write", path)
    })
}

fn array<W: std::io::Write + std::io::Seek, T: npyz::AutoSerialize>(
    npz: &mut NpzWriter<W>,
    name: &str,
    shape: &[u64],
    values: impl Iterator<Item = T>,
) -> std::io::Result<()> {
    let stored = FileOptions::default().compression_method(CompressionMethod::Stored);
    let mut writer = npz.array(name, stored)?.default_dtype().shape(shape).begin_nd()?;
    writer.extend(values)?;
    writer.finish()
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
    let file = File::open(path).at("open", path)?;
    let length = file.metadata().at("read", path)?.len();
    let mut npz = NpzArchive::new(BufReader::new(file)).map_err(|e| bad(e.to_string()))?;
    let names: Vec<String> = npz.array_names().map(str::to_owned).collect();
    let mut array = |name: &str, rank: usize| -> Result<(Vec<f64>, Vec<u64>)> {
        if !names.iter().any(|n| n == name) {
            return Err(bad(format!("no array `{name}`")));
        }
        let fault = |e: std::io::Error| bad(format!("`{name}`: {e}"));
        let mut entry = npz.zip_archive().by_name(&file_name_from_array_name(name)).map_err(|e| fault(e.into()))?;
        // Magic, version, and the header's length: of two bytes in version 1, then of four.
        let mut start = vec![0; 8];
        entry.read_exact(&mut start).map_err(fault)?;
        let mut length_of = [0; 4];
        let bytes = if start[6] > 1 { 4 } else { 2 };
        entry.read_exact(&mut length_of[..bytes]).map_err(fault)?;
        let header = u32::from_le_bytes(length_of) as usize;
        if header > LONGEST_HEADER {
            return Err(bad(format!("`{name}` claims a header of {header} bytes")));
        }
        start.extend(&length_of[..bytes]);
        let words = start.len();
        start.resize(words + header, 0);
        entry.read_exact(&mut start[words..]).map_err(fault)?;
        // The library takes exponential time for nested brackets; a plain array's header has a pair of braces and one of parentheses.
        if start[words..].iter().filter(|b| b"[({".contains(b)).count() > 2 {
            return Err(bad(format!("`{name}` is not a plain array")));
        }
        let npy = NpyFile::new((&start[..]).chain(entry)).map_err(fault)?;
        let shape = npy.shape().to_vec();
        if shape.len() != rank || shape.iter().any(|&s| s == 0 || s > MOST) {
            return Err(bad(format!("`{name}` has shape {shape:?}")));
        }
        if npy.order() != npyz::Order::C && rank > 1 {
            return Err(bad(format!("`{name}` is in column-major order")));
        }
        let bytes = npy.dtype().num_bytes().unwrap_or(1) as u64;
        if shape.iter().product::<u64>() * bytes > length.saturating_mul(SHRINK) {
            return Err(bad(format!("`{name}` claims shape {shape:?} in a file of {length} bytes")));
        }
        let values = match npy.dtype().descr().as_str() {
            d if d.ends_with("f4'") => npy.into_vec::<f32>().map(|v| v.into_iter().map(f64::from).collect()),
            d if d.ends_with("i8'") => npy.into_vec::<i64>().map(|v| v.into_iter().map(|x| x as f64).collect()),
            _ => npy.into_vec::<f64>(),
        };
        Ok((values.map_err(fault)?, shape))
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
