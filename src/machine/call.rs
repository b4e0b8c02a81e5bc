//! What a device is asked to do: kernels launched, convolutions, matrix products, over memory named by address.

use candle_core::DType;

use super::convolution::{Dims, Pass};
use super::kernels::WORDS;

/// Memory that a call reads or writes; of address 0 there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Its address.
    pub at: u64,
    /// Its length.
    pub bytes: u64,
}

impl Memory {
    /// None.
    pub const NONE: Self = Self { at: 0, bytes: 0 };
}

/// A contiguous operand on a device.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    /// Address of its first element.
    pub at: u64,
    /// Dimensions.
    pub dims: &'a [usize],
    /// Element type.
    pub dtype: DType,
}

impl Array<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its memory.
    pub fn memory(&self) -> Memory {
        Memory { at: self.at, bytes: (self.len() * self.dtype.size_in_bytes()) as u64 }
    }
}

/// One of the words that a kernel is given.
#[derive(Clone, Copy, Debug, Default)]
pub enum Word {
    /// Zero.
    #[default]
    Nothing,
    /// A number.
    Count(u64),
    /// The bits of a value.
    Value(f64),
    /// An address.
    Memory(Memory),
    /// The address of the device's counters ([`COUNTERS`](super::kernels::COUNTERS)), all zero between launches.
    Counters,
}

impl From<usize> for Word {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<bool> for Word {
    fn from(is: bool) -> Self {
        Self::Count(u64::from(is))
    }
}

impl From<f64> for Word {
    fn from(value: f64) -> Self {
        Self::Value(value)
    }
}

impl From<Memory> for Word {
    fn from(memory: Memory) -> Self {
        Self::Memory(memory)
    }
}

impl From<Array<'_>> for Word {
    fn from(array: Array) -> Self {
        Self::Memory(array.memory())
    }
}

impl<T: Into<Word>> From<Option<T>> for Word {
    fn from(some: Option<T>) -> Self {
        some.map_or(Self::Nothing, Into::into)
    }
}

/// A matrix product over row-major matrices: `out[m, n] = Σ_k a[m, k]·b[k, n]`, each operand stored as named or transposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Product {
    /// Rows and columns of the result, and what is summed over.
    pub size: [usize; 3],
    /// Whether `a` is stored as `[k, m]`, and `b` as `[n, k]`.
    pub transposed: [bool; 2],
}

/// What a call does.
// Calls are few, and most of them are launches.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Runs a kernel over a grid of blocks of threads.
    #[allow(missing_docs)]
    Launch { kernel: &'static str, grid: [usize; 3], block: [usize; 2], words: [Word; WORDS] },
    /// One side of a convolution of the other two; images `[N, H, W, C]` and weights `[O, Kh, Kw, I]`, or else channels first
    /// in both. `sides`: x, w, y.
    #[allow(missing_docs)]
    Convolve { pass: Pass, dims: Dims, channels_last: bool, sides: [Memory; 3] },
    /// A matrix product. `sides`: a, b, out.
    #[allow(missing_docs)]
    Product { product: Product, sides: [Memory; 3] },
}

/// Something a device is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// What.
    pub work: Work,
    /// Element type: of a kernel's `real`, or of the operands of a convolution or product and what it makes of them.
    pub element: DType,
    /// Whether the result of a convolution or product is added to what is there.
    pub add: bool,
}

impl Call {
    /// Everything that it reads or writes.
    pub fn memory(&self) -> Vec<Memory> {
        let of_word = |word: &Word| if let Word::Memory(memory) = word { Some(*memory) } else { None };
        let all: Vec<Memory> = match &self.work {
            Work::Launch { words, .. } => words.iter().filter_map(of_word).collect(),
            Work::Convolve { sides, .. } | Work::Product { sides, .. } => sides.to_vec(),
        };
        all.into_iter().filter(|m| m.at != 0).collect()
    }

    /// The same with every address changed.
    ///
    /// # Errors
    /// What `change` says.
    pub fn moved<E>(mut self, mut change: impl FnMut(Memory) -> Result<Memory, E>) -> Result<Self, E> {
        let mut change = |memory: &mut Memory| -> Result<(), E> {
            if memory.at != 0 {
                *memory = change(*memory)?;
            }
            Ok(())
        };
        match &mut self.work {
            Work::Launch { words, .. } => {
                for word in words {
                    if let Word::Memory(memory) = word {
                        change(memory)?;
                    }
                }
            }
            Work::Convolve { sides, .. } | Work::Product { sides, .. } => {
                for side in sides {
                    change(side)?;
                }
            }
        }
        Ok(self)
    }

    /// Name of a kernel, or of what a library does.
    pub fn name(&self) -> &'static str {
        match &self.work {
            Work::Launch { kernel, .. } => kernel,
            Work::Convolve { pass: Pass::Forward, .. } => "convolution forward",
            Work::Convolve { pass: Pass::InputGrad, .. } => "convolution input gradient",
            Work::Convolve { pass: Pass::WeightGrad, .. } => "convolution weight gradient",
            Work::Product { .. } => "matrix product",
        }
    }

    /// Multiplications and additions of a convolution or product.
    pub fn flops(&self) -> u64 {
        match &self.work {
            Work::Launch { .. } => 0,
            Work::Convolve { dims, .. } => dims.flops(),
            Work::Product { product, .. } => 2 * product.size.iter().product::<usize>() as u64,
        }
    }
}
