//! Convolution on a device: images with channels last and weights as [`Kernel`](crate::nn::kernel::Kernel) keeps them, or copies with
//! channels first where the machine takes them so, and one launch for the bias and what follows. A convolution that is a matrix
//! product (a kernel as large as the image, or of one pixel) is done as one.

use candle_core::{DType, Result, Tensor, bail};

use super::Then;
use crate::machine::call::{Array, Memory, Product, Word};
use crate::machine::convolution::{Dims, Pass};
use crate::machine::tape::Tape;
use crate::nn::activation::add;
use crate::nn::kernel::Next;
use crate::words;

/// Rows of images and length of a row, both of input and of weight, where the convolution is their product.
fn as_matrix(d: &Dims) -> Option<[usize; 2]> {
    let area = |[rows, columns]: [usize; 2]| rows * columns;
    if d.spec.padding != [0, 0] || d.spec.groups != 1 {
        None
    } else if d.kernel == d.input {
        Some([d.n, area(d.kernel) * d.i])
    } else if d.kernel == [1, 1] && d.spec.stride == 1 {
        Some([d.n * area(d.output), d.i])
    } else {
        None
    }
}

/// One side of a convolution about to be computed.
struct Side<'a> {
    tape: &'a Tape,
    d: &'a Dims,
    pass: Pass,
    matrix: Option<[usize; 2]>,
    channels_last: bool,
    /// Of the operands, and of what is made of them.
    element: DType,
    /// Copies of operands, alive until the call is made.
    copies: Vec<Tensor>,
}

impl<'a> Side<'a> {
    fn new(tape: &'a Tape, pass: Pass, d: &'a Dims, operands: [Array; 2]) -> Result<Self> {
        let element = operands[0].dtype;
        if operands[1].dtype != element {
            bail!("a convolution of {:?} and {:?}", operands[0].dtype, operands[1].dtype)
        }
        let matrix = as_matrix(d);
        // A product's rows are pixels with their channels last.
        let channels_last = matrix.is_some() || tape.channels_last(pass, d, element)?;
        Ok(Self { tape, d, pass, matrix, channels_last, element, copies: Vec::new() })
    }

    /// `[outer, rows, columns]` of an operand with rows and columns exchanged, where channels come first.
    fn first(&mut self, x: Array, [outer, rows, columns]: [usize; 3]) -> Result<Memory> {
        if self.channels_last || rows == 1 || columns == 1 {
            return Ok(x.memory());
        }
        let copy = self.tape.transposed(x, [outer, rows, columns, 1])?;
        let memory = self.tape.memory(&copy)?;
        self.copies.push(copy);
        Ok(memory)
    }

    fn images(&mut self, x: Array, size: [usize; 2], channels: usize) -> Result<Memory> {
        self.first(x, [self.d.n, size[0] * size[1], channels])
    }

    fn weight(&mut self, w: Array) -> Result<Memory> {
        self.first(w, [self.d.o, self.d.kernel[0] * self.d.kernel[1], self.d.of_group()[0]])
    }

    /// Computes it, all three sides in their layouts.
    fn run(&self, sides: [Memory; 3], add: bool) -> Result<()> {
        let Some([rows, len]) = self.matrix else {
            return self.tape.convolve(self.pass, self.d, self.channels_last, (sides, self.element), add);
        };
        let (o, [x, w, y]) = (self.d.o, sides);
        let (size, transposed, sides) = match self.pass {
            Pass::Forward => ([rows, o, len], [false, true], [x, w, y]),
            Pass::InputGrad => ([rows, len, o], [false, false], [y, w, x]),
            Pass::WeightGrad => ([o, len, rows], [true, false], [y, x, w]),
        };
        self.tape.product(Product { size, transposed }, (sides, self.element), add)
    }

    /// Memory for what is computed, `[outer, rows, columns]` with the channels in rows or columns, as the machine writes it.
    fn result(&self, dims: &[usize]) -> Result<Tensor> {
        self.tape.alloc_of(dims, self.element)
    }

    /// What the machine wrote as `[outer, rows, columns]` where channels come first, as ours: `[outer, columns, rows]`.
    fn ours(&self, out: Tensor, [outer, rows, columns]: [usize; 3], dims: &[usize]) -> Result<Tensor> {
        if self.channels_last || rows == 1 || columns == 1 {
            return Ok(out);
        }
        self.tape.transposed(self.tape.array(&out)?, [outer, rows, columns, 1])?.reshape(dims)
    }
}

pub(super) fn forward(
    tape: &Tape,
    d: &Dims,
    [x, w]: [Array; 2],
    bias: Option<Array>,
    then: (&Then, Next),
) -> Result<Tensor> {
    let mut side = Side::new(tape, Pass::Forward, d, [x, w])?;
    let (input, weight) = (side.images(x, d.input, d.i)?, side.weight(w)?);
    let dims = d.output_dims();
    let out = side.result(&dims)?;
    side.run([input, weight, tape.memory(&out)?], false)?;
    let out = side.ours(out, [d.n, d.o, d.output[0] * d.output[1]], &dims)?;
    finish(tape, "conv2d", out, bias, then)
}

