//! Geometry of a convolution. Legend: N images, I input and O output channels in G groups, Kh×Kw taps.

use candle_core::{Result, bail};

/// Geometry of a convolution beside the extents of its operands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConvSpec {
    /// Stride in both axes.
    pub stride: usize,
    /// Zero padding `[rows, columns]` on each side.
    pub padding: [usize; 2],
    /// Groups of consecutive channels, each convolved on its own; as many as channels is a depthwise convolution.
    pub groups: usize,
}

impl ConvSpec {
    /// The same padding in both axes.
    pub const fn new(stride: usize, padding: usize) -> Self {
        Self { stride, padding: [padding; 2], groups: 1 }
    }

    /// The same of channels in groups.
    pub const fn grouped(self, groups: usize) -> Self {
        Self { groups, ..self }
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
    /// Of `n` images of `input` rows × columns and a weight `[O, I/G, Kh, Kw]`.
    ///
    /// # Errors
    /// When the kernel is larger than the padded images, or the output channels do not divide by the groups.
    pub fn new(name: &str, n: usize, input: [usize; 2], weight: [usize; 4], spec: ConvSpec) -> Result<Self> {
        let [o, i, kh, kw] = weight;
        let (kernel, groups) = ([kh, kw], spec.groups);
        if groups == 0 || o % groups != 0 {
            bail!("{name}: {o} output channels do not divide by {groups} groups")
        }
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
        Ok(Self { n, i: i * groups, o, input, output, kernel, spec })
    }

    /// Input and output channels of a group.
    pub fn of_group(&self) -> [usize; 2] {
        [self.i, self.o].map(|channels| channels / self.spec.groups)
    }

    /// `[N, H, W, I]`.
    pub fn input_dims(&self) -> [usize; 4] {
        [self.n, self.input[0], self.input[1], self.i]
    }

    /// `[N, H', W', O]`.
    pub fn output_dims(&self) -> [usize; 4] {
        [self.n, self.output[0], self.output[1], self.o]
    }

    /// `[O, I/G, Kh, Kw]`.
    pub fn weight_dims(&self) -> [usize; 4] {
        [self.o, self.of_group()[0], self.kernel[0], self.kernel[1]]
    }

    /// Multiplications and additions of one pass: the same for all three.
    pub fn flops(&self) -> u64 {
        let taps: usize = self.kernel.iter().product();
        2 * (self.n * self.output[0] * self.output[1] * self.o * self.of_group()[0] * taps) as u64
    }
}
