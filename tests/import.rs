//! A checkpoint laid out as the released code's (written by PyTorch, `tests/data/make.py`): imported, it makes the same
//! images, and training goes on from it. Files of other scripts of that code, and in parts, are made of it here.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use common::{Folder, TINY, experiment, run};
use pgn_bench::config::{Cell, Experiment};
use pgn_bench::generators::{Generator, Latents, Mode};
use pgn_bench::nn::image::channels_first;
use pgn_bench::rng::Stream;
use pgn_bench::train::checkpoint::{self, Part};
use pgn_bench::train::import::read;
use pgn_bench::train::lock::Lock;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn yaml() -> String {
    let settings = TINY.replace("pgn+cr", "gn").replace("cnn32", "resnet32").replace("width: 0.05", "width: 0.0078125");
    settings.replace("steps: 12", "steps: 4")
}

fn cell() -> Cell {
    Experiment::parse("t", &yaml(), &[]).unwrap().resolve("smoke").unwrap().remove(0)
}

/// A copy of the checkpoint, a zip archive, each of its members as `edit` leaves it.
fn edited(home: &Folder, name: &str, edit: impl Fn(&str, Vec<u8>) -> Vec<u8>) -> PathBuf {
    let mut from = ZipArchive::new(File::open(file("released.pt")).unwrap()).unwrap();
    let path = home.join(name);
    let mut to = ZipWriter::new(File::create(&path).unwrap());
    for i in 0..from.len() {
        let mut member = from.by_index(i).unwrap();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        to.start_file(
            member.name().unwrap(),
            SimpleFileOptions::default().compression_method(CompressionMethod::Stored),
        )
        .unwrap();
        to.write_all(&edit(&member.name().unwrap(), bytes)).unwrap();
    }
    to.finish().unwrap();
    path
}

/// The same with other strings in its pickle: each is an `X`, the length as four bytes, the text.
fn renamed(home: &Folder, name: &str, new: impl Fn(&str) -> String) -> PathBuf {
    edited(home, name, |member, bytes| {
        if !member.ends_with("data.pkl") {
            return bytes;
        }
        let (mut out, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let text = (bytes[at] == b'X').then(|| bytes.get(at + 1..at + 5)).flatten().and_then(|length| {
                let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
                std::str::from_utf8(bytes.get(at + 5..(at + 5).checked_add(length)?)?).ok()
            });
            match text {
                Some(text) => {
                    let new = new(text);
                    out.extend([b"X", &(new.len() as u32).to_le_bytes()[..], new.as_bytes()].concat());
                    at += 5 + text.len();
                }
                None => {
                    out.push(bytes[at]);
                    at += 1;
                }
            }
        }
        out
    })
}

/// The same without these parts.
fn without(home: &Folder, name: &str, parts: &[&str]) -> PathBuf {
    renamed(home, name, |text| if parts.contains(&text) { format!("no {text}") } else { text.to_owned() })
}

fn refusal(path: &Path) -> String {
    match read(path, &cell(), 10, &Device::Cpu) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn wrapped_networks_are_the_same() {
    let home = Folder::new("import-wrapped");
    let saved = |from: &Path| {
        let (state, progress) = read(from, &cell(), 10, &Device::Cpu).unwrap();
        let path = home.join("saved.safetensors");
        checkpoint::save(&path, &state, &progress).unwrap();
        std::fs::read(path).unwrap()
    };
    let plain = saved(&file("released.pt"));
    for words in ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."] {
        let new = |text: &str| if text.contains('.') { format!("{words}{text}") } else { text.to_owned() };
        assert!(saved(&renamed(&home, "wrapped.pt", new)) == plain, "{words}");
    }
}