pub(super) fn input_grad(
    tape: &Tape,
    d: &Dims,
    [dy, w]: [Array; 2],
    bias: Option<Array>,
    then: (&Then, Next),
) -> Result<Tensor> {
    let mut side = Side::new(tape, Pass::InputGrad, d, [dy, w])?;
    let (delta, weight) = (side.images(dy, d.output, d.o)?, side.weight(w)?);
    let dims = d.input_dims();
    let out = side.result(&dims)?;
    side.run([tape.memory(&out)?, weight, delta], false)?;
    let out = side.ours(out, [d.n, d.i, d.input[0] * d.input[1]], &dims)?;
    finish(tape, "conv2d_input_grad", out, bias, then)
}

/// The gradient into memory in the order of a kernel's elements, or added to what is there.
pub(super) fn weight_grad(tape: &Tape, d: &Dims, [x, dy]: [Array; 2], into: Array, add: bool) -> Result<()> {
    let mut side = Side::new(tape, Pass::WeightGrad, d, [x, dy])?;
    let (input, delta) = (side.images(x, d.input, d.i)?, side.images(dy, d.output, d.o)?);
    if side.channels_last && side.element == into.dtype {
        return side.run([input, into.memory(), delta], add);
    }
    let (dims, taps) = (d.weight_dims(), d.kernel[0] * d.kernel[1]);
    let out = side.result(&dims)?;
    side.run([input, tape.memory(&out)?, delta], false)?;
    let out = side.ours(out, [d.o, d.of_group()[0], taps], &dims)?;
    let out = tape.array(&out)?;
    match (side.element, add) {
        (DType::BF16, _) => tape.each("of_bf16", into.len(), words![into, out, add]),
        (_, true) => tape.each("add_assign", into.len(), words![into, into, out]),
        (_, false) => tape.each("copy", into.len(), words![into, into, out]),
    }
}

/// Adds the bias of a convolution and does what follows it: in place, unless the result is of another type than the convolution's.
/// Nothing is noted: sums over all rows are launches of their own.
fn finish(tape: &Tape, name: &str, out: Tensor, bias: Option<Array>, (then, next): (&Then, Next)) -> Result<Tensor> {
    if let Then::Sum { plus: Some(plus), .. } = *then {
        return add(&finish(tape, name, out, bias, (&Then::Nothing, next))?, plus);
    }
    if let Then::Gelu(gelu) = *then {
        let x = finish(tape, name, out, bias, (&Then::Nothing, Next::Any))?;
        let array = tape.array(&x)?;
        tape.each(gelu.kernel(), array.len(), words![array, array, Word::Nothing, Word::Nothing, 0.0, 0.0, 0.0])?;
        return Ok(x);
    }
    let (n, h, w, channels) = out.dims4()?;
    let image = h * w * channels;
    let read = |t: &Tensor, len: usize| -> Result<Memory> {
        if t.elem_count() != len {
            bail!("{name}: {:?} has not the {len} elements of the output", t.dims())
        }
        tape.memory(t)
    };
    let is_half = |t: &Tensor| t.dtype() == DType::BF16;
    let (half, element) = (is_half(&out), next.element(tape.element));
    let bias = bias.map_or(Memory::NONE, |b| b.memory());
    let (bias, c, y, y_is_half, alpha) = match *then {
        Then::Nothing | Then::Sum { .. } | Then::GradSums { .. } if bias == Memory::NONE && out.dtype() == element => {
            return Ok(out);
        }
        Then::Nothing | Then::Sum { .. } | Then::GradSums { .. } => (bias, Memory::NONE, Memory::NONE, false, 1.0),
        Then::Gelu(_) => bail!("{name}: not finished"),
        Then::Leaky(alpha) => (bias, Memory::NONE, Memory::NONE, false, alpha),
        Then::Slope { y, alpha } => (bias, Memory::NONE, read(y, n * image)?, is_half(y), alpha),
        Then::ScaledBiasSlope { .. } if bias != Memory::NONE => bail!("{name}: a bias, and one that is scaled"),
        Then::ScaledBiasSlope { c, bias, y, alpha } => {
            (read(bias, channels)?, read(c, n)?, read(y, n * image)?, is_half(y), alpha)
        }
    };
    let made = if out.dtype() == element { out.clone() } else { tape.alloc_of(&[n, h, w, channels], element)? };
    let (from, into) = (tape.array(&out)?, tape.array(&made)?);
    let absent = |memory: Memory| if memory == Memory::NONE { Word::Nothing } else { memory.into() };
    let to_halves = is_half(&made);
    let words =
        words![into, from, half, absent(bias), channels, absent(c), image, absent(y), alpha, y_is_half, to_halves];
    tape.each("finish", n * image, words)?;
    Ok(made)
}
