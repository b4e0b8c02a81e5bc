//! The convolution kernels at the shapes of `shapes.json`, each as a share of a measured matrix product, and whole training
//! updates; ends with a table of what was run.
//!
//! `cargo bench --bench kernels [-- FILTER]`

#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use criterion::{Criterion, SamplingMode, Throughput};
use pgn_bench::machine::compute::Compute;
use pgn_bench::nn::conv::{ConvSpec, conv2d, conv2d_flops, conv2d_input_grad, conv2d_weight_grad};
use pgn_bench::nn::kernel::Kernel;
use pgn_bench::rng::Stream;
use pgn_bench::train::update::{Update, What};

#[derive(serde::Deserialize)]
struct Shape {
    name: String,
    images: usize,
    side: usize,
    #[serde(rename = "in")]
    input: usize,
    #[serde(rename = "out")]
    output: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: [usize; 2],
    #[serde(default = "one")]
    groups: usize,
}

fn one() -> usize {
    1
}

/// The passes of a convolution, in the order of the table's columns.
const PASSES: [&str; 3] = ["forward", "input gradient", "weight gradient"];
const SGEMM: usize = 2048;
const UPDATES: [(&str, &str, What); 8] = [
    ("cnn32", "none", What::Critic),
    ("cnn32", "pgn", What::Critic),
    ("cnn32", "pgn", What::Generator),
    ("cnn32", "pgn", What::Whole),
    ("resnet32", "none", What::Critic),
    ("resnet32", "pgn", What::Critic),
    ("resnet32", "pgn", What::Generator),
    ("resnet32", "pgn", What::Whole),
];

fn random(shape: &[usize]) -> candle_core::Result<Tensor> {
    Tensor::from_vec(Stream::new(0, "bench", 0).normals(shape.iter().product()), shape, &Device::Cpu)
}

/// Times `run` under `group/name`.
fn bench<R>(c: &mut Criterion, group: &str, name: &str, flops: Option<u64>, mut run: impl FnMut() -> R) {
    let mut group = c.benchmark_group(group);
    group.sampling_mode(SamplingMode::Flat);
    if let Some(flops) = flops {
        group.throughput(Throughput::Elements(flops));
    }
    group.bench_function(name, |b| b.iter(&mut run));
    group.finish();
}

/// Median seconds of a benchmark that has run since `start`: the folder keeps those of earlier runs.
fn seconds(home: &Path, start: SystemTime, group: &str, name: &str) -> Result<Option<f64>> {
    let safe = |part: &str| part.replace(['?', '"', '/', '\\', '*', '<', '>', ':', '|', '^'], "_");
    let path = home.join(safe(group)).join(safe(name)).join("new/estimates.json");
    if !std::fs::metadata(&path).and_then(|m| m.modified()).is_ok_and(|at| at > start) {
        return Ok(None);
    }
    let estimates: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let median = estimates["median"]["point_estimate"].as_f64();
    Ok(Some(median.with_context(|| format!("{}: no median", path.display()))? / 1e9))
}

fn main() -> Result<()> {
    pgn_bench::machine::memory::keep_pages();
    let start = SystemTime::now();
    let shapes: Vec<Shape> = serde_json::from_str(include_str!("shapes.json"))?;
    let mut c = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .without_plots()
        .configure_from_args();

    let (a, b) = (random(&[SGEMM, SGEMM])?, random(&[SGEMM, SGEMM])?);
    let sgemm_flops = 2 * (SGEMM as u64).pow(3);
    bench(&mut c, "sgemm", "2048³", Some(sgemm_flops), || a.matmul(&b));
    let mut flops = Vec::new();
    for s in &shapes {
        let spec = ConvSpec { stride: s.stride, padding: s.padding, groups: s.groups };
        let [kh, kw] = s.kernel;
        let x = random(&[s.images, s.side, s.side, s.input])?;
        let w = Kernel::new(&random(&[s.output, s.input / s.groups, kh, kw])?)?;
        let dy = conv2d(&x, &w, None, spec)?;
        let n = conv2d_flops(x.dims(), w.shape(), spec)?;
        flops.push(n);
        bench(&mut c, &s.name, PASSES[0], Some(n), || conv2d(&x, &w, None, spec));
        bench(&mut c, &s.name, PASSES[1], Some(n), || conv2d_input_grad(&dy, &w, spec, [s.side; 2]));
        bench(&mut c, &s.name, PASSES[2], Some(n), || conv2d_weight_grad(&x, &dy, spec, s.kernel));
    }
    let name = |&(arch, method, what): &(&str, &str, What)| format!("{arch} {method} {what}");
    let mut update_flops = Vec::new();
    for case in &UPDATES {
        // Made on the first call: those that are filtered out need no networks.
        let mut update = None;
        bench(&mut c, "update", &name(case), None, || -> Result<()> {
            if update.is_none() {
                update = Some(Update::new(case.0, case.1, 1.0, 64, &Compute::cpu())?);
            }
            Ok(update.as_mut().map_or(Ok(()), |u| u.run(case.2))?)
        });
        update_flops.push(update.map(|u| u.flops(case.2)).transpose()?);
    }
    c.final_summary();

    let home = std::env::var_os("CRITERION_HOME").map_or_else(|| PathBuf::from("target/criterion"), PathBuf::from);
    let rate = |group: &str, name: &str, flops: u64| -> Result<Option<f64>> {
        Ok(seconds(&home, start, group, name)?.map(|s| flops as f64 / s / 1e9))
    };
    let Some(peak) = rate("sgemm", "2048³", sgemm_flops)? else { return Ok(()) };
    println!("\nsgemm 2048³: {peak:.0} GFLOP/s with {} threads; shares are of it\n", rayon::current_num_threads());
    println!("| GFLOP/s (share) | {} |\n|---|---|---|---|", PASSES.join(" | "));
    for (s, &flops) in shapes.iter().zip(&flops) {
        print!("| {} |", s.name);
        for pass in PASSES {
            match rate(&s.name, pass, flops)? {
                Some(r) => print!(" {r:.0} ({:.2}) |", r / peak),
                None => print!(" – |"),
            }
        }
        println!();
    }
    println!("\n| update | GFLOP | floor s (at sgemm's rate) | s | over floor |\n|---|---|---|---|---|");
    for (case, &flops) in UPDATES.iter().zip(&update_flops) {
        if let (Some(s), Some(flops)) = (seconds(&home, start, "update", &name(case))?, flops) {
            let floor = flops as f64 / 1e9 / peak;
            println!("| {} | {:.0} | {floor:.3} | {s:.3} | {:.2} |", name(case), flops as f64 / 1e9, s / floor);
        }
    }
    Ok(())
}
