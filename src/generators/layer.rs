//! The layers of the generators.

use crate::nn::conv::ConvSpec;
use crate::nn::fold::Fold;
use crate::nn::init::Init;
use crate::nn::order::Order;
use crate::nn::spectral::Spectral;
use crate::nn::store::{Builder, Id};
use crate::nn::weight::Stored;

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
    /// Bias, where there is one.
    pub bias: Option<Id>,
    /// Position of its weight among those of the generator.
    pub index: usize,
    /// Position among everything a forward pass keeps.
    pub slot: usize,
}

/// A layer. `slot` is its position among everything a forward pass keeps.
#[derive(Clone, Debug)]
pub enum Layer {
    /// The embedding `[E, classes]` of the image's class beside its latent: `[N, I]` → `[N, I + E]`.
    #[allow(missing_docs)]
    JoinClass { embedding: Id },
    /// `[N, I]` → `[N, side, side, C]`: the weight `[C·side·side, I]` is in PyTorch's order of `[C, side, side]`.
    #[allow(missing_docs)]
    Linear { affine: Affine, side: usize },
    /// Batch normalisation, then ReLU.
    BatchNormRelu(BatchNorm),
    /// Convolution, weight `[O, I/G, K, K]`.
    #[allow(missing_docs)]
    Conv { affine: Affine, spec: ConvSpec },
    /// Transposed convolution, weight `[I, O/G, K, K]`.
    #[allow(missing_docs)]
    ConvTranspose { affine: Affine, spec: ConvSpec },
    /// Nearest ×2, then a 3×3 convolution that keeps the size, as one layer (see [`crate::nn::fold`]); weight `[O, I, 3, 3]`.
    #[allow(missing_docs)]
    UpsampleConv { affine: Affine },
    /// `max(x, αx)`, after a convolution and before one.
    #[allow(missing_docs)]
    Leaky { alpha: f64, slot: usize },
    /// Nearest ×2.
    Upsample2,
    /// The binomial filter that doubles rows and columns ([`crate::nn::fir`]).
    FirUp2,
    /// Hyperbolic tangent.
    #[allow(missing_docs)]
    Tanh { slot: usize },
    /// `main(x) + shortcut(x)`.
    #[allow(missing_docs)]
    Residual { main: Vec<Layer>, shortcut: Vec<Layer> },
}

impl Layer {
    /// Whether it begins with a batch normalisation.
    pub fn normalises(&self) -> bool {
        match self {
            Self::BatchNormRelu(_) => true,
            Self::Residual { main, .. } => main.first().is_some_and(Self::normalises),
            _ => false,
        }
    }
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
    /// Weights declared so far.
    pub weights: Vec<Stored>,
    /// Whether every affine layer is spectrally normalised.
    pub spectral: bool,
}

impl NetBuilder {
    fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    /// A layer of a weight that is stored as `stored`, with the orders of its elements, rows and columns and, where it has one, its
    /// bias: name, elements and their order.
    fn affine(
        &mut self,
        name: &str,
        (stored, shape): (&[usize], [usize; 4]),
        [weight, rows, columns]: [Order; 3],
        bias: Option<(&str, usize, Order)>,
        init: Init,
    ) -> Affine {
        let suffix = if self.spectral { "weight_orig" } else { "weight" };
        let id = self.params.add_ordered(format!("{name}.{suffix}"), stored, init, weight);
        let bias = bias.map(|(name, n, order)| self.params.add_ordered(name, &[n], Init::Constant(0.0), order));
        let declare = || Spectral::declare(&mut self.buffers, name, stored, SPECTRAL_EPSILON, [rows, columns]);
        let spectral = self.spectral.then(declare);
        self.weights.push(Stored { id, shape, spectral, fold: None });
        Affine { bias, index: self.weights.len() - 1, slot: self.slot() }
    }

