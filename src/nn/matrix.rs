//! Products of matrices, rows centred before they go into one, and matrices side by side.

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

/// `a` `[n, p]` and `b` `[n, q]` side by side: `[n, p + q]`.
///
/// # Errors
/// When they differ in rows.
pub fn join_columns(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((n, p), (rows, q)) = (a.dims2()?, b.dims2()?);
    same_dims("join_columns", &[n], &[rows])?;
    let cpu = || Tensor::cat(&[a, b], 1);
    either([a, b], cpu, |tape, [a, b]| tape.made("join_columns", &[n, p + q], words![a, p, b, q]))
}

/// The last `q` columns of `x` `[n, p + q]`.
///
/// # Errors
/// When there are fewer.
pub fn last_columns(x: &Tensor, q: usize) -> Result<Tensor> {
    let (n, columns) = x.dims2()?;
    let Some(first) = columns.checked_sub(q) else { bail!("last_columns: {q} of {columns} columns") };
    let cpu = || x.narrow(1, first, q)?.contiguous();
    either([x], cpu, |tape, [x]| tape.made("last_columns", &[n, q], words![x, columns, q]))
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
    fn columns_are_joined_and_taken_off() {
        let (a, b) = (random("a", &[3, 5]), random("b", &[3, 2]));
        let both = join_columns(&a, &b).unwrap();
        let rows =
            values(&a).chunks(5).zip(values(&b).chunks(2)).flat_map(|(a, b)| [a, b].concat()).collect::<Vec<_>>();
        assert_eq!((both.dims(), values(&both)), (&[3, 7][..], rows));
        assert_eq!(values(&last_columns(&both, 2).unwrap()), values(&b));
        assert!(join_columns(&a, &random("c", &[2, 2])).is_err() && last_columns(&b, 3).is_err());
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
