//! Statistics files. They are read as pytorch-fid and others leave them: an npz with `mu` `[d]` and `sigma` `[d, d]`, or an npy of
//! features `[N, d]`, in any floating type, byte order and order of axes. Beside them may be `mu_s` and `sigma_s`, of what sFID compares,
//! as guided-diffusion leaves them. Ours say more, in arrays that others ignore: `program`, by which they are known, `n` images, their
//! protocol as texts and, in the cache, `features` `[k, d]` in f32.

use std::fmt::{Display, Formatter};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use candle_core::{Device, Tensor};
use faer::Mat;

use super::Extractor;
use super::frechet::{FeatureSums, Gaussian};
use crate::data::source::Order;
use crate::error::{AtPath, Error, Result};
use crate::files::{has_extension, refuse_pointer, short_weights, write_atomic};
use crate::npy::{Archive, Header, Kind, Writer, header};

/// Widest features a file may claim, which bounds what is allocated before its content is seen.
const MOST: u64 = 1 << 14;
/// Rows of features that are read at a time.
const ROWS: u64 = 2048;
/// A product of two larger numbers, or a sum of such, may overflow.
const LARGEST: f64 = 1e100;
/// Most that a covariance's halves differ by, as a share of its largest variance: f32 rounds to 6e-8.
const ASYMMETRY: f64 = 1e-4;
const LONGEST_MESSAGE: usize = 300;
/// What the array `program` begins with in our files. The arrays of another program may have our names and other meanings.
const OURS: &str = "pgn-bench ";

/// What features were made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Name of the extractor.
    pub extractor: String,
    /// SHA-256 of its weights.
    pub sha256: String,
    /// How images were brought to its input size.
    pub resize: String,
    /// In which order images counted, where some were taken.
    pub order: String,
}

impl Protocol {
    /// That of an extractor.
    pub fn of(extractor: &dyn Extractor, order: Order) -> Self {
        Self {
            extractor: extractor.id().to_owned(),
            sha256: extractor.weights_sha256().to_owned(),
            resize: extractor.resize().to_owned(),
            order: order.id().to_owned(),
        }
    }

    /// Whether features of both mean the same.
    pub fn agrees(&self, with: &Self) -> bool {
        (&self.sha256, &self.resize) == (&with.sha256, &with.resize)
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        write!(f, "{} ({}…), resize {}", self.extractor, short_weights(&self.sha256), self.resize)
    }
}

/// What a file holds.
#[derive(Debug)]
pub struct Statistics {
    /// Mean and covariance; of zero images where the file does not say of how many.
    pub gaussian: Gaussian,
    /// What they were made with, if the file says so.
    pub protocol: Option<Protocol>,
    /// Features of some of the images.
    pub features: Option<Tensor>,
}

/// Names of a mean and covariance.
const POOLED: [&str; 2] = ["mu", "sigma"];
/// Those of the features that sFID compares.
const SPATIAL: [&str; 2] = ["mu_s", "sigma_s"];

/// Writes the mean and covariance, and those of spatial features and features themselves if there are any.
///
/// # Errors
/// When the file cannot be written.
pub fn write(
    path: &Path,
    gaussian: &Gaussian,
    spatial: Option<&Gaussian>,
    features: Option<&Tensor>,
    protocol: &Protocol,
) -> Result<()> {
    write_atomic(path, |file| {
        let mut npz = Writer::new(BufWriter::new(file));
        for ([mu, sigma], of) in [(POOLED, Some(gaussian)), (SPATIAL, spatial)] {
            let Some(Gaussian { mean, covariance, .. }) = of else { continue };
            let d = mean.len();
            let rows = (0..d).flat_map(|i| (0..d).map(move |j| covariance[(i, j)].to_le_bytes()));
            npz.add(mu, "<f8", &[d as u64], mean.iter().map(|m| m.to_le_bytes())).at("write", path)?;
            npz.add(sigma, "<f8", &[d as u64; 2], rows).at("write", path)?;
        }
        npz.add("n", "<i8", &[], [(gaussian.n as i64).to_le_bytes()].into_iter()).at("write", path)?;
        for (name, text) in [
            ("program", format!("{OURS}{}", env!("CARGO_PKG_VERSION")).as_str()),
            ("extractor", &protocol.extractor),
            ("extractor_sha256", &protocol.sha256),
            ("resize", &protocol.resize),
            ("order", &protocol.order),
        ] {
            npz.add_text(name, text).at("write", path)?;
        }
        if let Some(features) = features {
            let shape: Vec<u64> = features.dims().iter().map(|&s| s as u64).collect();
            let values: Vec<f32> = features.flatten_all()?.to_vec1()?;
            npz.add("features", "<f4", &shape, values.into_iter().map(f32::to_le_bytes)).at("write", path)?;
        }
        npz.finish().and_then(|mut out| out.flush()).at("write", path)
    })
}

