//! Times training updates at full size and prints one JSON object: the counterpart of `benches/peer/step.py`.
//!
//! `step --arch cnn32 --method pgn --what critic|generator|whole --repeat 5 [--width 1] [--batch 64] [--device cuda]
//! [--precision f32|tf32|bf16] [--burst 1] [--no-graph]`

#![allow(clippy::print_stdout)]

use clap::Parser;
use pgn_bench::error::Result;
use pgn_bench::machine::compute::Compute;
use pgn_bench::machine::memory;
use pgn_bench::machine::precision::Precision;
use pgn_bench::train::profile::{median, timed};
use pgn_bench::train::update::{Update, What};

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
    #[arg(long, default_value = "cpu")]
    device: String,
    /// f32, tf32 or bf16
    #[arg(long)]
    precision: Option<String>,
    #[arg(long)]
    deterministic: bool,
    /// Make a device's updates call by call
    #[arg(long)]
    no_graph: bool,
    /// Updates between two waits for the device, which each time is an equal share of
    #[arg(long, default_value_t = 1)]
    burst: usize,
}

fn main() -> Result<()> {
    memory::keep_pages();
    let args = Args::parse();
    let precision = args.precision.as_deref().and_then(|p| Precision::ALL.iter().find(|(id, _)| *id == p));
    let compute = Compute::open(&args.device, precision.map(|p| p.1), args.deterministic)?;
    let compute = Compute { graph: !args.no_graph, ..compute };
    let mut update = Update::new(&args.arch, &args.method, args.width, args.batch, &compute)?;
    // The first round warms the caches and the allocator, and compiles a GPU's kernels.
    update.run(args.what)?;
    update.wait()?;
    memory::reset_peak(&compute.device)?;
    let times = timed(&mut update, args.what, [args.repeat, args.burst])?;
    println!(
        "{}",
        serde_json::json!({
            "arch": args.arch, "method": args.method, "what": args.what.to_string(),
            "median_s": median(&times), "times_s": times,
            "device": compute.id(), "flops": update.flops(args.what)?, "peak_bytes": memory::peak_bytes(&compute.device)?,
        })
    );
    Ok(())
}
