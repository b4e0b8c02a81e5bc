//! Sums and maxima over a row, in lanes that the compiler makes vectors of; the order is fixed.

use super::kernel::Number;

const LANES: usize = 32;

#[inline(always)]
fn reduce<T: Number>(row: &[T], start: T, of: impl Fn(T, T) -> T, join: impl Fn(T, T) -> T) -> T {
    let mut lanes = [start; LANES];
    let whole = row.chunks_exact(LANES);
    let rest = whole.remainder();
    for chunk in whole {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = of(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = of(*lane, x);
    }
    lanes.into_iter().fold(start, join)
}

/// Σ f(x).
#[inline(always)]
pub fn sum<T: Number>(row: &[T], f: impl Fn(T) -> T) -> T {
    reduce(row, T::ZERO, |sum, x| sum + f(x), |a, b| a + b)
}

/// The largest, of at least one.
#[inline(always)]
pub fn max<T: Number>(row: &[T]) -> T {
    let larger = |a, b| if b > a { b } else { a };
    reduce(row, row[0], larger, larger)
}