/// Whether an npz holds statistics, whatever else is in it.
pub fn are_in(path: &Path) -> bool {
    let names = File::open(path).map_err(|e| e.to_string()).and_then(Archive::new).map(|npz| npz.names());
    names.is_ok_and(|names| POOLED.iter().all(|wanted| names.iter().any(|name| name == wanted)))
}

/// Reads a mean and covariance, or takes them from features; and the features kept with them, if the file is ours.
///
/// # Errors
/// When the file is neither, its arrays do not fit each other, or what it holds cannot be a covariance.
pub fn read(path: &Path) -> Result<Statistics> {
    refuse_pointer(path)?;
    if has_extension(path, "npy") {
        return of_features(path);
    }
    let bad = |what: String| not(path, POOLED, &what);
    let mut npz = Archive::new(File::open(path).at("open", path)?).map_err(bad)?;
    let gaussian = gaussian(&mut npz, POOLED).map_err(bad)?;
    if !is_ours(&mut npz) {
        return Ok(Statistics { gaussian, protocol: None, features: None });
    }
    let protocol = Protocol {
        extractor: text(&mut npz, "extractor").map_err(bad)?,
        sha256: text(&mut npz, "extractor_sha256").map_err(bad)?,
        resize: text(&mut npz, "resize").map_err(bad)?,
        order: text(&mut npz, "order").map_err(bad)?,
    };
    let mut features = None;
    if npz.names().iter().any(|name| name == "features") {
        let (values, rows) = numbers(&mut npz, "features", 2).map_err(bad)?;
        if rows[1] != gaussian.mean.len() as u64 {
            return Err(bad(format!("`mu` has shape [{}], `features` {rows:?}", gaussian.mean.len())));
        }
        let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        features = Some(Tensor::from_vec(values, (rows[0] as usize, rows[1] as usize), &Device::Cpu)?);
    }
    Ok(Statistics { gaussian, protocol: Some(protocol), features })
}

/// Reads the mean and covariance of spatial features; `None` where the file has no such arrays.
///
/// # Errors
/// When it has one of them alone, they do not fit each other, or what they hold cannot be a covariance.
pub fn read_spatial(path: &Path) -> Result<Option<Gaussian>> {
    let bad = |what: String| not(path, SPATIAL, &what);
    let mut npz = Archive::new(File::open(path).at("open", path)?).map_err(bad)?;
    if !npz.names().iter().any(|name| SPATIAL.contains(&name.as_str())) {
        return Ok(None);
    }
    gaussian(&mut npz, SPATIAL).map(Some).map_err(bad)
}

fn not(path: &Path, [mu, sigma]: [&str; 2], what: &str) -> Error {
    // It may quote the file's own words.
    let what: String = what.chars().take(LONGEST_MESSAGE).collect();
    Error::content(path, format!("not a statistics file with `{mu}` and `{sigma}`: {what}"))
}

fn is_ours(npz: &mut Archive) -> bool {
    text(npz, "program").is_ok_and(|program| program.starts_with(OURS))
}

/// The mean and covariance of these names, and of how many images, if the file is ours.
fn gaussian(npz: &mut Archive, [mu, sigma]: [&str; 2]) -> Result<Gaussian, String> {
    let [(mean, shape), (square, of_square)] = [numbers(npz, mu, 1)?, numbers(npz, sigma, 2)?];
    let covariance = covariance([mu, sigma], &shape, &square, &of_square)?;
    if let Some(value) = mean.iter().chain(&square).find(|v| v.abs() > LARGEST) {
        return Err(format!("it holds {value:e}, and products of such numbers overflow"));
    }
    let n = if is_ours(npz) { numbers(npz, "n", 0)?.0.first().map_or(0, |&n| n as usize) } else { 0 };
    Ok(Gaussian { n, mean, covariance })
}

