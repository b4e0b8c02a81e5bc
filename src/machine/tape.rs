//! What an operator writes its calls on: they are made at once, and noted where a program is recorded.

use std::rc::Rc;

use candle_core::{DType, Result, Tensor, bail};

use super::call::{Array, Call, Memory, Product, Word, Work};
use super::convolution::{Dims, Pass};
use super::interface::Machine;
use super::kernels::{COUNTERS, THREADS, TILE, WORDS};
use super::program;

/// Words of a launch, of whatever can be one.
#[macro_export]
macro_rules! words {
    ($($word:expr),* $(,)?) => { &[$($crate::machine::call::Word::from($word)),*] };
}

/// Blocks of a sum over everything.
const PARTS: usize = 256;
/// Blocks of a sum over rows, and the rows that each thread of one takes at least.
const ROW_PARTS: [usize; 2] = [128, 8];

/// A machine, and the element type of what it is given.
pub struct Tape {
    machine: Rc<dyn Machine>,
    /// Element type of kernels and of fresh tensors.
    pub element: DType,
}

impl Tape {
    /// Of a machine.
    ///
    /// # Errors
    /// When no kernel takes elements of this type.
    pub fn new(machine: Rc<dyn Machine>, element: DType) -> Result<Self> {
        match element {
            DType::F32 | DType::F64 => Ok(Self { machine, element }),
            // Operands of convolutions and products.
            DType::BF16 => Ok(Self { machine, element: DType::F32 }),
            other => bail!("dtype {other:?} is not supported, only F32 and F64"),
        }
    }

    /// A tensor of memory that is not initialised.
    ///
    /// # Errors
    /// When there is not as much.
    pub fn alloc(&self, dims: &[usize]) -> Result<Tensor> {
        self.alloc_of(dims, self.element)
    }

    /// The same of another element type.
    ///
    /// # Errors
    /// When there is not as much.
    pub fn alloc_of(&self, dims: &[usize], dtype: DType) -> Result<Tensor> {
        let tensor = self.machine.alloc(dims, dtype)?;
        program::allocated(self.array(&tensor)?.memory());
        Ok(tensor)
    }

