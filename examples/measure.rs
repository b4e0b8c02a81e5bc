//! Times the metrics and prints one JSON object: the counterpart of `benches/peer/measure.py` and `benches/peer/vit.py`.
//!
//! `measure --what inception|dinov2 --weights FILE --repeat 3 [--device cuda] [--precision f32|tf32] [--images 50]`,
//! `measure --what fid --repeat 3` or `measure --what manifold --images 10000 --repeat 1` (or another measure of pairs)

#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, Tensor};
use clap::Parser;
use pgn_bench::data::source::pictures;
use pgn_bench::error::{Error, Result};
use pgn_bench::machine::compute::Compute;
use pgn_bench::machine::precision::Precision;
use pgn_bench::metrics::Extractor;
use pgn_bench::metrics::authenticity::auth_pct;
use pgn_bench::metrics::cmmd::cmmd;
use pgn_bench::metrics::frechet::{FeatureSums, distance};
use pgn_bench::metrics::inception::Inception;
use pgn_bench::metrics::inception::resize::Resize;
use pgn_bench::metrics::kid::mmd2;
use pgn_bench::metrics::manifold::manifold;
use pgn_bench::metrics::memorisation::memorisation_distance;
use pgn_bench::metrics::mind::{DIRECTIONS, directions, mind};
use pgn_bench::metrics::vit::dinov2;
use pgn_bench::rng::Stream;

#[derive(Parser)]
struct Args {
    /// inception, dinov2: features of images of 32×32 pixels; fid: the distance of two sets of 5,000 features of 2,048 dimensions; kid,
    /// manifold, cmmd, auth-pct, memorisation, mind: that measure of two sets of as many features as images
    #[arg(long)]
    what: String,
    #[arg(long)]
    weights: Option<PathBuf>,
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    #[arg(long, default_value_t = 50)]
    images: usize,
    #[arg(long, default_value = "cpu")]
    device: String,
    /// f32 or tf32
    #[arg(long)]
    precision: Option<String>,
}

const SHAPE: (usize, usize) = (5000, 2048);

fn main() -> Result<()> {
    pgn_bench::machine::memory::keep_pages();
    let args = Args::parse();
    let mut stream = Stream::new(0, "bench", 0);
    let mut run: Box<dyn FnMut() -> Result<()>> = match (args.what.as_str(), &args.weights) {
        (what @ ("inception" | "dinov2"), Some(weights)) => {
            let precision = args.precision.as_deref().and_then(|p| Precision::ALL.iter().find(|(id, _)| *id == p));
            let compute = Compute::open(&args.device, precision.map(|p| p.1), false)?;
            let network: Box<dyn Extractor> = match what {
                "dinov2" => Box::new(dinov2::from_file(weights, dinov2::Resize::Float, compute)?),
                _ => Box::new(Inception::from_file(weights, None, Resize::Tf, compute)?),
            };
            let pixels: Vec<u8> = (0..args.images * 32 * 32 * 3).map(|_| stream.below(256) as u8).collect();
            Box::new(move || network.extract(&pictures(&pixels, 32)).map(drop))
        }
        ("fid", _) => {
            let mut features = || Tensor::from_vec(stream.normals(SHAPE.0 * SHAPE.1), SHAPE, &Device::Cpu);
            let sets = [features()?, features()?];
            Box::new(move || {
                let [a, b] = [0, 1].map(|k| {
                    let mut sums = FeatureSums::new(SHAPE.1)?;
                    for part in sets[k].chunk(5, 0)? {
                        sums.add(&part)?;
                    }
                    sums.finish()
                });
                distance(&a?, &b?).map(drop)
            })
        }
        (what, _) => {
            let shape = (args.images, SHAPE.1);
            let mut features = || Tensor::from_vec(stream.normals(shape.0 * shape.1), shape, &Device::Cpu);
            let (x, y, axes) = (features()?, features()?, directions(DIRECTIONS, shape.1, 0)?);
            match what {
                "kid" => Box::new(move || mmd2(&x, &y).map(drop)),
                "manifold" => Box::new(move || manifold(&x, &y, 5).map(drop)),
                "cmmd" => Box::new(move || cmmd(&x, &y).map(drop)),
                "auth-pct" => Box::new(move || auth_pct(&x, &y).map(drop)),
                "memorisation" => Box::new(move || memorisation_distance(&x, &y).map(drop)),
                "mind" => Box::new(move || mind(&x, &y, &axes).map(drop)),
                other => return Err(Error::invalid(format!("--what {other}: not known, or --weights are missing"))),
            }
        }
    };
    let mut times = Vec::new();
    for _ in 0..=args.repeat {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    // The first round warms the caches and the allocator.
    let times = &times[1..];
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    println!("{}", serde_json::json!({"what": args.what, "median_s": sorted[sorted.len() / 2], "times_s": times}));
    Ok(())
}