/// Finite numbers of an array of so many axes, and its shape.
fn numbers(npz: &mut Archive, name: &str, rank: usize) -> Result<(Vec<f64>, Vec<u64>), String> {
    let member = npz.member(name)?;
    let header = member.header.clone();
    if header.shape.len() != rank || header.shape.iter().any(|&s| s == 0 || s > MOST) {
        return Err(format!("`{name}` has shape {:?}", header.shape));
    }
    let values = header.numbers(member).map_err(|what| format!("`{name}` {what}"))?;
    if values.iter().any(|v| !v.is_finite()) {
        return Err(format!("`{name}` holds values that are not finite"));
    }
    Ok((values, header.shape))
}

fn text(npz: &mut Archive, name: &str) -> Result<String, String> {
    let member = npz.member(name)?;
    member.header.clone().text(member).map_err(|what| format!("`{name}` {what}"))
}

/// `sigma` as the covariance of a mean of this shape. What only its eigenvalues show is found where it is used.
fn covariance([mu, sigma]: [&str; 2], mean: &[u64], values: &[f64], shape: &[u64]) -> Result<Mat<f64>, String> {
    let &[d] = mean else { return Err(format!("`{mu}` has shape {mean:?}")) };
    if shape != [d, d] {
        return Err(format!("`{mu}` has shape {mean:?}, `{sigma}` {shape:?}"));
    }
    let d = d as usize;
    let at = |i: usize, j: usize| values[i * d + j];
    let largest = (0..d).map(|i| at(i, i)).fold(0.0, f64::max);
    for i in 0..d {
        if at(i, i) < 0.0 {
            return Err(format!("`{sigma}`[{i}, {i}] is {}, and no variance is negative", at(i, i)));
        }
        if let Some(j) = (0..i).find(|&j| (at(i, j) - at(j, i)).abs() > ASYMMETRY * largest) {
            let (below, above) = (at(i, j), at(j, i));
            return Err(format!("`{sigma}`[{i}, {j}] is {below}, `{sigma}`[{j}, {i}] {above}: no covariance"));
        }
    }
    Ok(Mat::from_fn(d, d, |i, j| 0.5 * at(i, j) + 0.5 * at(j, i)))
}

/// Mean and covariance of an array of features.
fn of_features(path: &Path) -> Result<Statistics> {
    let mut file = BufReader::new(File::open(path).at("open", path)?);
    let bad = |what: String| Error::content(path, what.chars().take(LONGEST_MESSAGE).collect::<String>());
    let array = header(&mut file).map_err(bad)?;
    if array.descr.contains('O') {
        return Err(Error::content(
            path,
            "holds a pickled Python object, which is never executed here. If it has `mu` and `sigma`, convert it with numpy: \
             s = np.load(FILE, allow_pickle=True).item(); np.savez('statistics.npz', mu=s['mu'], sigma=s['sigma'])",
        ));
    }
    let ([rows, d], Kind::Float) = (array.shape[..].try_into().unwrap_or([0; 2]), array.kind) else {
        return Err(expected(path, &array));
    };
    if rows < 2 || d == 0 || d > MOST {
        return Err(expected(path, &array));
    }
    let mut sums = FeatureSums::new(d as usize)?;
    // What is in Fortran's order comes at once, for a row is all over it.
    let step = if array.fortran { rows } else { ROWS };
    for first in (0..rows).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let rows = step.min(rows - first);
        let bytes = rows * d * array.width as u64;
        let part = Header { shape: vec![rows, d], bytes, ..array.clone() };
        let values = part.numbers(file.by_ref().take(bytes)).map_err(bad)?;
        if values.iter().any(|v| !v.is_finite() || v.abs() > LARGEST) {
            return Err(bad("holds values that are not finite, or so large that their products overflow".to_owned()));
        }
        sums.add(&Tensor::from_vec(values, (rows as usize, d as usize), &Device::Cpu)?)?;
    }
    Ok(Statistics { gaussian: sums.finish()?, protocol: None, features: None })
}

