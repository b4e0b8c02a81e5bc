//! What the operator proofs share: random f64 tensors, inner products and central differences.

use candle_core::{DType, Device, Result, Tensor};

use crate::rng::Stream;

/// Standard normals of `shape`, in f64 on the CPU.
pub fn random(name: &str, shape: &[usize]) -> Tensor {
    let mut stream = Stream::new(0, name, 0);
    let n = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|_| stream.normal()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// ⟨a, b⟩, asserting that both are f64 on the CPU and of one shape.
pub fn dot(a: &Tensor, b: &Tensor) -> f64 {
    for t in [a, b] {
        assert_eq!(t.dtype(), DType::F64);
        assert!(t.device().is_cpu());
    }
    assert_eq!(a.dims(), b.dims());
    (a * b).unwrap().sum_all().unwrap().to_scalar().unwrap()
}

/// Asserts `a ≈ b` to a relative tolerance.
#[track_caller]
pub fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0), "{a} is not {b} to {tolerance}");
}

/// Asserts `‖a − b‖ ≤ tolerance·‖b‖`.
#[track_caller]
pub fn tensors_close(a: &Tensor, b: &Tensor, tolerance: f64) {
    let d = (a - b).unwrap();
    let (error, norm) = (dot(&d, &d).sqrt(), dot(b, b).sqrt());
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
