//! Times training updates at full size and prints one JSON object: the counterpart of `benches/peer/step.py`.
//!
//! `step --arch cnn32 --method pgn --what critic|generator|whole --repeat 5 [--width 1]`

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use clap::Parser;
use pgn_bench::critic::Critic;
use pgn_bench::error::{Error, Result};
use pgn_bench::generators::{Generator, Mode};
use pgn_bench::losses::Loss;
use pgn_bench::methods;
use pgn_bench::nn::image::one_hot;
use pgn_bench::rng::Stream;
use pgn_bench::train::step::{CriticBatch, State};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    arch: String,
    #[arg(long)]
    method: String,
    /// critic: one update of 64 real and 64 generated images; generator: one of 128; whole: a training step
    #[arg(long)]
    what: String,
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    #[arg(long, default_value_t = 1.0)]
    width: f64,
}

const CRITIC_BATCH: usize = 64;
const CLASSES: usize = 10;
const GENERATOR_BATCH: usize = 128;

fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn main() -> Result<()> {
    let args = Args::parse();
    let choice =
        methods::find(&args.method).ok_or_else(|| Error::invalid(format!("unknown method {}", args.method)))?;
    let loss = choice.method.loss().unwrap_or(Loss::Hinge);
    let critic_steps = if args.arch.starts_with("cnn") { 1 } else { 5 };
    let mut stream = Stream::new(0, "bench", 0);
    let cpu = Device::Cpu;
    let critic = Critic::new(&args.arch, args.width, CLASSES, choice.method.spectral(), &mut stream, DType::F32, &cpu)?;
    let generator = Generator::new(&args.arch, args.width, CLASSES, &mut stream, DType::F32, &cpu)?;
    let side = generator.side;
    let mut state = State::new(generator, critic, [0.0, 0.9])?;
    let shape = (CRITIC_BATCH, side, side, 3);
    let mut images = || -> Result<Tensor> {
        let values: Vec<f32> =
            (0..CRITIC_BATCH * side * side * 3).map(|_| 2.0 * stream.uniform() as f32 - 1.0).collect();
        Ok(Tensor::from_vec(values, shape, &cpu)?)
    };
    let (real, fake, augmented) = (images()?, images()?, images()?);
    let mix = Tensor::full(0.5f32, CRITIC_BATCH, &cpu)?;

    let labels: Vec<u8> = (0..CRITIC_BATCH).map(|i| (i % CLASSES) as u8).collect();
    let labels = one_hot(&labels, CLASSES, DType::F32, &cpu)?;
    let labels = state.generator.classes.map(|_| [labels.clone(), labels]);

    let critic_update = |state: &mut State, fake: Tensor| -> Result<()> {
        let batch = CriticBatch {
            real: real.clone(),
            fake,
            labels: labels.clone(),
            mix: Some(mix.clone()),
            augmented: Some(augmented.clone()),
        };
        state.critic_update(&choice, loss, &batch, 2e-4)?;
        Ok(())
    };
    let mut times = Vec::new();
    for round in 0..=args.repeat as u64 {
        let latents = |state: &State, n: usize| state.generator.latents(0, "bench", round, n);
        let start = Instant::now();
        match args.what.as_str() {
            "critic" => critic_update(&mut state, fake.clone())?,
            "generator" => {
                let latents = latents(&state, GENERATOR_BATCH)?;
                state.generator_update(&choice, loss, &latents, 2e-4)?;
            }
            "whole" => {
                for _ in 0..critic_steps {
                    let fake = state.generator.images(&latents(&state, CRITIC_BATCH)?, Mode::Train)?;
                    critic_update(&mut state, fake)?;
                }
                let latents = latents(&state, GENERATOR_BATCH)?;
                state.generator_update(&choice, loss, &latents, 2e-4)?;
                state.update_average(0.9999)?;
            }
            other => return Err(Error::invalid(format!("--what {other}: expected critic, generator or whole"))),
        }
        times.push(start.elapsed().as_secs_f64());
    }
    // The first round warms the caches and the allocator.
    let times = &times[1..];
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    println!(
        "{}",
        serde_json::json!({
            "arch": args.arch, "method": args.method, "what": args.what,
            "median_s": sorted[sorted.len() / 2], "times_s": times, "peak_rss_bytes": peak_rss_bytes(),
        })
    );
    Ok(())
}
