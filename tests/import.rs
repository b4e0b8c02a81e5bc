//! A checkpoint laid out as the released code's (written by PyTorch, `tests/data/make.py`): imported, it makes the same
//! images, and training goes on from it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use common::{Folder, TINY, experiment, run};
use pgn_bench::config::Experiment;
use pgn_bench::generators::{Latents, Mode};
use pgn_bench::nn::image::channels_first;
use pgn_bench::train::import::read;
use pgn_bench::train::lock::Lock;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn yaml() -> String {
    let settings = TINY.replace("pgn+cr", "gn").replace("cnn32", "resnet32").replace("width: 0.05", "width: 0.0078125");
    settings.replace("steps: 12", "steps: 4")
}

#[test]
fn imported_networks_make_the_same_images() {
    let cell = Experiment::parse("t", &yaml(), &[]).unwrap().resolve("smoke").unwrap().remove(0);
    let (state, progress) = read(&file("released.pt"), &cell, 10, &Device::Cpu).unwrap();
    assert_eq!((progress.step, progress.updates), (2, [4, 2]));
    let want = candle_core::safetensors::load(file("released.safetensors"), &Device::Cpu).unwrap();
    let latents = Latents { z: want["z"].clone(), labels: None };
    for (name, generator) in [("raw", &state.generator), ("ema", &state.average)] {
        let images = channels_first(&generator.images(&latents, Mode::Batch).unwrap()).unwrap();
        assert_eq!((images.dtype(), images.device().is_cpu()), (DType::F32, true));
        let off = (images - &want[name]).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(off < 1e-5, "{name}: {off}");
    }
    // Both optimisers have moved every parameter.
    let some = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() > 0.0;
    assert!(state.critic_adam.moments.iter().chain(&state.generator_adam.moments).all(some));
}

#[test]
fn training_goes_on_and_other_networks_are_refused() {
    let home = Folder::new("import");
    let experiment_file = home.write("tiny.yaml", &yaml());
    let (output, checkpoint) = (home.join("out"), file("released.pt"));
    let import = |more: &[&str]| {
        let [file, yaml, out] = [&checkpoint, &experiment_file, &output].map(|p| p.to_str().unwrap());
        let args = [&["import", file, yaml, "--scale", "smoke", "-o", out], more].concat();
        run(&home.0, &args)
    };
    let (code, _, stderr) = import(&["--set", "train.width=0.5"]);
    assert!(code == 2 && stderr.contains("tensor `net_G.linear.weight` has shape [32, 128]"), "{stderr}");
    let (code, stdout, stderr) = import(&[]);
    assert!(code == 0 && stdout.contains("step 2 of resnet32-gn-s0"), "{stderr}");
    let (code, _, stderr) = import(&[]);
    assert!(code == 2 && stderr.contains("this cell was run before"), "{stderr}");
    let lock = Lock::acquire(&output.join("tiny-smoke/resnet32-gn-s0")).unwrap();
    let (code, _, stderr) = import(&["--overwrite"]);
    assert!(code == 2 && stderr.contains("another process works in it"), "{stderr}");
    drop(lock);
    let (code, _, stderr) = run(&home.0, &experiment(&experiment_file, &output, &["--resume"]));
    assert_eq!(code, 0, "{stderr}");
    let rows = pgn_bench::results::read(&output.join("tiny-smoke/resnet32-gn-s0/rows.parquet")).unwrap();
    assert_eq!(rows.iter().map(|r| r.step).max(), Some(4));
    let log = std::fs::read_to_string(output.join("tiny-smoke/resnet32-gn-s0/log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 2, "the steps made here");
}
