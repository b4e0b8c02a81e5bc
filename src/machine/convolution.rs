//! Geometry of a convolution. Legend: N images, I input and O output channels, Kh×Kw taps.

use candle_core::{Result, bail};

/// Geometry of a convolution beside the extents of its operands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConvSpec {
    /// Stride in both axes.
    pub stride: usize,
    /// Zero padding `[rows, columns]` on each side.
    pub padding: [usize; 2],
}

impl ConvSpec {
    /// The same padding in both axes.
    pub const fn new(stride: usize, padding: usize) -> Self {
        Self { stride, padding: [padding; 2] }
    }
}

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

/// Every extent of one convolution.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dims {
    /// Images.
    pub n: usize,
    /// Input channels.
    pub i: usize,
    /// Output channels.
    pub o: usize,
    /// Input rows, columns.
    pub input: [usize; 2],
    /// Output rows, columns.
    pub output: [usize; 2],
    /// Kernel rows, columns.
    pub kernel: [usize; 2],
    /// Stride and padding.
    pub spec: ConvSpec,
}

impl Dims {
    /// Of `n` images of `input` rows × columns and a weight `[O, I, Kh, Kw]`.
    ///
    /// # Errors
    /// When the kernel is larger than the padded images.
    pub fn new(name: &str, n: usize, input: [usize; 2], weight: [usize; 4], spec: ConvSpec) -> Result<Self> {
        let [o, i, kh, kw] = weight;
        let kernel = [kh, kw];
        let mut output = [0; 2];
        for axis in 0..2 {
            let padded = input[axis] + 2 * spec.padding[axis];
            if padded < kernel[axis] {
                bail!(
                    "{name}: kernel {kernel:?} is larger than the padded input {input:?} (padding {:?})",
                    spec.padding
                )
            }
            output[axis] = (padded - kernel[axis]) / spec.stride + 1;
        }
        Ok(Self { n, i, o, input, output, kernel, spec })
    }

    /// `[N, H, W, I]`.
    pub fn input_dims(&self) -> [usize; 4] {
        [self.n, self.input[0], self.input[1], self.i]
    }

    /// `[N, H', W', O]`.
    pub fn output_dims(&self) -> [usize; 4] {
        [self.n, self.output[0], self.output[1], self.o]
    }

    /// `[O, I, Kh, Kw]`.
    pub fn weight_dims(&self) -> [usize; 4] {
        [self.o, self.i, self.kernel[0], self.kernel[1]]
    }

    /// Multiplications and additions of one pass: the same for all three.
    pub fn flops(&self) -> u64 {
        let taps: usize = self.kernel.iter().product();
        2 * (self.n * self.output[0] * self.output[1] * self.o * self.i * taps) as u64
    }
}
