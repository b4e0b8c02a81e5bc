//! The measures against the codes that users know them from: `tests/peer/measures.py` stores features and what those codes make of them.
//! Checks the files of `tests/golden`, and of the folder in `PGN_BENCH_MEASURES` (Inception features, say).

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use pgn_bench::metrics::authenticity::auth_pct;
use pgn_bench::metrics::cmmd::cmmd;
use pgn_bench::metrics::frechet::{FeatureSums, Gaussian, Reference, distance};
use pgn_bench::metrics::inception_score::Split;
use pgn_bench::metrics::infinity::Points;
use pgn_bench::metrics::kid::mmd2;
use pgn_bench::metrics::manifold::manifold;
use pgn_bench::metrics::memorisation::{memorisation_distance, mifid};
use pgn_bench::metrics::mind::mind;
use pgn_bench::metrics::npz;

/// Of references in f64.
const DOUBLE: f64 = 1e-9;
/// Of references that are computed in f32.
const SINGLE: f64 = 1e-6;

fn files() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folders = [Some(own), std::env::var_os("PGN_BENCH_MEASURES").map(PathBuf::from)];
    let all = folders.into_iter().flatten().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("measures_") && name.ends_with(".safetensors")
    };
    all.map(|entry| entry.unwrap().path()).filter(is_one).collect()
}

fn gaussian(features: &Tensor) -> Gaussian {
    let mut sums = FeatureSums::new(features.dim(1).unwrap()).unwrap();
    sums.add(features).unwrap();
    sums.finish().unwrap()
}

/// FD∞ and, of logits, IS∞ of features that come in batches.
fn infinite(reference: &Reference, features: &Tensor, logits: &Tensor) -> [f64; 2] {
    let (n, d) = features.dims2().unwrap();
    let (mut distances, mut scores) = (Points::new(n).unwrap(), Points::new(n).unwrap());
    let (mut sums, mut split) = (FeatureSums::new(d).unwrap(), Split::new(logits.dim(1).unwrap()));
    for first in (0..n).step_by(64) {
        let of_batch = distances.parts(64.min(n - first));
        assert_eq!(of_batch, scores.parts(64.min(n - first)));
        for (part, is_due) in of_batch {
            sums.add(&features.narrow(0, first + part.start, part.len()).unwrap()).unwrap();
            split.add(&logits.narrow(0, first + part.start, part.len()).unwrap()).unwrap();
            if is_due {
                distances.take(reference.distance(&sums.finish().unwrap()).unwrap());
                scores.take(split.score());
            }
        }
    }
    [distances, scores].map(|points| points.intercept().unwrap().value)
}

/// Ours by the names of the references, with the tolerance of each.
fn ours(of: &HashMap<String, Tensor>) -> Vec<(&'static str, f64, f64)> {
    let (real, generated) = (&of["real"], &of["generated"]);
    let n = real.dim(0).unwrap().min(generated.dim(0).unwrap());
    let first = |t: &Tensor| t.narrow(0, 0, n).unwrap();
    let balls = manifold(real, generated, 5).unwrap();
    let memory = memorisation_distance(real, generated).unwrap();
    let mut ours = vec![
        ("kd", mmd2(&first(real), &first(generated)).unwrap(), DOUBLE),
        ("auth_pct", auth_pct(real, generated).unwrap(), SINGLE),
        ("mind", mind(&first(real), &first(generated), &of["directions"]).unwrap(), SINGLE),
        ("precision", balls.precision, DOUBLE),
        ("recall", balls.recall, DOUBLE),
        ("density", balls.density, DOUBLE),
        ("coverage", balls.coverage, DOUBLE),
        ("precision_closed", balls.precision, SINGLE),
        ("recall_closed", balls.recall, SINGLE),
        ("memorisation_distance", memory, DOUBLE),
        ("memorisation_distance_of_real", memorisation_distance(generated, real).unwrap(), DOUBLE),
    ];
    if of.contains_key("want.cmmd") {
        ours.push(("cmmd", cmmd(real, generated).unwrap(), DOUBLE));
    }
    if let Some(logits) = of.get("logits") {
        let (reference, of_generated) = (gaussian(real), gaussian(generated));
        let fd = distance(&reference, &of_generated).unwrap();
        let [fd_infinity, is_infinity] = infinite(&Reference::new(&reference).unwrap(), generated, logits);
        ours.extend([("fd", fd, DOUBLE), ("mifid", mifid(fd, memory), DOUBLE), ("is_infinity", is_infinity, DOUBLE)]);
        ours.extend([("fd_infinity", fd_infinity, DOUBLE), ("fid_infinity", fd_infinity, DOUBLE)]);
    }
    ours
}

#[test]
fn measures_are_those_of_the_codes_they_are_known_from() {
    let files = files();
    assert!(files.len() > 1, "{files:?}");
    for path in files {
        let of = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        let ours = ours(&of);
        for name in of.keys().filter_map(|key| key.strip_prefix("want.")) {
            let want: f64 = of[&format!("want.{name}")].to_vec1().unwrap()[0];
            let Some((_, got, tolerance)) = ours.iter().find(|(ours, ..)| *ours == name) else {
                panic!("{}: nothing is `{name}`", path.display());
            };
            let error = (got - want).abs() / want.abs().max(f64::MIN_POSITIVE);
            println!("{}: {name} {got} against {want}, {error:.1e}", path.file_name().unwrap().to_string_lossy());
            assert!(got == &want || error <= *tolerance, "{}: {name} is {got}, expected {want}", path.display());
        }
    }
}

#[test]
fn statistics_of_guided_diffusion_are_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let of = candle_core::safetensors::load(golden.join("measures_positive.safetensors"), &Device::Cpu).unwrap();
    let path = golden.join("measures.npz");
    let pooled = npz::read(&path).unwrap();
    assert!(pooled.protocol.is_none());
    for (got, name) in [(pooled.gaussian, "real"), (npz::read_spatial(&path).unwrap().unwrap(), "generated")] {
        let want = gaussian(&of[name].to_dtype(DType::F64).unwrap());
        let means = got.mean.iter().zip(&want.mean).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // numpy's means of f32 are f32.
        assert!(means < 1e-6 && (got.covariance - want.covariance).norm_max() < 1e-12, "{name}: {means}");
    }
}
