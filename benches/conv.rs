//! Rate of each convolution kernel at the shapes of the full-size networks, as a share of the matrix product's.
//!
//! `cargo bench --bench conv [FILTER]`

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use pgn_bench::nn::conv::{ConvSpec, conv2d, conv2d_flops, conv2d_input_grad, conv2d_weight_grad};
use pgn_bench::rng::Stream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// name, images, side, in, out, kernel, stride
const SHAPES: [(&str, usize, usize, usize, usize, usize, usize); 13] = [
    ("cnn32 main.0", 128, 32, 3, 64, 3, 1),
    ("cnn32 main.2", 128, 32, 64, 128, 4, 2),
    ("cnn32 main.4", 128, 16, 128, 128, 3, 1),
    ("cnn32 main.6", 128, 16, 128, 256, 4, 2),
    ("cnn32 main.8", 128, 8, 256, 256, 3, 1),
    ("cnn32 main.10", 128, 8, 256, 512, 4, 2),
    ("cnn32 main.12", 128, 4, 512, 512, 3, 1),
    ("resnet32 3x3 @32", 64, 32, 128, 128, 3, 1),
    ("resnet32 3x3 @16", 64, 16, 128, 128, 3, 1),
    ("resnet32 3x3 @8", 64, 8, 128, 128, 3, 1),
    ("generator 3x3 @32", 64, 32, 256, 256, 3, 1),
    ("cnn32 narrow @16", 128, 16, 32, 32, 3, 1),
    ("cnn32 narrow @32", 128, 32, 16, 32, 4, 2),
];

fn random(shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(Stream::new(0, "bench", 0).normals(shape.iter().product()), shape, &Device::Cpu)
}

/// Median seconds of a call, over at least five calls and half a second.
fn seconds(mut f: impl FnMut() -> Result<Tensor>) -> Result<f64> {
    f()?;
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 5 || begin.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        std::hint::black_box(f()?);
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn main() -> Result<()> {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_default();
    let (a, b) = (random(&[2048, 2048])?, random(&[2048, 2048])?);
    assert_eq!(a.dtype(), DType::F32);
    let peak = 2.0 * 2048f64.powi(3) / seconds(|| a.matmul(&b))? / 1e9;
    println!("sgemm 2048³: {peak:.0} GFLOP/s with {} threads\n", rayon::current_num_threads());
    println!("| shape | forward | input gradient | weight gradient | worst, share of sgemm |\n|---|---|---|---|---|");
    for (name, n, side, i, o, k, stride) in SHAPES {
        if !name.contains(&filter) {
            continue;
        }
        let spec = ConvSpec::new(stride, 1);
        let (x, w) = (random(&[n, side, side, i])?, random(&[o, i, k, k])?);
        let dy = conv2d(&x, &w, None, spec)?;
        let gflop = conv2d_flops(x.dims(), w.dims(), spec)? as f64 / 1e9;
        let rates = [
            gflop / seconds(|| conv2d(&x, &w, None, spec))?,
            gflop / seconds(|| conv2d_input_grad(&dy, &w, spec, [side, side]))?,
            gflop / seconds(|| conv2d_weight_grad(&x, &dy, spec, [k, k]))?,
        ];
        let worst = rates.iter().copied().fold(f64::INFINITY, f64::min);
        println!("| {name} | {:.0} | {:.0} | {:.0} | {:.2} |", rates[0], rates[1], rates[2], worst / peak);
    }
    Ok(())
}
