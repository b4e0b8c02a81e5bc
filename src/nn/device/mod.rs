//! Operators on a device: what they ask of it ([`Machine`]), the kernels they launch, and the machines there are.
//!
//! An operator's device form only prepares launches and names addresses, so the same code runs on a GPU (`cuda/`, feature
//! `cuda`) and, kernels included, on an emulation of one in the tests (`emulated.rs`).

#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(test)]
pub(crate) mod emulated;
pub mod kernels;

use candle_core::{Result, Shape, Tensor, bail};

use super::conv::Dims;
use kernels::{THREADS, TILE, WORDS};

/// A contiguous operand on a device: its address and dimensions.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    /// Address of its first element.
    pub at: u64,
    /// Dimensions.
    pub dims: &'a [usize],
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
}

/// A fresh tensor on a machine.
pub type MadeOn<M> = Result<(<M as Machine>::Buffer, Shape)>;

/// Which side of a convolution is computed from the other two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pass {
    /// The output, of input and weight.
    Forward,
    /// The input's gradient, of weight and output gradient.
    InputGrad,
    /// The weight's gradient, of input and output gradient.
    WeightGrad,
}

/// A matrix product over row-major matrices: `out[m, n] = Σ_k a[m, k]·b[k, n]`, each operand stored as named or transposed.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows and columns of the result, and what is summed over.
    pub size: [usize; 3],
    /// Whether `a` is stored as `[k, m]`, and `b` as `[n, k]`.
    pub transposed: [bool; 2],
}

/// What operators need of a device that computes in one element type.
pub trait Machine {
    /// Memory of some elements.
    type Buffer;
    /// Bytes of an element.
    const BYTES: usize;

    /// Memory of so many elements, not initialised.
    ///
    /// # Errors
    /// When there is not as much.
    fn alloc(&self, elements: usize) -> Result<Self::Buffer>;

    /// Address of memory.
    fn at(&self, buffer: &Self::Buffer) -> u64;

    /// Address of a tensor of this machine, which must be contiguous.
    ///
    /// # Errors
    /// When it is not, or lies elsewhere.
    fn address(&self, name: &str, t: &Tensor) -> Result<u64>;

