//! Products of matrices.

use candle_core::{Result, Tensor};

use super::activation::add_assign;
use super::op::{either, same_dims};
use crate::machine::call::Product;

/// `a` `[m, k]` times `b` `[k, n]`.
///
/// # Errors
/// When the sizes do not fit.
pub fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((m, k), (rows, n)) = (a.dims2()?, b.dims2()?);
    same_dims("product", &[k], &[rows])?;
    either(
        [a, b],
        || a.matmul(b),
        |tape, [a, b]| {
            let out = tape.alloc(&[m, n])?;
            let sides = [a.memory(), b.memory(), tape.memory(&out)?];
            tape.product(Product { size: [m, n, k], transposed: [false; 2] }, (sides, tape.element), false)?;
            Ok(out)
        },
    )
}

/// Adds `aᵀ·b` to `into`: `a` `[k, m]`, `b` `[k, n]`, `into` `[m, n]`.
///
/// # Errors
/// When the sizes do not fit.
pub fn add_transposed_product(a: &Tensor, b: &Tensor, into: &Tensor) -> Result<()> {
    let ((k, m), (rows, n)) = (a.dims2()?, b.dims2()?);
    same_dims("transposed product", &[k], &[rows])?;
    same_dims("transposed product", &[m, n], into.dims())?;
    either(
        [a, b, into],
        || add_assign(into, &a.t()?.matmul(b)?),
        |tape, [a, b, into]| {
            let sides = [a.memory(), b.memory(), into.memory()];
            tape.product(Product { size: [m, n, k], transposed: [true, false] }, (sides, tape.element), true)
        },
    )
}
