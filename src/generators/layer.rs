//! The layers of the generators.

use crate::nn::conv::ConvSpec;
use crate::nn::init::Init;
use crate::nn::spectral::Spectral;
use crate::nn::store::{Builder, Id};

/// ε of every batch normalisation.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;
/// Weight of the newest batch in the running statistics.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// Guard of spectral normalisation, as in the released code's generators.
const SPECTRAL_EPSILON: f64 = 1e-6;

/// Parameters and running statistics of one batch normalisation, each `[C]`.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// Scale; `[classes, C]` of its difference to one in a conditional layer.
    pub gamma: Id,
    /// Shift; `[classes, C]` in a conditional layer.
    pub beta: Id,
    /// Whether scale and shift are those of the image's class.
    pub conditional: bool,
    /// Running mean, in the buffers.
    pub mean: Id,
    /// Running variance, in the buffers.
    pub variance: Id,
    /// Position among everything a forward pass keeps.
    pub slot: usize,
}

/// Weight and bias of an affine layer.
#[derive(Clone, Debug)]
pub struct Affine {
    /// Weight; under spectral normalisation the one before it is divided by σ.
    pub weight: Id,
    /// Bias.
    pub bias: Id,
    /// Spectral normalisation.
    pub spectral: Option<Spectral>,
    /// Position among everything a forward pass keeps.
    pub slot: usize,
}

/// A layer. `slot` is its position among everything a forward pass keeps.
#[derive(Clone, Debug)]
pub enum Layer {
    /// `[N, I]` → `[N, side, side, C]`: the weight `[C·side·side, I]` is in PyTorch's order of `[C, side, side]`.
    #[allow(missing_docs)]
    Linear { affine: Affine, side: usize },
    /// Batch normalisation, then ReLU.
    BatchNormRelu(BatchNorm),
    /// Convolution, weight `[O, I, K, K]`.
    #[allow(missing_docs)]
    Conv { affine: Affine, spec: ConvSpec },
    /// Transposed convolution, weight `[I, O, K, K]`.
    #[allow(missing_docs)]
    ConvTranspose { affine: Affine, spec: ConvSpec },
    /// Nearest ×2, then a 3×3 convolution that keeps the size, as one layer (see [`crate::nn::fold`]); weight `[O, I, 3, 3]`.
    #[allow(missing_docs)]
    UpsampleConv { affine: Affine },
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
    /// Whether every affine layer is spectrally normalised.
    pub spectral: bool,
}

impl NetBuilder {
    fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    fn affine(&mut self, name: &str, shape: &[usize], outputs: usize, init: Init) -> Affine {
        let suffix = if self.spectral { "weight_orig" } else { "weight" };
        Affine {
            weight: self.params.add(format!("{name}.{suffix}"), shape, init),
            bias: self.params.add(format!("{name}.bias"), &[outputs], Init::Constant(0.0)),
            spectral: self.spectral.then(|| Spectral::declare(&mut self.buffers, name, shape, SPECTRAL_EPSILON)),
            slot: self.slot(),
        }
    }

    /// A linear layer onto `side`×`side` pixels of `o` channels.
    pub fn linear(&mut self, name: &str, [i, o]: [usize; 2], side: usize, init: Init) -> Layer {
        let outputs = o * side * side;
        Layer::Linear { affine: self.affine(name, &[outputs, i], outputs, init), side }
    }

    /// Batch normalisation of `c` channels, then ReLU.
    pub fn batch_norm_relu(&mut self, name: &str, c: usize) -> Layer {
        let gamma = self.params.add(format!("{name}.weight"), &[c], Init::Constant(1.0));
        let beta = self.params.add(format!("{name}.bias"), &[c], Init::Constant(0.0));
        let mean = self.buffers.add(format!("{name}.running_mean"), &[c], Init::Constant(0.0));
        let variance = self.buffers.add(format!("{name}.running_var"), &[c], Init::Constant(1.0));
        Layer::BatchNormRelu(BatchNorm { gamma, beta, conditional: false, mean, variance, slot: self.slot() })
    }

    /// Batch normalisation of `c` channels with scale and shift of the image's class, then ReLU.
    pub fn conditional_batch_norm_relu(&mut self, name: &str, c: usize, classes: usize, init: Init) -> Layer {
        let gamma = self.params.add(format!("{name}.gain.weight"), &[classes, c], init);
        let beta = self.params.add(format!("{name}.bias.weight"), &[classes, c], init);
        let mean = self.buffers.add(format!("{name}.batchnorm2d.running_mean"), &[c], Init::Constant(0.0));
        let variance = self.buffers.add(format!("{name}.batchnorm2d.running_var"), &[c], Init::Constant(1.0));
        Layer::BatchNormRelu(BatchNorm { gamma, beta, conditional: true, mean, variance, slot: self.slot() })
    }

    /// A stride-1 convolution that keeps the size.
    pub fn conv(&mut self, name: &str, [i, o]: [usize; 2], kernel: usize, init: Init) -> Layer {
        let affine = self.affine(name, &[o, i, kernel, kernel], o, init);
        Layer::Conv { affine, spec: ConvSpec::new(1, kernel / 2) }
    }

    /// Nearest ×2, then a 3×3 convolution that keeps the size.
    pub fn upsample_conv(&mut self, name: &str, [i, o]: [usize; 2], init: Init) -> Layer {
        Layer::UpsampleConv { affine: self.affine(name, &[o, i, 3, 3], o, init) }
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
        let affine = self.affine(name, &[i, o, kernel, kernel], o, init);
        Layer::ConvTranspose { affine, spec: ConvSpec::new(stride, 1) }
    }

    /// Hyperbolic tangent.
    pub fn tanh(&mut self) -> Layer {
        Layer::Tanh { slot: self.slot() }
    }
}
