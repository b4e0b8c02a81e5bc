//! Times training updates at full size and prints one JSON object: the counterpart of `benches/peer/step.py`.
//!
//! `step --arch cnn32 --method pgn --what critic|generator|whole --repeat 5 [--width 1] [--batch 64]`

#[path = "../benches/update/mod.rs"]
mod update;

use std::time::Instant;

use clap::Parser;
use pgn_bench::error::Result;
use update::{Update, What};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    arch: String,
    #[arg(long)]
    method: String,
    #[arg(long)]
    what: What,
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// Real images a critic update; as many generated ones, and twice as many a generator update
    #[arg(long, default_value_t = 64)]
    batch: usize,
}

fn main() -> Result<()> {
    pgn_bench::memory::keep_pages();
    let args = Args::parse();
    let mut update = Update::new(&args.arch, &args.method, args.width, args.batch)?;
    // The first round warms the caches and the allocator.
    update.run(args.what)?;
    let mut times = Vec::new();
    for _ in 0..args.repeat {
        let start = Instant::now();
        update.run(args.what)?;
        times.push(start.elapsed().as_secs_f64());
    }
    let mut sorted = times.clone();
    sorted.sort_by(f64::total_cmp);
    println!(
        "{}",
        serde_json::json!({
            "arch": args.arch, "method": args.method, "what": args.what.to_string(),
            "median_s": sorted[sorted.len() / 2], "times_s": times,
            "peak_rss_bytes": pgn_bench::memory::peak_bytes(),
        })
    );
    Ok(())
}