#[test]
fn what_is_wrong_in_a_file_is_named() {
    let home = Folder::new("import-wrong");
    let typo = |text: &str| if text == "linear.weight" { "linaer.weight".to_owned() } else { text.to_owned() };
    let error = refusal(&renamed(&home, "typo.pt", typo));
    assert!(error.contains("`net_G.linear.weight` is missing; there is `net_G.linaer.weight`"), "{error}");
    let nan = edited(&home, "nan.pt", |member, mut bytes| {
        if member.ends_with("/data/0") {
            bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        bytes
    });
    let error = refusal(&nan);
    assert!(error.contains("nan.pt: tensor `net_G.linear.weight` has numbers that are not finite"), "{error}");
    let error = refusal(&without(&home, "critic.pt", &["net_G", "ema_G"]));
    assert!(error.contains("it has neither `net_G` nor `ema_G`"), "{error}");
}

#[test]
fn r3gans_generator_comes_with_its_wrapper_and_filters() {
    let home = Folder::new("import-r3gan");
    let settings = yaml().replace("resnet32", "r3gan32");
    let cell = Experiment::parse("t", &settings, &[]).unwrap().resolve("smoke").unwrap().remove(0);
    let stream = &mut Stream::new(0, "import", 0);
    let generator = Generator::new("r3gan32", cell.train.width, 10, stream, DType::F32, &Device::Cpu).unwrap();
    let state = generator.state().unwrap();
    let path = home.join("generator.safetensors");
    let read = |scale: f64| {
        let taps = [1.0, 3.0, 3.0, 1.0];
        let filter = (0..16).map(|k| (taps[k / 4] * taps[k % 4] * scale) as f32).collect();
        let filter = Tensor::from_vec(filter, (4, 4), &Device::Cpu).unwrap();
        let filters = (1..4).map(|n| (format!("MainLayers.{n}.Layers.0.Resampler.Kernel"), filter.clone()));
        let all = state.iter().map(|(name, t)| (name.clone(), t.clone())).chain(filters);
        let all: HashMap<_, _> = all.map(|(name, t)| (format!("Model.{name}"), t)).collect();
        candle_core::safetensors::save(&all, &path).unwrap();
        read(&path, &cell, 10, &Device::Cpu)
    };
    let (imported, _) = read(1.0 / 64.0).unwrap();
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (name, t) in imported.average.state().unwrap() {
        assert_eq!(values(&t), values(&state[&name]), "{name}");
    }
    let error = read(1.0 / 16.0).err().unwrap().to_string();
    assert!(error.contains("Resampler.Kernel` has no place in the network"), "{error}");
}

#[test]
fn a_generator_alone_draws_its_images() {
    let home = Folder::new("import-alone");
    let (state, _) = read(&file("released.pt"), &cell(), 10, &Device::Cpu).unwrap();
    let named = [&state.average.params, &state.average.buffers].map(|store| store.named().unwrap());
    let path = home.join("generator.safetensors");
    for word in ["", "module.", "ema.", "state_dict.module."] {
        let tensors: HashMap<_, _> =
            named.iter().flatten().map(|(name, t)| (format!("{word}{name}"), t.clone())).collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let (alone, progress) = read(&path, &cell(), 10, &Device::Cpu).unwrap();
        assert_eq!(progress.step, 0);
        assert_eq!(Part::list(&progress.lacking), "net_G, net_D, optim_G, optim_D");
        let tensors = [&alone.average.params, &alone.average.buffers].map(|store| store.named().unwrap());
        let values = |of: &[BTreeMap<String, Tensor>; 2]| -> Vec<Vec<f32>> {
            of.iter().flat_map(|t| t.values().map(|t| t.flatten_all().unwrap().to_vec1().unwrap())).collect()
        };
        assert_eq!(values(&named), values(&tensors), "{word}");
    }
}

#[test]
fn a_checkpoint_in_part_is_measured_and_not_trained_on() {
    let home = Folder::new("import-part");
    let yaml = home.write("tiny.yaml", &yaml());
    let import = |from: &Path, output: &Path| {
        let [from, yaml, output] = [from, &yaml, output].map(|p| p.to_str().unwrap());
        run(&home.0, &["import", from, yaml, "--scale", "smoke", "-o", output])
    };
    let output = home.join("untrained");
    let (code, stdout, stderr) = import(&without(&home, "no-optim.pt", &["optim_G", "optim_D"]), &output);
    assert!(
        code == 0 && stdout.contains("no-optim.pt has no optim_G, optim_D: training cannot go on"),
        "{stdout}{stderr}"
    );
    for command in ["run", "submit"] {
        let mut args = experiment(&yaml, &output, if command == "run" { &["--resume"] } else { &["--jobs", "1"] });
        args[0] = command;
        let (code, _, stderr) = run(&home.0, &args);
        assert!(code == 2 && stderr.contains("without optim_G, optim_D, so training cannot go on from it"), "{stderr}");
    }
    let folder = output.join("tiny-smoke/resnet32-gn-s0");
    assert_eq!(run(&home.0, &["probe", folder.to_str().unwrap(), "-n", "10"]).0, 0);

    let output = home.join("average");
    let (code, _, stderr) = import(&without(&home, "ema.pt", &["net_G", "net_D", "optim_G", "optim_D"]), &output);
    assert_eq!(code, 0, "{stderr}");
    let folder = output.join("tiny-smoke/resnet32-gn-s0");
    let folder = folder.to_str().unwrap();
    let (code, stdout, stderr) = run(&home.0, &["eval", folder, "--json"]);
    assert!(code == 0 && stdout.contains("\"ema\"") && !stdout.contains("\"raw\""), "{stdout}{stderr}");
    let picture = home.join("grid.png");
    let sample = ["sample", folder, "-n", "4", "-o", picture.to_str().unwrap()];
    assert_eq!(run(&home.0, &sample).0, 0);
    for (args, part) in [
        (vec!["eval", folder, "--generator", "raw"], "net_G"),
        ([&sample[..], &["--generator", "raw"]].concat(), "net_G"),
        (vec!["probe", folder], "net_D"),
    ] {
        let (code, _, stderr) = run(&home.0, &args);
        assert!(code == 2 && stderr.contains(&format!("imported from a file without {part}")), "{args:?}: {stderr}");
    }
}

#[test]
fn imported_networks_make_the_same_images() {
    let cell = cell();
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
