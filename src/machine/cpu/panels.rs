//! Matrices in panels, a vector unit's tile wide, and rows multiplied with them by the gather kernel.

use super::kernel::{Gather, Pixel, Segment, Start};
use super::real::Real;

/// Most rows of a panel that one call of the kernel sums over: with 64 columns in f32 these are 36 KiB, which stay in the first cache.
const BLOCK: usize = 144;

/// A panel of columns, which in a convolution are output channels.
#[derive(Clone, Copy)]
pub struct Panel {
    /// Its first column.
    pub first: usize,
    /// Columns.
    pub columns: usize,
    /// Vectors that hold them.
    pub vectors: usize,
}

/// Panels of `n` columns, each `vectors` wide or less.
pub fn panels<T: Real>(n: usize, vectors: usize) -> Vec<Panel> {
    let lanes = T::lanes();
    let width = vectors * lanes;
    (0..n)
        .step_by(width)
        .map(|first| {
            let columns = width.min(n - first);
            Panel { first, columns, vectors: columns.div_ceil(lanes) }
        })
        .collect()
}

/// Columns of whole vectors that hold `n`.
pub fn width<T: Real>(n: usize) -> usize {
    n.next_multiple_of(T::lanes())
}

/// A matrix `[K, N]` as `[panel][k][column of the panel]`, filled up to whole vectors with zeros, from its columns `[K]`.
pub fn pack<'a, T: Real>([k, n]: [usize; 2], column: impl Fn(usize) -> &'a [T]) -> Vec<T> {
    let mut packed = vec![T::ZERO; k * width::<T>(n)];
    let mut rest = packed.as_mut_slice();
    for Panel { first, columns, vectors } in panels::<T>(n, T::vectors()) {
        let width = vectors * T::lanes();
        let (panel, after) = rest.split_at_mut(k * width);
        for c in 0..columns {
            for (row, &x) in panel.chunks_exact_mut(width).zip(column(first + c)) {
                row[c] = x;
            }
        }
        rest = after;
    }
    packed
}

/// `output[p, n] = bias[n] + Σ_k input[p, k]·matrix[k, n]` for rows p, which begin where each pixel says; without a bias in whole vectors.
///
/// # Safety
/// Every row of `input` has K elements and every row of `output` room for N, or without a bias for [`width`] of them.
pub unsafe fn multiply<T: Real>(
    pixels: &[Pixel],
    (input, output): (*const T, *mut T),
    (matrix, [k, n]): (&[T], [usize; 2]),
    bias: Option<&[T]>,
) {
    debug_assert_eq!(matrix.len(), k * width::<T>(n));
    let block = k.div_ceil(k.div_ceil(BLOCK));
    for Panel { first, columns, vectors } in panels::<T>(n, T::vectors()) {
        let columns = if bias.is_some() { columns } else { vectors * T::lanes() };
        for row in (0..k).step_by(block) {
            let start = match bias {
                _ if row > 0 => Start::Output,
                Some(bias) => Start::Bias(&bias[first..first + columns]),
                None => Start::Zero,
            };
            // SAFETY: as the caller says; panels before this one have K whole rows each.
            unsafe {
                T::run(&Gather {
                    input,
                    output: output.add(first),
                    pixels,
                    segments: &[Segment { offset: row, row, len: block.min(k - row) }],
                    panel: matrix[k * first..].as_ptr(),
                    panel_rows: k,
                    vectors,
                    columns,
                    start,
                });
            }
        }
    }
}