    /// Runs a kernel over a grid of blocks of threads.
    ///
    /// # Errors
    /// When the device refuses it.
    fn launch(&self, kernel: &'static str, grid: [usize; 3], block: [usize; 2], words: [u64; WORDS]) -> Result<()>;

    /// Whether a convolution takes images as `[N, H, W, C]` and weights as `[O, Kh, Kw, I]`; else channels come first in both.
    ///
    /// # Errors
    /// When the device fails.
    fn channels_last(&self, pass: Pass, d: &Dims) -> Result<bool>;

    /// One side of a convolution, of the other two, at their addresses x, w, y.
    ///
    /// # Errors
    /// When the device refuses it.
    fn convolve(&self, pass: Pass, d: &Dims, channels_last: bool, sides: [u64; 3]) -> Result<()>;

    /// A matrix product.
    ///
    /// # Errors
    /// When the device refuses it.
    fn product(&self, product: &Product, a: u64, b: u64, out: u64) -> Result<()>;
}

/// The word of a value.
pub fn value(x: f64) -> u64 {
    x.to_bits()
}

/// The words of a launch, zeros after them.
pub fn words<const N: usize>(some: [u64; N]) -> [u64; WORDS] {
    std::array::from_fn(|k| some.get(k).copied().unwrap_or(0))
}

/// Launches a kernel of one thread an element, whose first words are the number of elements and the output.
///
/// # Errors
/// When there are more elements than a kernel counts, or the device refuses it.
pub fn each<M: Machine, const N: usize>(
    m: &M,
    kernel: &'static str,
    elements: usize,
    out: u64,
    rest: [u64; N],
) -> Result<()> {
    if elements == 0 {
        return Ok(());
    }
    // Kernels count in 32 bits and step by the grid's threads, of which there are fewer than 2^30.
    if elements > 1 << 31 {
        bail!("{kernel}: {elements} elements are more than a kernel takes")
    }
    let mut all = words(rest);
    all.copy_within(..WORDS - 2, 2);
    all[..2].copy_from_slice(&[elements as u64, out]);
    m.launch(kernel, [elements.div_ceil(THREADS).min(1 << 20), 1, 1], [THREADS, 1], all)
}

/// [`each`] into fresh memory of `dims`.
///
/// # Errors
/// As for [`each`].
pub fn made<M: Machine, const N: usize>(m: &M, kernel: &'static str, dims: &[usize], rest: [u64; N]) -> MadeOn<M> {
    let elements = dims.iter().product();
    let out = m.alloc(elements)?;
    each(m, kernel, elements, m.at(&out), rest)?;
    Ok((out, Shape::from(dims)))
}

/// A pointwise kernel of operands x, a (absent: 0) and values p, q, r, into fresh memory like x.
///
/// # Errors
/// As for [`each`].
pub fn pointwise<M: Machine>(m: &M, kernel: &'static str, x: Array, a: u64, [p, q, r]: [f64; 3]) -> MadeOn<M> {
    made(m, kernel, x.dims, [x.at, a, 0, value(p), value(q), value(r)])
}

/// A kernel of one block for each of `n` results.
///
/// # Errors
/// When the device refuses it.
pub fn reduced<M: Machine, const N: usize>(m: &M, kernel: &'static str, n: usize, rest: [u64; N]) -> MadeOn<M> {
    let out = m.alloc(n)?;
    let mut all = words(rest);
    all.copy_within(..WORDS - 1, 1);
    all[0] = m.at(&out);
    m.launch(kernel, [n, 1, 1], [THREADS, 1], all)?;
    Ok((out, Shape::from(n)))
}

/// Blocks of a sum over everything.
const PARTS: usize = 256;
/// Blocks of a sum over rows, and the rows that each thread of one takes at least.
const ROW_PARTS: [usize; 2] = [128, 8];

/// Σ aᵢ·bᵢ over `n` elements: `[1]`.
///
/// # Errors
/// When the device refuses it.
pub fn dot<M: Machine>(m: &M, n: usize, a: u64, b: u64) -> MadeOn<M> {
    let parts = n.div_ceil(THREADS).clamp(1, PARTS);
    let (partial, out) = (doubles(m, parts)?, m.alloc(1)?);
    m.launch("dot_parts", [parts, 1, 1], [THREADS, 1], words([n as u64, m.at(&partial), a, b]))?;
    m.launch("sum_parts", [1, 1, 1], [THREADS, 1], words([parts as u64, m.at(&out), m.at(&partial)]))?;
    Ok((out, Shape::from(1)))
}

fn doubles<M: Machine>(m: &M, n: usize) -> Result<M::Buffer> {
    m.alloc(n * size_of::<f64>() / M::BYTES)
}

/// Partial sums over rows.
pub struct ColumnSums<M: Machine> {
    /// Parts `[group, part, 2, column]` in double.
    pub parts: M::Buffer,
    /// Parts of a group.
    pub count: usize,
    groups: usize,
    columns: usize,
}

impl<M: Machine> ColumnSums<M> {
    /// By a kernel over `x` `[groups · rows, columns]` and what else it reads.
    ///
    /// # Errors
    /// When the device refuses it.
    pub fn new<const N: usize>(
        m: &M,
        kernel: &'static str,
        [groups, rows, columns]: [usize; 3],
        x: u64,
        rest: [u64; N],
    ) -> Result<Self> {
        let count = (rows / (TILE[1] * ROW_PARTS[1])).clamp(1, ROW_PARTS[0]);
        let parts = doubles(m, groups * count * 2 * columns)?;
        let mut all = words(rest);
        all.copy_within(..WORDS - 4, 4);
        all[..4].copy_from_slice(&[rows as u64, columns as u64, m.at(&parts), x]);
        m.launch(kernel, [columns.div_ceil(TILE[0]), count, groups], TILE, all)?;
        Ok(Self { parts, count, groups, columns })
    }

    /// The first `sums` sums, `[groups, sums, columns]`.
    ///
    /// # Errors
    /// When the device refuses it.
    pub fn finish(&self, m: &M, sums: usize) -> MadeOn<M> {
        let rest = [m.at(&self.parts), self.columns as u64, self.count as u64, sums as u64];
        made(m, "column_sums", &[self.groups, sums, self.columns], rest)
    }
}
