//! Convolution on a device: images and weights in the layout that the machine's convolutions take, and one launch for the bias
//! and what follows. A convolution that is a matrix product (a kernel as large as the image, or of one pixel) is done as one.

use candle_core::{Result, Shape, Tensor, bail};

use super::{Dims, Then};
use crate::nn::device::{Array, Machine, MadeOn, Pass, Product, each, made, value};

/// Rows of images and length of a row, both of input and of weight, where the convolution is their product.
fn as_matrix(d: &Dims) -> Option<[usize; 2]> {
    let area = |[rows, columns]: [usize; 2]| rows * columns;
    if d.spec.padding != [0, 0] {
        None
    } else if d.kernel == d.input {
        Some([d.n, area(d.kernel) * d.i])
    } else if d.kernel == [1, 1] && d.spec.stride == 1 {
        Some([d.n * area(d.output), d.i])
    } else {
        None
    }
}

/// Memory that was made on the way, or what was there before.
enum Laid<B> {
    Made(B),
    There(u64),
}

impl<B> Laid<B> {
    fn at<M: Machine<Buffer = B>>(&self, m: &M) -> u64 {
        match self {
            Self::Made(buffer) => m.at(buffer),
            Self::There(at) => *at,
        }
    }
}

/// `[outer, rows, columns]` to `[outer, columns, rows]`, where it is `needed` and changes anything.
fn exchanged<M: Machine>(m: &M, at: u64, [outer, rows, columns]: [usize; 3], needed: bool) -> Result<Laid<M::Buffer>> {
    if !needed || rows == 1 || columns == 1 {
        return Ok(Laid::There(at));
    }
    let (out, _) = made(m, "transpose", &[outer, columns, rows], [at, rows as u64, columns as u64])?;
    Ok(Laid::Made(out))
}

/// Sides of a convolution in the layouts that a machine takes.
struct Layouts<'a> {
    d: &'a Dims,
    pass: Pass,
    matrix: Option<[usize; 2]>,
    channels_last: bool,
}

impl<'a> Layouts<'a> {
    fn new<M: Machine>(m: &M, pass: Pass, d: &'a Dims) -> Result<Self> {
        let matrix = as_matrix(d);
        // A product's rows are pixels with their channels last.
        let channels_last = matrix.is_some() || m.channels_last(pass, d)?;
        Ok(Self { d, pass, matrix, channels_last })
    }

    /// `[images, pixels, channels]` for the convolution.
    fn images<M: Machine>(&self, m: &M, at: u64, size: [usize; 2], channels: usize) -> Result<Laid<M::Buffer>> {
        exchanged(m, at, [self.d.n, size[0] * size[1], channels], !self.channels_last)
    }

    /// The weight `[O, I, taps]` for the convolution.
    fn weight<M: Machine>(&self, m: &M, at: u64) -> Result<Laid<M::Buffer>> {
        exchanged(m, at, [self.d.o, self.d.i, self.d.kernel[0] * self.d.kernel[1]], self.channels_last)
    }

    /// Computes one side, all three in their layouts.
    fn run<M: Machine>(&self, m: &M, [x, w, y]: [u64; 3]) -> Result<()> {
        let Some([rows, len]) = self.matrix else {
            return m.convolve(self.pass, self.d, self.channels_last, [x, w, y]);
        };
        let o = self.d.o;
        match self.pass {
            Pass::Forward => m.product(&Product { size: [rows, o, len], transposed: [false, true] }, x, w, y),
            Pass::InputGrad => m.product(&Product { size: [rows, len, o], transposed: [false, false] }, y, w, x),
            Pass::WeightGrad => m.product(&Product { size: [o, len, rows], transposed: [true, false] }, y, x, w),
        }
    }

    /// What the machine made as images `[images, pixels, channels]`, with channels first where it takes them so, as ours.
    fn ours<M: Machine>(&self, m: &M, out: M::Buffer, size: [usize; 2], channels: usize) -> Result<M::Buffer> {
        match exchanged(m, m.at(&out), [self.d.n, channels, size[0] * size[1]], !self.channels_last)? {
            Laid::Made(exchanged) => Ok(exchanged),
            Laid::There(_) => Ok(out),
        }
    }
}

