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

impl Panel {
    /// Rows of 32 KiB, which stay in the first cache while pixels go by.
    pub fn depth<T: Real>(&self) -> usize {
        (32 << 10) / (self.vectors * T::lanes() * size_of::<T>())
    }
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

/// Elements of a row that are summed over at a time, of `k`.
fn block(k: usize) -> usize {
    k.div_ceil(k.div_ceil(BLOCK))
}

/// Rows to multiply with a matrix.
pub struct Rows<'a, T> {
    /// Where each begins, and where its result does.
    pub pixels: &'a [Pixel],
    /// What they are counted from.
    pub input: *const T,
    /// Elements from one of a row to its next block over those of a block: 1 where rows lie as they are.
    pub apart: usize,
}

/// Rows `[P, K]` copied so that the same block of each lies side by side: whole rows are often powers of two apart, and then share few
/// lines of the first cache. Their results are `pitch` elements apart.
pub fn side_by_side<T: Real>(rows: &[T], k: usize, pitch: usize) -> (Vec<T>, Vec<Pixel>) {
    let (block, count) = (block(k), rows.len() / k);
    let mut copied = Vec::with_capacity(k.next_multiple_of(block) * count);
    for first in (0..k).step_by(block) {
        let len = block.min(k - first);
        for row in rows.chunks_exact(k) {
            copied.extend_from_slice(&row[first..first + len]);
            copied.extend(std::iter::repeat_n(T::ZERO, block - len));
        }
    }
    (copied, (0..count).map(|row| Pixel { input: row * block, output: row * pitch }).collect())
}

/// `output[p, n] = bias[n] + Σ_k rows[p, k]·matrix[k, n]`; without a bias in whole vectors.
///
/// # Safety
/// Every row has K elements and its result room for N, or without a bias for [`width`] of them.
pub unsafe fn multiply<T: Real>(
    rows: &Rows<T>,
    (matrix, [k, n]): (&[T], [usize; 2]),
    bias: Option<&[T]>,
    output: *mut T,
) {
    debug_assert_eq!(matrix.len(), k * width::<T>(n));
    let (block, panels) = (block(k), panels::<T>(n, T::vectors()));
    let some = |&Panel { first, columns, vectors }: &Panel, row: usize| {
        let columns = if bias.is_some() { columns } else { vectors * T::lanes() };
        let start = match bias {
            _ if row > 0 => Start::Output,
            Some(bias) => Start::Bias(&bias[first..first + columns]),
            None => Start::Zero,
        };
        // SAFETY: as the caller says; panels before this one have K whole rows each.
        unsafe {
            T::run(&Gather {
                input: rows.input,
                output: output.add(first),
                pixels: rows.pixels,
                segments: &[Segment { offset: row * rows.apart, row, len: block.min(k - row) }],
                panel: matrix[k * first..].as_ptr(),
                panel_rows: k,
                vectors,
                columns,
                start,
            });
        }
    };
    // The shorter of rows and results is what stays in cache.
    let blocks = || (0..k).step_by(block);
    if n < k {
        blocks().for_each(|row| panels.iter().for_each(|panel| some(panel, row)));
    } else {
        panels.iter().for_each(|panel| blocks().for_each(|row| some(panel, row)));
    }
}