fn expected(path: &Path, found: &Header) -> Error {
    let Header { descr, shape, .. } = found;
    Error::content(
        path,
        format!("holds {descr} of shape {shape:?}, expected features as floats [N, d] of two images or more"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::frechet::distance;

    fn protocol() -> Protocol {
        let [extractor, sha256, resize, order] =
            ["inception-é", "0123456789abcdef", "clean", "spread"].map(str::to_owned);
        Protocol { extractor, sha256, resize, order }
    }

    /// An archive in a file of its own, and what reading it gives.
    fn with(name: &str, fill: impl FnOnce(&mut Writer<File>)) -> Result<Statistics> {
        let path = std::env::temp_dir().join(format!("pgn-bench-{name}-{}.npz", std::process::id()));
        let mut npz = Writer::new(File::create(&path).unwrap());
        fill(&mut npz);
        npz.finish().unwrap();
        let read = read(&path);
        std::fs::remove_file(&path).unwrap();
        read
    }

    fn add(npz: &mut Writer<File>, name: &str, shape: &[u64], values: &[f64]) {
        npz.add(name, "<f8", shape, values.iter().map(|v| v.to_le_bytes())).unwrap();
    }

    #[test]
    fn statistics_survive_the_file() {
        let path = std::env::temp_dir().join(format!("pgn-bench-stats-{}.npz", std::process::id()));
        let covariance = Mat::from_fn(3, 3, |i, j| 1.0 / (1.0 + i as f64 + j as f64));
        let gaussian = Gaussian { n: 9, mean: vec![1.5, -2.0, 1e-300], covariance };
        let features = Tensor::from_vec(vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0], (2, 3), &Device::Cpu).unwrap();
        for features in [None, Some(&features)] {
            write(&path, &gaussian, None, features, &protocol()).unwrap();
            assert!(read_spatial(&path).unwrap().is_none());
            let Statistics { gaussian: got, protocol: said, features: kept } = read(&path).unwrap();
            assert_eq!((got.n, got.mean, got.covariance), (9, gaussian.mean.clone(), gaussian.covariance.clone()));
            let rows = |t: &Tensor| t.to_vec2::<f32>().unwrap();
            assert_eq!((kept.as_ref().map(rows), said), (features.map(rows), Some(protocol())));
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

    #[test]
    fn arrays_of_other_programs_do_not_stop_a_file() {
        let got = with("foreign", |npz| {
            npz.add_text("n", "500").unwrap();
            npz.add("sigma", ">f4", &[2, 2], [4f32, 0.5, 0.5, 9.0].map(f32::to_be_bytes).into_iter()).unwrap();
            add(npz, "features", &[1, 3], &[f64::NAN; 3]);
            npz.add("mu", "<f2", &[2], [0x3e00u16, 0xc000].map(u16::to_le_bytes).into_iter()).unwrap();
            add(npz, "mu_s", &[1], &[1e300]);
            npz.add_text("program", "another").unwrap();
            npz.add_text("resize", "clean").unwrap();
        });
        let Statistics { gaussian, protocol, features } = got.unwrap();
        assert_eq!((gaussian.n, gaussian.mean, protocol), (0, vec![1.5, -2.0], None));
        assert_eq!((gaussian.covariance[(0, 1)], gaussian.covariance[(1, 1)], features.is_none()), (0.5, 9.0, true));
    }

    #[test]
    fn spatial_statistics_are_beside_the_others() {
        let path = std::env::temp_dir().join(format!("pgn-bench-spatial-{}.npz", std::process::id()));
        let of = |n: usize, d: usize| Gaussian {
            n,
            mean: (0..d).map(|i| i as f64).collect(),
            covariance: Mat::from_fn(d, d, |i, j| f64::from(i == j) + 0.25),
        };
        let (pooled, spatial) = (of(7, 2), of(7, 3));
        write(&path, &pooled, Some(&spatial), None, &protocol()).unwrap();
        let got = [read(&path).unwrap().gaussian, read_spatial(&path).unwrap().unwrap()];
        std::fs::remove_file(&path).unwrap();
        for (got, want) in got.iter().zip([pooled, spatial]) {
            assert_eq!((got.n, &got.mean, &got.covariance), (want.n, &want.mean, &want.covariance));
        }
        let mut npz = Writer::new(File::create(&path).unwrap());
        add(&mut npz, "mu_s", &[1], &[0.0]);
        npz.finish().unwrap();
        let refused = read_spatial(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(refused.contains("not a statistics file with `mu_s` and `sigma_s`: "), "{refused}");
    }

    #[test]
    fn what_is_no_covariance_is_refused() {
        let refused = |mean: &[f64], sigma: &[f64]| {
            let read = with("none", |npz| {
                add(npz, "mu", &[2], mean);
                add(npz, "sigma", &[2, 2], sigma);
            });
            // Eigenvalues are seen where a distance is taken.
            read.and_then(|of| distance(&of.gaussian, &of.gaussian)).unwrap_err().to_string()
        };
        assert!(
            refused(&[0.0; 2], &[1.0, 0.0, 0.0, -2.0]).contains("`sigma`[1, 1] is -2, and no variance is negative")
        );
        assert!(
            refused(&[0.0; 2], &[1.0, 0.5, 0.4, 1.0])
                .contains("`sigma`[1, 0] is 0.4, `sigma`[0, 1] 0.5: no covariance")
        );
        assert!(refused(&[0.0; 2], &[1.0, 3.0, 3.0, 1.0]).contains("its eigenvalues reach from -2"));
        assert!(
            refused(&[0.0; 2], &[1e200, 0.0, 0.0, 1e200])
                .contains("it holds 1e200, and products of such numbers overflow")
        );
        assert!(refused(&[-1e200, 0.0], &[1.0, 0.0, 0.0, 1.0]).contains("it holds -1e200"));
        assert!(refused(&[f64::NAN, 0.0], &[1.0, 0.0, 0.0, 1.0]).contains("`mu` holds values that are not finite"));
        assert!(
            with("empty", |npz| add(npz, "arr_0", &[1], &[0.0])).unwrap_err().to_string().contains("no array `mu`")
        );
        let wide = with("wide", |npz| {
            add(npz, "mu", &[2], &[0.0; 2]);
            add(npz, "sigma", &[1, 4], &[0.0; 4]);
        });
        assert!(wide.unwrap_err().to_string().contains("`mu` has shape [2], `sigma` [1, 4]"));
    }

    #[test]
    fn features_give_their_statistics() {
        let path = std::env::temp_dir().join(format!("pgn-bench-features-{}.NPY", std::process::id()));
        let array = |descr: &str, shape: &str, order: &str, data: &[u8]| {
            let head = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
            let length = (head.len() as u16).to_le_bytes();
            std::fs::write(&path, [b"\x93NUMPY\x01\x00", &length[..], head.as_bytes(), data].concat()).unwrap();
            read(&path)
        };
        // numpy.cov(x.T) of x = [[1, 2], [3, 6], [8, 1]] is [[13, −4], [−4, 7]].
        let bytes = |values: [f32; 6]| values.map(f32::to_le_bytes).concat();
        let rows = array("<f4", "(3, 2)", "False", &bytes([1.0, 2.0, 3.0, 6.0, 8.0, 1.0])).unwrap();
        let columns = array("<f4", "(3, 2)", "True", &bytes([1.0, 3.0, 8.0, 2.0, 6.0, 1.0])).unwrap();
        for Statistics { gaussian, protocol, .. } in [rows, columns] {
            assert_eq!((gaussian.n, &gaussian.mean, protocol), (3, &vec![4.0, 3.0], None));
            let want = Mat::from_fn(2, 2, |i, j| [[13.0, -4.0], [-4.0, 7.0]][i][j]);
            assert!((gaussian.covariance - want).norm_max() < 1e-12);
        }
        let refused =
            |descr: &str, shape: &str, data: &[u8]| array(descr, shape, "False", data).unwrap_err().to_string();
        assert!(refused("|O", "()", b"pickle").contains("np.savez('statistics.npz'"));
        assert!(
            refused("<f4", "(6,)", &[0; 24]).contains("holds <f4 of shape [6], expected features as floats [N, d]")
        );
        assert!(refused("<i4", "(3, 2)", &[0; 24]).contains("expected features"));
        assert!(refused("<f4", "(1, 6)", &[0; 24]).contains("of two images or more"));
        assert!(refused("<f4", "(4, 2)", &[0; 24]).contains("has 24 of the 32 bytes"));
        assert!(refused("<f4", "(1, 99999999999)", &[]).contains("expected features"));
        assert!(refused("<f4", "(2, 1)", &bytes([f32::NAN; 6])).contains("not finite"));
        std::fs::remove_file(&path).unwrap();
    }
}