pub(super) fn forward<M: Machine>(m: &M, d: &Dims, [x, w]: [Array; 2], bias: Option<Array>, then: &Then) -> MadeOn<M> {
    let layouts = Layouts::new(m, Pass::Forward, d)?;
    let dims = d.output_dims();
    let (input, weight) = (layouts.images(m, x.at, d.input, d.i)?, layouts.weight(m, w.at)?);
    let out = m.alloc(dims.iter().product())?;
    layouts.run(m, [input.at(m), weight.at(m), m.at(&out)])?;
    let out = layouts.ours(m, out, d.output, d.o)?;
    finish(m, "conv2d", &out, dims, bias, then)?;
    Ok((out, Shape::from(dims.to_vec())))
}

pub(super) fn input_grad<M: Machine>(
    m: &M,
    d: &Dims,
    [dy, w]: [Array; 2],
    bias: Option<Array>,
    then: &Then,
) -> MadeOn<M> {
    let layouts = Layouts::new(m, Pass::InputGrad, d)?;
    let dims = d.input_dims();
    let (delta, weight) = (layouts.images(m, dy.at, d.output, d.o)?, layouts.weight(m, w.at)?);
    let out = m.alloc(dims.iter().product())?;
    layouts.run(m, [m.at(&out), weight.at(m), delta.at(m)])?;
    let out = layouts.ours(m, out, d.input, d.i)?;
    finish(m, "conv2d_input_grad", &out, dims, bias, then)?;
    Ok((out, Shape::from(dims.to_vec())))
}

pub(super) fn weight_grad<M: Machine>(m: &M, d: &Dims, [x, dy]: [Array; 2]) -> MadeOn<M> {
    let layouts = Layouts::new(m, Pass::WeightGrad, d)?;
    let dims = d.weight_dims();
    let (input, delta) = (layouts.images(m, x.at, d.input, d.i)?, layouts.images(m, dy.at, d.output, d.o)?);
    let out = m.alloc(dims.iter().product())?;
    layouts.run(m, [input.at(m), m.at(&out), delta.at(m)])?;
    let taps = d.kernel[0] * d.kernel[1];
    let out = match exchanged(m, m.at(&out), [d.o, taps, d.i], layouts.channels_last)? {
        Laid::Made(exchanged) => exchanged,
        Laid::There(_) => out,
    };
    Ok((out, Shape::from(dims.to_vec())))
}

/// Adds the bias of a convolution and does what follows it, in place.
fn finish<M: Machine>(
    m: &M,
    name: &str,
    out: &M::Buffer,
    dims: [usize; 4],
    bias: Option<Array>,
    then: &Then,
) -> Result<()> {
    let [n, h, w, channels] = dims;
    let image = h * w * channels;
    let read = |t: &Tensor, len: usize| -> Result<u64> {
        if t.elem_count() != len {
            bail!("{name}: {:?} has not the {len} elements of the output", t.dims())
        }
        m.address(name, t)
    };
    let bias = bias.map_or(0, |b| b.at);
    let (bias, c, y, alpha) = match *then {
        Then::Nothing if bias == 0 => return Ok(()),
        Then::Nothing => (bias, 0, 0, 1.0),
        Then::Leaky(alpha) => (bias, 0, 0, alpha),
        Then::Slope { y, alpha } => (bias, 0, read(y, n * image)?, alpha),
        Then::ScaledBiasSlope { .. } if bias != 0 => bail!("{name}: a bias, and one that is scaled"),
        Then::ScaledBiasSlope { c, bias, y, alpha } => (read(bias, channels)?, read(c, n)?, read(y, n * image)?, alpha),
    };
    let at = m.at(out);
    each(m, "finish", n * image, at, [at, bias, channels as u64, c, image as u64, y, value(alpha)])
}
