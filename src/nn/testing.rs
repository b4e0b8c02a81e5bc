//! What the operator proofs share: the device they run on, random f64 tensors, inner products and central differences.

use std::sync::LazyLock;

use candle_core::{DType, Device, Result, Tensor};

use super::kernel::Kernel;
use crate::machine::compute::Compute;
use crate::machine::precision::Precision;
use crate::rng::Stream;

/// The device that `PGN_BENCH_DEVICE` names; the CPU where it names none. The emulated one is opened for each thread.
pub fn device() -> &'static Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| {
        if std::env::var_os("PGN_BENCH_DEVICE").is_none() {
            println!("skipped: nothing runs on a device without PGN_BENCH_DEVICE=cuda or emulated");
        }
        open()
    });
    thread_local! {
        static OPENED: () = if open().is_cpu() {};
    }
    let device = &*DEVICE;
    if device.is_cpu() {
        OPENED.with(|()| ());
    }
    device
}

fn open() -> Device {
    let name = std::env::var("PGN_BENCH_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    Compute::open(&name, Some(Precision::F32), false).unwrap().device
}

/// Whether the device under test is one, not the CPU.
pub fn on_machine() -> bool {
    crate::machine::current::is_machine(device()).unwrap()
}

/// A kernel of standard normals.
pub fn kernel(name: &str, shape: [usize; 4]) -> Kernel {
    Kernel::new(&random(name, &shape)).unwrap()
}

/// Asserts that a tensor is f64 on the device under test.
#[track_caller]
pub fn on_device(t: &Tensor) {
    assert_eq!(t.dtype(), DType::F64);
    assert!(t.device().same_device(device()));
}

/// Every element of a tensor, in f64.
pub fn values(t: &Tensor) -> Vec<f64> {
    assert_eq!(t.dtype(), DType::F64);
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Standard normals of `shape`, in f64 on the device under test.
pub fn random(name: &str, shape: &[usize]) -> Tensor {
    let mut stream = Stream::new(0, name, 0);
    let n = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|_| stream.normal()).collect();
    Tensor::from_vec(values, shape, device()).unwrap()
}

/// ⟨a, b⟩ of tensors of one shape.
pub fn dot(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| a * b).sum()
}

/// Asserts `a ≈ b` to a relative tolerance.
#[track_caller]
pub fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0), "{a} is not {b} to {tolerance}");
}

/// Asserts `‖a − b‖ ≤ tolerance·‖b‖`.
#[track_caller]
pub fn tensors_close(a: &Tensor, b: &Tensor, tolerance: f64) {
    assert_eq!(a.dims(), b.dims());
    let d = values(a).iter().zip(values(b)).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let (error, norm) = (d.sqrt(), dot(b, b).sqrt());
    assert!(error <= tolerance * norm, "relative error {}", error / norm);
}

/// The adjoint identity of a linear operator: ⟨Ax, y⟩ = ⟨x, Aᵀy⟩.
#[track_caller]
pub fn adjoint(ax: &Tensor, y: &Tensor, x: &Tensor, aty: &Tensor) {
    close(dot(ax, y), dot(x, aty), 1e-12);
}

/// Central difference of `f` at `x` along `v` against the analytic gradient: ⟨∇f, v⟩.
#[track_caller]
pub fn central_difference(f: impl Fn(&Tensor) -> Result<f64>, x: &Tensor, v: &Tensor, gradient: &Tensor) {
    let h = 1e-6;
    let at = |s: f64| f(&(x + (v * s).unwrap()).unwrap()).unwrap();
    close((at(h) - at(-h)) / (2.0 * h), dot(gradient, v), 1e-7);
}
