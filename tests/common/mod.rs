//! What the tests that drive the binary share.

#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{DType, Device};
use pgn_bench::config::Experiment;
use pgn_bench::critic::side;
use pgn_bench::generators::{Generator, Mode};
use pgn_bench::nn::store::overwrite;
use pgn_bench::results::{self, COST, PEAK, Row};
use pgn_bench::rng::Stream;
use pgn_bench::train::checkpoint::{self, Progress};
use pgn_bench::train::run::networks;

/// Classes that conditional networks know here.
pub const CLASSES: usize = 10;

/// A folder of its own, removed at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pgn-bench-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A tiny experiment on the embedded data set.
pub const TINY: &str = "
name: tiny
dataset: shapes
image_size: 32
methods: [pgn+cr]
seeds: [0]
train: {steps: 12, critic_steps: 2, critic_batch: 4, generator_batch: 4, critic_lr: 4e-4, generator_lr: 4e-4, beta1: 0,
  beta2: 0.9, lr_decay: linear, ema_decay: 0.9, ema_start: 0, width: 0.05, loss: hinge}
architectures: {cnn32: }
eval: {every: 4, images: 100, reference: test, batch_norm: batch, weights: [raw, ema], extractor: classifier}
scales: {smoke: }
";

/// `pgn-bench` with these arguments, its caches kept away from the user's.
pub fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgn-bench"));
    command.args(args).env("HF_HOME", home.join("hf")).env("PGN_BENCH_CACHE", home.join("cache"));
    command.env_remove("PGN_BENCH_DATA").env_remove("HF_TOKEN");
    command
}

/// Runs to the end: exit code, stdout, stderr.
pub fn run(home: &Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(home, args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// The rows of a run without their times and peaks, which no two runs share.
pub fn timeless_rows(file: &Path) -> Vec<Row> {
    let timeless =
        |r: Row| Row { wall_s: 0.0, value: if [COST, PEAK].contains(&r.metric.as_str()) { 0.0 } else { r.value }, ..r };
    results::read(file).unwrap().into_iter().map(timeless).collect()
}

/// `run EXPERIMENT --scale smoke -o OUTPUT` and more.
pub fn experiment<'a>(file: &'a Path, output: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["run", file.to_str().unwrap(), "--scale", "smoke", "-o", output.to_str().unwrap()];
    args.extend(more);
    args
}

/// The folder of a run of `arch` that was never trained: its two generators differ, and so do their running statistics.
pub fn untrained(folder: &Path, arch: &str, width: f64) -> PathBuf {
    let sized = TINY.replace("image_size: 32", &format!("image_size: {}", side(arch))).replace("pgn+cr", "pgn");
    let yaml = sized.replace("cnn32", arch).replace("width: 0.05", &format!("width: {width}"));
    let cell = Experiment::parse("tiny", &yaml, &[]).unwrap().resolve("smoke").unwrap().remove(0);
    let (_, state) = networks(&cell, CLASSES, &Device::Cpu).unwrap();
    let other = Generator::new(arch, width, CLASSES, &mut Stream::new(1, "average", 0), DType::F32, &Device::Cpu);
    overwrite(state.average.params.flat(), other.unwrap().params.flat()).unwrap();
    for generator in [&state.generator, &state.average] {
        for step in 0..3 {
            generator.forward(&generator.latents(0, "untrained", step, 8).unwrap(), Mode::Train).unwrap();
        }
    }
    let progress = Progress::untrained(&cell, CLASSES).unwrap();
    let run = folder.join(arch);
    std::fs::create_dir_all(&run).unwrap();
    checkpoint::save(&run.join(checkpoint::FILE), &state, &progress).unwrap();
    run
}
