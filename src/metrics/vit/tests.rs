//! Every stage against transformers, every resize against the code that it is named after (`tests/golden/vit.py`,
//! `tests/peer/vit_resize.py`), on the device under test.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::*;
use crate::files::sha256;
use crate::machine::precision::Precision;
use crate::metrics::resize::Levels;
use crate::metrics::resize::tests::on_the_device_as_on_the_cpu;
use crate::nn::image::channels_last;
use crate::nn::testing::device;

/// Against references in double precision.
const TOLERANCE: f64 = 1e-5;

pub(super) fn golden(name: &str) -> PathBuf {
    // The second for a binary that was built elsewhere.
    let paths = [env!("CARGO_MANIFEST_DIR"), "."].map(|root| Path::new(root).join("tests/golden").join(name));
    paths.into_iter().find(|path| path.is_file()).unwrap()
}

fn load(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// Where `PGN_BENCH_DEVICE` says, which opens it for this thread.
fn compute() -> Compute {
    device();
    let name = std::env::var("PGN_BENCH_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    Compute::open(&name, Some(Precision::F32), false).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let norm = |v: Vec<f64>| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    norm(values(got).iter().zip(values(want)).map(|(a, b)| a - b).collect()) / norm(values(want))
}

/// Compares what a stage made with every sixteenth vector of the reference, where there is one.
fn stage(worst: &mut BTreeMap<String, f64>, golden: &HashMap<String, Tensor>, name: &str, x: &Tensor) {
    let Some(want) = golden.get(name) else { return };
    let x = if x.rank() == 3 {
        let some: Vec<u32> = (0..x.dim(1).unwrap() as u32).step_by(16).collect();
        x.to_device(&Device::Cpu).unwrap().index_select(&Tensor::new(some, &Device::Cpu).unwrap(), 1).unwrap()
    } else {
        x.to_device(&Device::Cpu).unwrap()
    };
    assert_eq!(x.dtype(), DType::F32);
    worst.insert(name.to_owned(), relative(&x, want));
}

fn judged(what: &str, worst: &BTreeMap<String, f64>, stages: usize) {
    let listed: Vec<String> = worst.iter().map(|(name, error)| format!("{name} {error:.1e}")).collect();
    println!("{what}, relative errors: {}", listed.join(", "));
    assert_eq!(worst.len(), stages, "{worst:?}");
    assert!(worst.values().all(|&error| error <= TOLERANCE), "{what}: {worst:?}");
}

/// The weights of a reference file as a file of their own, changed before it is written.
fn weights(name: &str, change: impl FnOnce(&mut HashMap<String, Tensor>)) -> tempfile::Held {
    let tensors = load(&golden(&format!("vit_{name}.safetensors")));
    let of_network = |(key, t): (&String, &Tensor)| Some((key.strip_prefix("weights.")?.to_owned(), t.clone()));
    let mut tensors: HashMap<String, Tensor> = tensors.iter().filter_map(of_network).collect();
    change(&mut tensors);
    tempfile::Held::new(name, &safetensors::serialize(tensors, None).unwrap())
}

/// A file that is there for as long as it is held.
mod tempfile {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub struct Held(PathBuf);

    impl Held {
        pub fn new(name: &str, bytes: &[u8]) -> Self {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let file = format!("pgn-bench-vit-{}-{number}-{name}.safetensors", std::process::id());
            let path = std::env::temp_dir().join(file);
            std::fs::write(&path, bytes).unwrap();
            Self(path)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

fn open(name: &str, path: &Path, compute: Compute) -> Result<Vit> {
    if name == "clip" { clip::from_file(path, compute) } else { dinov2::from_file(path, dinov2::Resize::Pil, compute) }
}

#[test]
fn every_stage_is_transformers() {
    for (name, id, stages) in [
        ("dinov2", "dinov2-vit-64x2-14", 4),
        ("dinov2_grid", "dinov2-vit-128x2-14", 4),
        ("clip", "clip-vit-64x2-14-336", 6),
    ] {
        let file = weights(name, |_| ());
        let vit = open(name, file.path(), compute()).unwrap();
        let golden = load(&golden(&format!("vit_{name}.safetensors")));
        assert_eq!((vit.id(), vit.dim()), (id, golden["features"].dim(1).unwrap()));
        assert_eq!(vit.weights_sha256(), sha256(&std::fs::read(file.path()).unwrap()));
        // Stored are the first rows of the patches.
        let rows = golden["images"].to_dtype(DType::F32).unwrap();
        let (n, _, patches, side) = rows.dims4().unwrap();
        let images = rows.unsqueeze(3).unwrap().broadcast_as((n, 3, patches, 14, side)).unwrap();
        let images = channels_last(&images.reshape((n, 3, side, side)).unwrap()).unwrap().to_device(device()).unwrap();
        let mut worst = BTreeMap::new();
        let mut see = |name: &str, x: &Tensor| {
            stage(&mut worst, &golden, name, x);
            Ok(())
        };
        let features = vit.compute.run(|| vit.network.forward(&images, &mut see)).unwrap();
        stage(&mut worst, &golden, "features", &features);
        judged(name, &worst, stages);
    }
}

#[test]
fn networks_of_full_size_are_transformers() {
    let Some(folder) = std::env::var_os("PGN_BENCH_VIT").map(PathBuf::from) else {
        println!("skipped: PGN_BENCH_VIT names no folder of networks of full size (tests/golden/vit.py --full)");
        return;
    };
    for name in ["dinov2-small", "dinov2-base", "dinov2-large", "clip"] {
        let file = folder.join(name).join("reference.safetensors");
        if !file.is_file() {
            println!("skipped: {} is not there", file.display());
            continue;
        }
        let golden = load(&file);
        let vit = open(name, &file.with_file_name("model.safetensors"), compute()).unwrap();
        let mut worst = BTreeMap::new();
        let images = vit.protocol.images(&golden["bytes"].to_device(device()).unwrap()).unwrap();
        let mut see = |name: &str, x: &Tensor| {
            stage(&mut worst, &golden, name, x);
            Ok(())
        };
        let features = vit.compute.run(|| vit.network.forward(&images, &mut see)).unwrap();
        stage(&mut worst, &golden, "features", &features);
        let extracted = vit.extract_bytes(&golden["bytes"]).unwrap().features;
        assert_eq!(values(&extracted), values(&features));
        judged(vit.id(), &worst, vit.network.depth() + if name == "clip" { 4 } else { 2 });
    }
}

/// The files that fuzzing starts from, whole and cut off.
#[test]
fn small_files_are_read_and_parts_of_them_refused() {
    for name in ["dinov2", "clip"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/vit/{name}.safetensors"));
        let vit = open(name, &path, Compute::cpu()).unwrap();
        let features = vit.extract(&[Picture::rgb(vec![7; 5 * 3 * 3], [5, 3])]).unwrap().features;
        // All of their numbers are zero.
        assert_eq!(features.dims(), [1, vit.dim()]);
        let bytes = std::fs::read(&path).unwrap();
        for share in 0..16 {
            let cut = tempfile::Held::new(name, &bytes[..bytes.len() * share / 16]);
            assert!(open(name, cut.path(), Compute::cpu()).is_err(), "{name}: {share}/16");
        }
    }
}

#[test]
fn features_do_not_depend_on_the_batch() {
    let file = weights("dinov2", |_| ());
    let vit = open("dinov2", file.path(), Compute::cpu()).unwrap();
    let picture = |k: usize, size: [usize; 2]| {
        Picture::rgb((0..size[0] * size[1] * 3).map(|i| (i * (k + 7) % 251) as u8).collect(), size)
    };
    let pictures: Vec<Picture> =
        (0..BATCH[0] + 1).map(|k| picture(k, if k % 2 == 0 { [9, 12] } else { [30, 30] })).collect();
    let together = values(&vit.extract(&pictures).unwrap().features);
    let alone = |p: &Picture| values(&vit.extract(std::slice::from_ref(p)).unwrap().features);
    assert_eq!(together, pictures.iter().flat_map(alone).collect::<Vec<_>>());
}

/// Noise over a ramp, as the script draws it.
fn image([height, width]: [usize; 2]) -> Vec<u8> {
    let byte = |i: usize| {
        let (y, x) = (i / 3 / width, i / 3 % width);
        let (noise, ramp) = ((i as u32).wrapping_mul(2_654_435_761) >> 24, (y * 255 / height + x * 255 / width) / 2);
        ((3 * ramp + noise as usize) / 4) as u8
    };
    (0..height * width * 3).map(byte).collect()
}

#[test]
fn resizes_are_those_they_are_named_after() {
    let recorded: Value = serde_json::from_slice(&std::fs::read(golden("vit_resize.json")).unwrap()).unwrap();
    let protocols = dinov2::Resize::ALL.map(|(_, resize)| resize.protocol()).into_iter().chain([clip::protocol(336)]);
    for protocol in protocols {
        let mut worst = 0.0f64;
        for (size, cases) in recorded.as_object().unwrap() {
            let case = &cases[protocol.id];
            let (height, width) = size.split_once('x').unwrap();
            let [height, width] = [height, width].map(|extent| extent.parse::<usize>().unwrap());
            let bytes = Tensor::from_vec(image([height, width]), (1, height, width, 3), device()).unwrap();
            let made: Vec<f32> = protocol.images(&bytes).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let want: Vec<f64> = case["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            assert_eq!(made.iter().step_by(379).len(), want.len());
            for (&got, want) in made.iter().step_by(379).zip(want) {
                worst = worst.max((f64::from(got) - want).abs());
            }
            if let Some(sum) = case["sha256"].as_str() {
                let Levels { over, mean, deviation } = protocol.levels;
                let byte = |(i, x): (usize, &f32)| ((x * deviation[i % 3] + mean[i % 3]) * over).round() as u8;
                assert_eq!(
                    sha256(&made.iter().enumerate().map(byte).collect::<Vec<_>>()),
                    sum,
                    "{} {size}",
                    protocol.id
                );
            }
        }
        println!("{}: at most {worst:.1e} from its reference", protocol.id);
        assert!(worst <= 1e-6, "{}: {worst}", protocol.id);
    }
}

#[test]
fn devices_resize_as_the_cpu_does() {
    for protocol in dinov2::Resize::ALL.map(|(_, resize)| resize.protocol()).into_iter().chain([clip::protocol(56)]) {
        on_the_device_as_on_the_cpu(&protocol);
    }
}

#[test]
fn wrong_files_are_refused_with_the_tensor_at_fault() {
    let half = |shape: &[usize]| Tensor::zeros(shape, DType::F16, &Device::Cpu).unwrap();
    type Change<'a> = &'a dyn Fn(&mut HashMap<String, Tensor>);
    let take = |name: &'static str| move |tensors: &mut HashMap<String, Tensor>| drop(tensors.remove(name).unwrap());
    let put = |name: &'static str, shape: &'static [usize]| {
        move |tensors: &mut HashMap<String, Tensor>| drop(tensors.insert(name.to_owned(), half(shape)))
    };
    let cases: [(&str, Change, &str); 15] = [
        ("dinov2", &take("layernorm.bias"), "tensor `layernorm.bias` is missing"),
        ("dinov2", &take("encoder.layer.1.mlp.fc2.bias"), "tensor `encoder.layer.1.mlp.fc2.bias` is missing"),
        ("dinov2", &take("encoder.layer.0.mlp.fc1.weight"), "tensor `encoder.layer.0.mlp.fc1.weight` is missing"),
        (
            "dinov2",
            &put("encoder.layer.0.norm1.weight", &[65]),
            "`encoder.layer.0.norm1.weight` has shape [65], expected [64]",
        ),
        (
            "dinov2",
            &put("encoder.layer.7.norm1.weight", &[64]),
            "of no use in this network, the first is `encoder.layer.7.",
        ),
        ("dinov2", &put("embeddings.position_embeddings", &[1, 24, 64]), "is of 23 patches, expected a square"),
        ("dinov2", &put("embeddings.patch_embeddings.projection.weight", &[64, 3, 13, 13]), "patches of 13 pixels"),
        ("dinov2", &put("encoder.layer.0.mlp.fc1.weight", &[64]), "has shape [64], expected 2 axes"),
        (
            "dinov2",
            &put("embeddings.patch_embeddings.projection.weight", &[64, 3, 4, 4]),
            "56×56 patches of 4×4 pixels",
        ),
        ("dinov2", &put("embeddings.patch_embeddings.projection.weight", &[96, 3, 14, 14]), "vectors of 96 numbers"),
        ("clip", &put("visual_projection.weight", &[0, 64]), "an empty weight [0, 64]"),
        ("clip", &take("vision_model.pre_layrnorm.weight"), "`vision_model.pre_layrnorm.weight` is missing"),
        ("clip", &put("visual_projection.weight", &[48, 63]), "has shape [48, 63], expected [48, 64]"),
        ("clip", &put("vision_model.post_layernorm.scale", &[64]), "the first is `vision_model.post_layernorm.scale`"),
        ("clip", &put("vision_model.embeddings.position_embedding.weight", &[1, 64]), "is of 0 patches"),
    ];
    for (name, change, expected) in cases {
        let file = weights(name, change);
        let error = open(name, file.path(), Compute::cpu()).err().unwrap().to_string();
        assert!(error.contains(expected) && error.contains("safetensors"), "{error}");
    }
    // Those of another network, and known ones that are not used.
    for [name, other] in [["dinov2", "clip"], ["clip", "dinov2"]] {
        let error = open(other, weights(name, |_| ()).path(), Compute::cpu()).err().unwrap().to_string();
        assert!(error.contains(&format!("give it as --{name}")), "{error}");
    }
    let text = ["text_model.encoder.layers.0.mlp.fc1.weight", "text_projection.weight", "logit_scale"];
    let file =
        weights("clip", |tensors| text.iter().for_each(|name| drop(tensors.insert((*name).to_owned(), half(&[2])))));
    assert!(open("clip", file.path(), Compute::cpu()).is_ok());
    let whole = std::fs::read(weights("dinov2", |_| ()).path()).unwrap();
    for broken in [&whole[..whole.len() / 2], &whole[..4], &[]] {
        let error =
            open("dinov2", tempfile::Held::new("cut", broken).path(), Compute::cpu()).err().unwrap().to_string();
        assert!(error.contains("not a safetensors file"), "{error}");
    }
}
