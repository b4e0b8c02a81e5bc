//! Products of matrices, and rows centred before they go into one.

use candle_core::{DType, Result, Tensor, bail};

use super::activation::add_assign;
use super::op::{either, same_dims};
use crate::machine::call::Product;
use crate::words;

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

/// `a` `[m, k]` times `bᵀ`, `b` `[n, k]`.
///
/// # Errors
/// When the sizes do not fit.
pub fn product_with_transposed(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((m, k), (n, columns)) = (a.dims2()?, b.dims2()?);
    same_dims("product with a transposed matrix", &[k], &[columns])?;
    either(
        [a, b],
        || a.matmul(&b.t()?),
        |tape, [a, b]| {
            let out = tape.alloc(&[m, n])?;
            let sides = [a.memory(), b.memory(), tape.memory(&out)?];
            tape.product(Product { size: [m, n, k], transposed: [false, true] }, (sides, tape.element), false)?;
            Ok(out)
        },
    )
}

/// `x − origin` for each row, in f64: `x` `[n, d]` of f32 or f64, `origin` `[d]` of f64.
///
/// # Errors
/// When the sizes or types do not fit.
pub fn centred(x: &Tensor, origin: &Tensor) -> Result<Tensor> {
    let (_, d) = x.dims2()?;
    same_dims("centred rows", &[d], origin.dims())?;
    let cpu = || x.to_dtype(DType::F64)?.broadcast_sub(origin);
    either([origin, x], cpu, |tape, [origin, x]| match (origin.dtype, x.dtype) {
        (DType::F64, DType::F32 | DType::F64) => {
            tape.made("centre_rows", x.dims, words![x, x.dtype == DType::F32, origin, d])
        }
        (of_origin, of_rows) => bail!("rows of {of_rows:?} centred at {of_origin:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{random, tensors_close, values};

    #[test]
    fn products_take_either_side_transposed() {
        let (a, b) = (random("a", &[3, 5]), random("b", &[5, 4]));
        let want = product(&a, &b).unwrap();
        tensors_close(&product_with_transposed(&a, &b.t().unwrap().contiguous().unwrap()).unwrap(), &want, 1e-14);
        let sum = (&want * 1.0).unwrap();
        add_transposed_product(&a.t().unwrap().contiguous().unwrap(), &b, &sum).unwrap();
        tensors_close(&sum, &(want * 2.0).unwrap(), 1e-14);
        assert!(product_with_transposed(&a, &b).is_err());
    }

    #[test]
    fn rows_are_centred_in_double() {
        let (x, origin) = (random("x", &[3, 5]), random("origin", &[5]));
        let single = x.to_dtype(DType::F32).unwrap();
        for x in [&x, &single] {
            let want = x.to_dtype(DType::F64).unwrap().broadcast_sub(&origin).unwrap();
            assert_eq!(values(&centred(x, &origin).unwrap()), values(&want));
        }
        assert!(centred(&x, &random("origin", &[4])).is_err());
    }
}