    /// A tensor as an operand.
    ///
    /// # Errors
    /// When it is not contiguous, or lies elsewhere.
    pub fn array<'a>(&self, t: &'a Tensor) -> Result<Array<'a>> {
        Ok(Array { at: self.machine.address(t)?, dims: t.dims(), dtype: t.dtype() })
    }

    /// The memory of a tensor.
    ///
    /// # Errors
    /// As for [`Tape::array`].
    pub fn memory(&self, t: &Tensor) -> Result<Memory> {
        Ok(self.array(t)?.memory())
    }

    /// Whether a convolution takes its channels last.
    ///
    /// # Errors
    /// When the device fails.
    pub fn channels_last(&self, pass: Pass, d: &Dims, element: DType) -> Result<bool> {
        self.machine.channels_last(pass, d, element)
    }

    fn call(&self, work: Work, element: DType, add: bool) -> Result<()> {
        let call = Call { work, element, add };
        program::called(&call)?;
        self.machine.run(&call)
    }

    /// One side of a convolution of the other two, x, w, y, all in `element`; `add`: to what is there.
    ///
    /// # Errors
    /// When the device refuses it.
    pub fn convolve(
        &self,
        pass: Pass,
        d: &Dims,
        channels_last: bool,
        (sides, element): ([Memory; 3], DType),
        add: bool,
    ) -> Result<()> {
        self.call(Work::Convolve { pass, dims: *d, channels_last, sides }, element, add)
    }

    /// A matrix product of a and b into out, all in `element`; `add`: to what is there.
    ///
    /// # Errors
    /// When the device refuses it.
    pub fn product(&self, product: Product, (sides, element): ([Memory; 3], DType), add: bool) -> Result<()> {
        self.call(Work::Product { product, sides }, element, add)
    }

    /// Launches a kernel.
    ///
    /// # Errors
    /// When there are more words than a kernel takes, or the device refuses it.
    pub fn launch(&self, kernel: &'static str, grid: [usize; 3], block: [usize; 2], some: &[Word]) -> Result<()> {
        if some.len() > WORDS {
            bail!("{kernel}: {} words are more than {WORDS}", some.len())
        }
        let words = std::array::from_fn(|k| some.get(k).copied().unwrap_or_default());
        self.call(Work::Launch { kernel, grid, block, words }, self.element, false)
    }

    /// Launches a kernel of one thread an element, whose first word is their number.
    ///
    /// # Errors
    /// When there are more elements than a kernel counts, or the device refuses it.
    pub fn each(&self, kernel: &'static str, elements: usize, rest: &[Word]) -> Result<()> {
        if elements == 0 {
            return Ok(());
        }
        // Kernels count in 32 bits and step by the grid's threads, of which there are fewer than 2^30.
        if elements > 1 << 31 {
            bail!("{kernel}: {elements} elements are more than a kernel takes")
        }
        let words = [&[Word::from(elements)], rest].concat();
        self.launch(kernel, [elements.div_ceil(THREADS).min(1 << 20), 1, 1], [THREADS, 1], &words)
    }

    /// [`Tape::each`] into fresh memory of `dims`, which is the second word.
    ///
    /// # Errors
    /// As for [`Tape::each`].
    pub fn made(&self, kernel: &'static str, dims: &[usize], rest: &[Word]) -> Result<Tensor> {
        let out = self.alloc(dims)?;
        let words = [&[Word::from(self.memory(&out)?)], rest].concat();
        self.each(kernel, dims.iter().product(), &words)?;
        Ok(out)
    }

    /// A pointwise kernel of operands x, a (absent: none) and values p, q, r, into fresh memory like x.
    ///
    /// # Errors
    /// As for [`Tape::each`].
    pub fn pointwise(&self, kernel: &'static str, x: Array, a: Option<Array>, [p, q, r]: [f64; 3]) -> Result<Tensor> {
        self.made(kernel, x.dims, words![x, a, Word::Nothing, p, q, r])
    }

    /// `[outer, rows, columns, inner]` as `[outer, columns, rows, inner]`.
    ///
    /// # Errors
    /// As for [`Tape::each`].
    pub fn transposed(&self, x: Array, [outer, rows, columns, inner]: [usize; 4]) -> Result<Tensor> {
        let out = self.alloc_of(&[outer, columns, rows, inner], x.dtype)?;
        let half = x.dtype == DType::BF16;
        self.each("transpose", x.len(), words![self.memory(&out)?, x, rows, columns, inner, half])?;
        Ok(out)
    }

    /// A kernel of one block for each of `n` things.
    ///
    /// # Errors
    /// When the device refuses it.
    pub fn blocks(&self, kernel: &'static str, n: usize, words: &[Word]) -> Result<()> {
        self.launch(kernel, [n, 1, 1], [THREADS, 1], words)
    }

    /// Σ aᵢ·bᵢ, or its root: `[1]`.
    ///
    /// # Errors
    /// When the device refuses it.
    pub fn dot(&self, a: Array, b: Array, root: bool) -> Result<Tensor> {
        let parts = a.len().div_ceil(THREADS).clamp(1, PARTS);
        let (partial, out) = (self.alloc_of(&[parts], DType::F64)?, self.alloc(&[1])?);
        let words = words![a.len(), self.memory(&partial)?, Word::Counters, self.memory(&out)?, a, b, root];
        self.launch("dot", [parts, 1, 1], [THREADS, 1], words)?;
        Ok(out)
    }

    /// A kernel that sums over the rows of `x` `[groups · rows, columns]` and does more with the sums.
    ///
    /// # Errors
    /// When the device refuses it.
    pub fn column_sums(
        &self,
        kernel: &'static str,
        [groups, rows, columns]: [usize; 3],
        x: Array,
        rest: &[Word],
    ) -> Result<()> {
        let (blocks, count) = (columns.div_ceil(TILE[0]), (rows / (TILE[1] * ROW_PARTS[1])).clamp(1, ROW_PARTS[0]));
        if blocks > COUNTERS {
            bail!("{kernel}: {columns} columns are more than a kernel takes")
        }
        let parts = self.alloc_of(&[groups, count, 2, columns], DType::F64)?;
        let mut words = [&words![rows, columns, self.memory(&parts)?, Word::Counters, x][..], rest].concat();
        words.resize(WORDS - 1, Word::Nothing);
        words.push((x.dtype == DType::BF16).into());
        self.launch(kernel, [blocks, count, groups], TILE, &words)
    }
}
