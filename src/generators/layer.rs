//! The layers of the generators.

use crate::nn::conv::ConvSpec;
use crate::nn::init::Init;
use crate::nn::store::{Builder, Id};

/// ε of every batch normalisation.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;
/// Weight of the newest batch in the running statistics.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// Parameters and running statistics of one batch normalisation, each `[C]`.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// Scale.
    pub gamma: Id,
    /// Shift.
    pub beta: Id,
    /// Running mean, in the buffers.
    pub mean: Id,
    /// Running variance, in the buffers.
    pub variance: Id,
    /// Position among everything a forward pass keeps.
    pub slot: usize,
}

/// A layer. `slot` is its position among everything a forward pass keeps.
#[derive(Clone, Debug)]
pub enum Layer {
    /// `[N, I]` → `[N, side, side, C]`: the weight `[C·side·side, I]` is in PyTorch's order of `[C, side, side]`.
    #[allow(missing_docs)]
    Linear { weight: Id, bias: Id, side: usize, slot: usize },
    /// Batch normalisation, then ReLU.
    BatchNormRelu(BatchNorm),
    /// Convolution, weight `[O, I, K, K]`.
    #[allow(missing_docs)]
    Conv { weight: Id, bias: Id, spec: ConvSpec, slot: usize },
    /// Transposed convolution, weight `[I, O, K, K]`.
    #[allow(missing_docs)]
    ConvTranspose { weight: Id, bias: Id, spec: ConvSpec, slot: usize },
    /// Nearest ×2.
    Upsample2,
    /// Hyperbolic tangent.
    #[allow(missing_docs)]
    Tanh { slot: usize },
    /// `main(x) + shortcut(x)`.
    #[allow(missing_docs)]
    Residual { main: Vec<Layer>, shortcut: Vec<Layer> },
}

/// Declares layers and their parameters.
#[derive(Default)]
pub struct NetBuilder {
    /// Trained parameters.
    pub params: Builder,
    /// Running statistics.
    pub buffers: Builder,
    /// Slots given out so far.
    pub slots: usize,
}

impl NetBuilder {
    fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    fn pair(&mut self, name: &str, shape: &[usize], outputs: usize, init: Init) -> [Id; 2] {
        [
            self.params.add(format!("{name}.weight"), shape, init),
            self.params.add(format!("{name}.bias"), &[outputs], Init::Constant(0.0)),
        ]
    }

    /// A linear layer onto `side`×`side` pixels of `o` channels.
    pub fn linear(&mut self, name: &str, [i, o]: [usize; 2], side: usize, init: Init) -> Layer {
        let outputs = o * side * side;
        let [weight, bias] = self.pair(name, &[outputs, i], outputs, init);
        Layer::Linear { weight, bias, side, slot: self.slot() }
    }

    /// Batch normalisation of `c` channels, then ReLU.
    pub fn batch_norm_relu(&mut self, name: &str, c: usize) -> Layer {
        let gamma = self.params.add(format!("{name}.weight"), &[c], Init::Constant(1.0));
        let beta = self.params.add(format!("{name}.bias"), &[c], Init::Constant(0.0));
        let mean = self.buffers.add(format!("{name}.running_mean"), &[c], Init::Constant(0.0));
        let variance = self.buffers.add(format!("{name}.running_var"), &[c], Init::Constant(1.0));
        Layer::BatchNormRelu(BatchNorm { gamma, beta, mean, variance, slot: self.slot() })
    }

    /// A stride-1 convolution that keeps the size.
    pub fn conv(&mut self, name: &str, [i, o]: [usize; 2], kernel: usize, init: Init) -> Layer {
        let [weight, bias] = self.pair(name, &[o, i, kernel, kernel], o, init);
        Layer::Conv { weight, bias, spec: ConvSpec::new(1, kernel / 2), slot: self.slot() }
    }

    /// A transposed convolution with padding 1.
    pub fn conv_transpose(
        &mut self,
        name: &str,
        [i, o]: [usize; 2],
        kernel: usize,
        stride: usize,
        init: Init,
    ) -> Layer {
        let [weight, bias] = self.pair(name, &[i, o, kernel, kernel], o, init);
        Layer::ConvTranspose { weight, bias, spec: ConvSpec::new(stride, 1), slot: self.slot() }
    }

    /// Hyperbolic tangent.
    pub fn tanh(&mut self) -> Layer {
        Layer::Tanh { slot: self.slot() }
    }
}