    fn convolution(&mut self, name: &str, shape: [usize; 4], bias: Option<(&str, usize)>, init: Init) -> Affine {
        let [o, i, kh, kw] = shape;
        let orders = [Order::kernel(shape), Order::plain(o), Order::kernel([1, i, kh, kw])];
        self.affine(name, (&shape, shape), orders, bias.map(|(name, n)| (name, n, Order::plain(n))), init)
    }

    /// A linear layer onto `side`×`side` pixels of `o` channels; its rows are stored as PyTorch flattens `[C, side, side]`, and kept
    /// on a device with the channels last.
    pub fn linear(&mut self, name: &str, [i, o]: [usize; 2], side: usize, init: Init) -> Layer {
        let (pixels, outputs) = (side * side, o * side * side);
        let rows = Order::channels(o, pixels, 1);
        let orders = [rows.with_inner(i), rows, Order::plain(i)];
        let (weight, bias) = ((&[outputs, i][..], [outputs, i, 1, 1]), format!("{name}.bias"));
        Layer::Linear { affine: self.affine(name, weight, orders, Some((&bias, outputs, rows)), init), side }
    }

    /// A linear layer onto one pixel, without a bias.
    pub fn product(&mut self, name: &str, [i, o]: [usize; 2], init: Init) -> Layer {
        let orders = [Order::plain(o * i), Order::plain(o), Order::plain(i)];
        Layer::Linear { affine: self.affine(name, (&[o, i], [o, i, 1, 1]), orders, None, init), side: 1 }
    }

    /// A class embedding `[e, classes]` beside the latent.
    pub fn join_class(&mut self, name: &str, [e, classes]: [usize; 2], init: Init) -> Layer {
        Layer::JoinClass { embedding: self.params.add(format!("{name}.weight"), &[e, classes], init) }
    }

    /// Each of `c` channels of one pixel times the `side`×`side` pixels of its own that are stored as `name`.
    pub fn basis(&mut self, name: &str, c: usize, side: usize, init: Init) -> Layer {
        let id = self.params.add(name, &[c, side, side], init);
        self.weights.push(Stored { id, shape: [c, 1, side, side], spectral: None, fold: None });
        let affine = Affine { bias: None, index: self.weights.len() - 1, slot: self.slot() };
        Layer::ConvTranspose { affine, spec: ConvSpec::new(1, 0).grouped(c) }
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
        self.conv_grouped(name, [i, o, 1], kernel, init, Some(&format!("{name}.bias")))
    }

    /// The same of channels in so many groups. `bias` is the full name of one, where it has one.
    pub fn conv_grouped(
        &mut self,
        name: &str,
        [i, o, groups]: [usize; 3],
        kernel: usize,
        init: Init,
        bias: Option<&str>,
    ) -> Layer {
        let shape = [o, i / groups, kernel, kernel];
        let affine = self.convolution(name, shape, bias.map(|name| (name, o)), init);
        Layer::Conv { affine, spec: ConvSpec::new(1, kernel / 2).grouped(groups) }
    }

    /// `max(x, αx)`.
    pub fn leaky(&mut self, alpha: f64) -> Layer {
        Layer::Leaky { alpha, slot: self.slot() }
    }

    /// Nearest ×2, then a 3×3 convolution that keeps the size.
    pub fn upsample_conv(&mut self, name: &str, [i, o]: [usize; 2], init: Init) -> Layer {
        let bias = format!("{name}.bias");
        let affine = self.convolution(name, [o, i, 3, 3], Some((&bias, o)), init);
        self.weights[affine.index].fold = Some(Fold::Upsample);
        Layer::UpsampleConv { affine }
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
        let bias = format!("{name}.bias");
        let affine = self.convolution(name, [i, o, kernel, kernel], Some((&bias, o)), init);
        Layer::ConvTranspose { affine, spec: ConvSpec::new(stride, 1) }
    }

    /// Hyperbolic tangent.
    pub fn tanh(&mut self) -> Layer {
        Layer::Tanh { slot: self.slot() }
    }
}
