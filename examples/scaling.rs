//! What work would take on more threads than there are, by `machine::cpu::schedule`, as a table.
//!
//! `RAYON_NUM_THREADS=1 scaling --arch cnn32 --method pgn --what critic|generator|whole [--threads 1,2,4,8,16] [--repeat 3]` or, for
//! Inception features of 48 images, `scaling --weights FILE`

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use pgn_bench::data::loader::Plan;
use pgn_bench::data::source::pictures;
use pgn_bench::data::{Images, Pixels};
use pgn_bench::error::Result;
use pgn_bench::machine::compute::Compute;
use pgn_bench::machine::cpu::schedule::{Seconds, simulated};
use pgn_bench::machine::memory;
use pgn_bench::metrics::Extractor;
use pgn_bench::metrics::inception::Inception;
use pgn_bench::metrics::inception::resize::Resize;
use pgn_bench::rng::Stream;
use pgn_bench::train::update::{Update, What};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "cnn32")]
    arch: String,
    #[arg(long, default_value = "pgn")]
    method: String,
    #[arg(long, default_value = "whole")]
    what: What,
    #[arg(long)]
    weights: Option<PathBuf>,
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Vec<u16>,
    #[arg(long, default_value_t = 3)]
    repeat: usize,
}

const IMAGES: usize = 48;
/// Images of the data set that batches are made of, and of a batch.
const DATA: [usize; 2] = [50_000, 64];
const BATCHES: u64 = 20;

/// Seconds that the loader's thread needs for a batch.
fn loading() -> Result<f64> {
    let pixels = Pixels::Memory(vec![0; DATA[0] * 32 * 32 * 3]);
    let images = Arc::new(Images::new("random", 32, pixels, vec![0; DATA[0]], 10));
    let plan = Plan::new(images, DATA[1], 0, false);
    let start = Instant::now();
    for number in 0..BATCHES {
        plan.batch(number)?;
    }
    Ok(start.elapsed().as_secs_f64() / BATCHES as f64)
}

fn main() -> Result<()> {
    memory::keep_pages();
    let args = Args::parse();
    let (name, mut run): (String, Box<dyn FnMut() -> Result<()>>) = match &args.weights {
        Some(weights) => {
            let network = Inception::from_file(weights, None, Resize::Tf, Compute::cpu())?;
            let mut stream = Stream::new(0, "bench", 0);
            let pixels: Vec<u8> = (0..IMAGES * 32 * 32 * 3).map(|_| stream.below(256) as u8).collect();
            ("Inception features".to_owned(), Box::new(move || network.extract(&pictures(&pixels, 32)).map(drop)))
        }
        None => {
            let mut update = Update::new(&args.arch, &args.method, 1.0, 64, &Compute::cpu())?;
            let what = args.what;
            (format!("{} {} {what}", args.arch, args.method), Box::new(move || update.run(what)))
        }
    };
    run()?;
    println!(
        "| {name}, threads | s | speed-up | outside of loops | waiting for the last task |\n|---|---|---|---|---|"
    );
    let mut one = None;
    for &threads in &args.threads {
        let threads = usize::from(threads);
        let mut result = Ok(());
        let mut rounds: Vec<Seconds> = Vec::new();
        for _ in 0..args.repeat.max(1) {
            rounds.push(simulated(threads, || result = run()));
            std::mem::replace(&mut result, Ok(()))?;
        }
        rounds.sort_by(|a, b| a.total().total_cmp(&b.total()));
        let of = rounds[rounds.len() / 2];
        let share = |seconds: f64| 100.0 * seconds / of.total();
        let base = *one.get_or_insert(of.serial + of.tasks);
        println!(
            "| {threads} | {:.3} | {:.2} | {:.1} % | {:.1} % |",
            of.total(),
            base / of.total(),
            share(of.serial),
            share(of.loops - of.tasks / threads as f64)
        );
    }
    println!("\nA batch of {} of {} images: {:.1} ms, on a thread of its own.", DATA[1], DATA[0], 1e3 * loading()?);
    Ok(())
}
