//! The order of a weight's elements. PyTorch's files have input channels before taps; devices take the channels last, as those of
//! images, and keep weights so. The CPU keeps the files' order.

use candle_core::{Result, Tensor};

use super::op::either;

/// Extents of elements of which a device keeps the two in the middle exchanged: `[outer, columns, rows, inner]` of the files'
/// `[outer, rows, columns, inner]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    outer: usize,
    rows: usize,
    columns: usize,
    inner: usize,
}

impl Order {
    /// The same order everywhere.
    pub const fn plain(elements: usize) -> Self {
        Self { outer: 1, rows: 1, columns: elements, inner: 1 }
    }

    /// A weight `[O, I, Kh, Kw]`.
    pub const fn kernel([o, i, kh, kw]: [usize; 4]) -> Self {
        Self { outer: o, rows: i, columns: kh * kw, inner: 1 }
    }

    /// What belongs to the channels of `pixels` pixels, `[C, pixels, inner]`.
    pub const fn channels(channels: usize, pixels: usize, inner: usize) -> Self {
        Self { outer: 1, rows: channels, columns: pixels, inner }
    }

    /// The same of rows of so many elements.
    pub const fn with_inner(self, inner: usize) -> Self {
        Self { inner, ..self }
    }

    /// A device's elements from the files', `[elements]`.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn to_device(self, t: &Tensor) -> Result<Tensor> {
        self.exchanged(t)
    }

    /// The files' elements from a device's, `[elements]`.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn to_file(self, t: &Tensor) -> Result<Tensor> {
        Self { rows: self.columns, columns: self.rows, ..self }.exchanged(t)
    }

    fn exchanged(self, t: &Tensor) -> Result<Tensor> {
        let Self { outer, rows, columns, inner } = self;
        let t = t.reshape((outer, rows, columns, inner))?;
        if rows == 1 || columns == 1 {
            return t.flatten_all();
        }
        let cpu = || t.transpose(1, 2)?.contiguous()?.flatten_all();
        either([&t], cpu, |tape, [t]| tape.transposed(t, [outer, rows, columns, inner])?.flatten_all())
    }
}
