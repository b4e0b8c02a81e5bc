//! Checks resizing, every stage of the Inception network, its features and the metrics on them against reference data made
//! by PIL, PyTorch and scipy: `inception_*.safetensors` and `metrics.json` in `PGN_BENCH_GOLDEN`, weights from the folder
//! `weights` beside it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::{DType, Device, Tensor};
use pgn_bench::data::resize::bilinear;
use pgn_bench::data::source::{Picture, pictures};
use pgn_bench::files::sha256;
use pgn_bench::machine::compute::Compute;
use pgn_bench::machine::precision::Precision;
use pgn_bench::metrics::Extractor;
use pgn_bench::metrics::frechet::{FeatureSums, distance};
use pgn_bench::metrics::inception::resize::Resize;
use pgn_bench::metrics::inception::{Inception, SPATIAL};
use pgn_bench::metrics::inception_score::ProbabilitySums;
use pgn_bench::metrics::kid::mmd2;
use pgn_bench::metrics::manifold::manifold;
use pgn_bench::nn::image::{channels_first, channels_last};

struct Checks {
    failed: usize,
    passed: usize,
}

impl Checks {
    fn at_most(&mut self, what: &str, error: f64, tolerance: f64) {
        let ok = error <= tolerance;
        println!("{what}: {} (error {error:.1e}, tolerance {tolerance:.0e})", if ok { "ok" } else { "FAILED" });
        if ok { self.passed += 1 } else { self.failed += 1 }
    }
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn largest(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let norm = |v: Vec<f64>| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    norm(values(a).iter().zip(values(b)).map(|(a, b)| a - b).collect()) / norm(values(b))
}

/// An image `[1, 3, H, W]` of bytes as `[H, W, 3]`.
fn bytes(t: &Tensor) -> (Vec<u8>, [usize; 2]) {
    let t = channels_last(t).unwrap();
    let (_, h, w, _) = t.dims4().unwrap();
    (t.flatten_all().unwrap().to_vec1().unwrap(), [h, w])
}

/// What sFID compares, by torch-fidelity's network with the same weights (`tests/peer/measures.py`).
fn spatial() -> HashMap<String, Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spatial.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn stages(folder: &Path, inception: &Inception, checks: &mut Checks) {
    let golden = candle_core::safetensors::load(folder.join("inception_stages.safetensors"), &Device::Cpu).unwrap();
    let spatial = spatial();
    for name in ["cifar32", "square48", "wide", "large"] {
        let (image, [h, w]) = bytes(&golden[&format!("{name}.u8")]);
        for (resize, tolerance) in [(Resize::Tf, 1e-5), (Resize::Torch, 1e-5), (Resize::Clean, 1e-4)] {
            let key = format!("{name}.{}", resize.id());
            let Some(want) = golden.get(&key) else { continue };
            let got = Tensor::from_vec(resize.apply(&image, [h, w]), (1, 299, 299, 3), &Device::Cpu).unwrap();
            checks.at_most(&key, largest(&channels_first(&got).unwrap(), want), tolerance);
        }
        if let Some(want) = golden.get(&format!("{name}.pil_bilinear_48")) {
            let got = Tensor::from_vec(bilinear(&image, [h, w], 48), (1, 48, 48, 3), &Device::Cpu).unwrap();
            let error = largest(&channels_first(&got).unwrap(), want);
            checks.at_most(&format!("{name}.pil_bilinear_48 (levels)"), error, 0.0);
        }
        let of = inception.extract(&[Picture::rgb(image.clone(), [h, w])]).unwrap();
        let key = format!("{name}.spatial");
        checks.at_most(&key, relative(&of.spatial.unwrap(), &spatial[&key]), 1e-4);
        let mut see = |stage: &str, x: &Tensor| {
            if let Some(want) = golden.get(&format!("{name}.stage.{stage}")) {
                checks.at_most(&format!("{name}.{stage}"), relative(&channels_first(x)?, want), 1e-4);
            }
            Ok(())
        };
        let pool3 = inception.features(&[Picture::rgb(image, [h, w])], &mut see).unwrap();
        assert_eq!(pool3.dtype(), DType::F32);
        checks.at_most(&format!("{name}.pool3_tf"), relative(&pool3, &golden[&format!("{name}.pool3_tf")]), 1e-4);
    }
}

/// Images `[N, 32, 32, 3]`.
fn images(pixels: &[u8]) -> Tensor {
    Tensor::from_slice(pixels, (pixels.len() / (32 * 32 * 3), 32, 32, 3), &Device::Cpu).unwrap()
}

/// An image on the emulated device, too slow for more, against the CPU.
fn emulated(folder: &Path, [cpu, device]: [&Inception; 2], checks: &mut Checks) {
    let golden = candle_core::safetensors::load(folder.join("inception_cifar10.safetensors"), &Device::Cpu).unwrap();
    let (pixels, _) = bytes(&golden["test_u8"].narrow(0, 0, 1).unwrap());
    let [want, got] = [cpu, device].map(|inception| inception.extract_bytes(&images(&pixels)).unwrap());
    checks.at_most("features of an image", relative(&got.features, &want.features), 1e-5);
    checks.at_most("its spatial features", relative(&got.spatial.unwrap(), &want.spatial.unwrap()), 1e-5);
    checks.at_most("its logits", relative(&got.logits.unwrap(), &want.logits.unwrap()), 1e-5);
}

fn cifar10(folder: &Path, inception: &Inception, checks: &mut Checks) {
    let golden = candle_core::safetensors::load(folder.join("inception_cifar10.safetensors"), &Device::Cpu).unwrap();
    let metrics: HashMap<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(folder.join("metrics.json")).unwrap()).unwrap();
    let number = |key: &str| metrics[key].as_f64().unwrap();
    let (mut gaussians, mut spatial_gaussians, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for split in ["train", "test"] {
        let (pixels, _) = bytes(&golden[&format!("{split}_u8")]);
        let n = pixels.len() / (32 * 32 * 3);
        let mut features = Vec::new();
        let (mut sums, mut probabilities) =
            (FeatureSums::new(inception.dim()).unwrap(), ProbabilitySums::new(n, inception.classes().unwrap()));
        for (k, part) in pixels.chunks(100 * 32 * 32 * 3).enumerate() {
            let of = inception.extract_bytes(&images(part)).unwrap();
            if k == 0 {
                let mut first = FeatureSums::new(SPATIAL).unwrap();
                first.add(&of.spatial.unwrap().narrow(0, 0, 64).unwrap()).unwrap();
                spatial_gaussians.push(first.finish().unwrap());
                let some = inception.extract(&pictures(&part[..4 * 32 * 32 * 3], 32)).unwrap().features;
                let error = relative(&of.features.narrow(0, 0, 4).unwrap(), &some);
                checks.at_most(&format!("cifar10 {split} features of files"), error, 1e-5);
                let want = &golden[&format!("{split}_pool3")];
                let got = of.features.narrow(0, 0, want.dim(0).unwrap()).unwrap();
                checks.at_most(&format!("cifar10 {split} features"), relative(&got, want), 1e-3);
            }
            sums.add(&of.features).unwrap();
            let places: Vec<u32> = (100 * k..n.min(100 * k + 100)).map(|i| i as u32).collect();
            probabilities.add(&of.logits.unwrap(), &places).unwrap();
            features.push(of.features.to_device(&Device::Cpu).unwrap());
        }
        let score = probabilities.finish().unwrap();
        let want = metrics[&format!("is_{split}")].as_array().unwrap().clone();
        checks.at_most(&format!("IS {split}"), (score.mean / want[0].as_f64().unwrap() - 1.0).abs(), 1e-4);
        checks.at_most(&format!("IS {split}, deviation"), (score.std / want[1].as_f64().unwrap() - 1.0).abs(), 1e-4);
        gaussians.push(sums.finish().unwrap());
        all.push(Tensor::cat(&features, 0).unwrap());
    }
    let sfid = distance(&spatial_gaussians[0], &spatial_gaussians[1]).unwrap();
    checks.at_most("sFID of 64 images", (sfid / values(&spatial()["sfid_64"])[0] - 1.0).abs(), 1e-4);
    let fid = distance(&gaussians[0], &gaussians[1]).unwrap();
    checks.at_most("FID", (fid / number("fid_symmetric_trace") - 1.0).abs(), 1e-4);
    checks.at_most("KID of all rows", (mmd2(&all[0], &all[1]).unwrap() - number("kid_all")).abs(), 1e-6);
    for k in [3, 5] {
        let got = manifold(&all[0], &all[1], k).unwrap();
        let want = |key: &str| metrics[&format!("prdc_k{k}")][key].as_f64().unwrap();
        for (name, value) in
            [("precision", got.precision), ("recall", got.recall), ("density", got.density), ("coverage", got.coverage)]
        {
            checks.at_most(&format!("{name}, k = {k}"), (value - want(name)).abs(), 0.002);
        }
    }
}

fn main() -> ExitCode {
    let Some(folder) = std::env::var_os("PGN_BENCH_GOLDEN").map(PathBuf::from) else {
        println!("inception: SKIPPED, PGN_BENCH_GOLDEN names no folder of reference files");
        return ExitCode::SUCCESS;
    };
    let weights = folder.join("../weights");
    let (network, probe) = (weights.join("inception_v3_proxy.safetensors"), weights.join("cifar10_probe.safetensors"));
    if !network.is_file() || !folder.join("inception_stages.safetensors").is_file() {
        println!("inception: SKIPPED, {} or the reference files are not there", network.display());
        return ExitCode::SUCCESS;
    }
    let device = std::env::var("PGN_BENCH_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    println!("inception: on {device}; PGN_BENCH_DEVICE names another device, or `emulated`");
    let compute = Compute::open(&device, Some(Precision::F32), false).unwrap();
    let open = |compute| Inception::from_file(&network, Some(&probe), Resize::Tf, compute).unwrap().with_spatial();
    let inception = open(compute);
    let mut checks = Checks { failed: 0, passed: 0 };
    // Features are the same under any head.
    let [features, head] = [&network, &probe].map(|file| sha256(&std::fs::read(file).unwrap()));
    assert_eq!(inception.weights_sha256(), features);
    assert_eq!(inception.logits_sha256(), format!("{features}+{head}"));
    if device.starts_with("emulated") {
        emulated(&folder, [&open(Compute::cpu()), &inception], &mut checks);
    } else {
        stages(&folder, &inception, &mut checks);
        cifar10(&folder, &inception, &mut checks);
    }
    println!("inception: {} passed, {} failed", checks.passed, checks.failed);
    if checks.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
