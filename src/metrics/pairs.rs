//! All rows of one matrix with all rows of another, in f64. The matrix of all pairs is never there, only a block of its rows.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};

/// Rows of the matrix of pairs held at a time.
const ROWS: usize = 256;

/// Refuses matrices for `what` that are not of one width, have no more rows than `more_than`, or hold what is not finite.
///
/// # Errors
/// When they do not fit.
pub fn check(what: &str, a: &Tensor, b: &Tensor, more_than: usize) -> Result<()> {
    let ((n, d), (m, e)) = (a.dims2()?, b.dims2()?);
    if d != e || n <= more_than || m <= more_than {
        return Err(Error::invalid(format!(
            "{what} needs two matrices of one width and more than {more_than} rows, got {n}×{d} and {m}×{e}"
        )));
    }
    for t in [a, b] {
        if squared_norms(t)?.iter().any(|norm| !norm.is_finite()) {
            return Err(Error::NotFinite("the features of images"));
        }
    }
    Ok(())
}

/// What `each` makes of every row of `a` `[N, d]`: of its index and its inner products with all rows of `b` `[M, d]`, M > 0.
///
/// # Errors
/// When widths differ.
pub fn products<T: Send>(a: &Tensor, b: &Tensor, each: impl Fn(usize, &mut [f64]) -> T + Sync) -> Result<Vec<T>> {
    let (n, m) = (a.dim(0)?, b.dim(0)?);
    let columns = b.to_dtype(DType::F64)?.t()?;
    let mut made = Vec::with_capacity(n);
    for first in (0..n).step_by(ROWS) {
        let rows = a.narrow(0, first, ROWS.min(n - first))?.to_dtype(DType::F64)?;
        let mut block = rows.matmul(&columns)?.flatten_all()?.to_vec1::<f64>()?;
        made.par_extend(block.par_chunks_mut(m).enumerate().map(|(i, row)| each(first + i, row)));
    }
    Ok(made)
}

/// [`products`], of squared Euclidean distances.
///
/// # Errors
/// As for [`products`].
pub fn distances<T: Send>(a: &Tensor, b: &Tensor, each: impl Fn(usize, &mut [f64]) -> T + Sync) -> Result<Vec<T>> {
    let (of_a, of_b) = (squared_norms(a)?, squared_norms(b)?);
    products(a, b, |i, row| {
        row.iter_mut().zip(&of_b).for_each(|(p, norm)| *p = (of_a[i] + norm - 2.0 * *p).max(0.0));
        each(i, row)
    })
}

/// Squared Euclidean norm of each row.
///
/// # Errors
/// When it is no matrix of floating-point numbers.
pub fn squared_norms(t: &Tensor) -> Result<Vec<f64>> {
    let n = t.dim(0)?;
    let mut norms = Vec::with_capacity(n);
    for first in (0..n).step_by(ROWS) {
        let rows = t.narrow(0, first, ROWS.min(n - first))?.to_dtype(DType::F64)?;
        norms.extend(rows.sqr()?.sum(1)?.to_vec1::<f64>()?);
    }
    Ok(norms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::random;

    #[test]
    fn they_are_the_double_loop_whatever_the_blocks() {
        let (n, m) = (ROWS + 3, 5);
        let (a, b) = (random("a", &[n, 4]), random("b", &[m, 4]));
        let rows = |t: &Tensor| t.to_vec2::<f64>().unwrap();
        let (x, y) = (rows(&a), rows(&b));
        let got = distances(&a, &b, |i, row| (i, row.to_vec())).unwrap();
        for (i, (at, row)) in got.into_iter().enumerate() {
            let square = |j: usize| x[i].iter().zip(&y[j]).map(|(p, q)| (p - q).powi(2)).sum::<f64>();
            assert!(at == i && row.len() == m && (0..m).all(|j| (row[j] - square(j)).abs() < 1e-12));
        }
        assert!(check("this", &a, &random("c", &[5, 3]), 0).unwrap_err().to_string().contains("this needs"));
        assert!(check("this", &a, &b, 4).is_ok() && check("this", &a, &b, 5).is_err());
    }
}
