//! The closed vocabulary of critic layers. Everything here is affine or piecewise linear, which is what makes the four
//! passes exact: a layer with curvature (tanh, softmax attention, batch statistics) has no place in this enum.

use candle_core::{DType, Device, Result, bail};

use super::Critic;
use crate::nn::conv::{ConvSpec, conv2d_flops};
use crate::nn::fold::Fold;
use crate::nn::init::Init;
use crate::nn::order::Order;
use crate::nn::spectral::Spectral;
use crate::nn::store::{Builder, Id};
use crate::nn::weight::{Stored, spectra};
use crate::rng::Stream;

/// Guard of spectral normalisation, as in the released code's critics.
const EPSILON: f64 = 1e-12;

/// A convolution. A linear layer is one whose kernel covers the image.
#[derive(Clone, Debug)]
pub struct Affine {
    /// Weight; where it is folded into one of 4×4 taps, the average over 2×2 pixels that follows is part of it.
    pub weight: Stored,
    /// Bias `[O]`, where there is one.
    pub bias: Option<Id>,
    /// Stride and padding.
    pub spec: ConvSpec,
    /// Position among the affine layers.
    pub index: usize,
    /// Position among everything a forward pass keeps.
    pub slot: usize,
}

impl Affine {
    /// Shape of the convolution's weight.
    fn shape(&self) -> [usize; 4] {
        self.weight.fold.map_or(self.weight.shape, |fold| fold.shape(self.weight.shape))
    }
}

/// A layer.
#[derive(Clone, Debug)]
pub enum Layer {
    /// Convolution or linear layer.
    Conv(Affine),
    /// `max(x, αx)`; ReLU is α = 0.
    Leaky {
        /// Slope of the negative half.
        alpha: f64,
        /// Position among everything a forward pass keeps.
        slot: usize,
    },
    /// Average over 2×2 pixels.
    AvgPool2,
    /// The binomial filter that halves rows and columns ([`crate::nn::fir`]).
    FirDown2,
    /// Average or sum over all pixels.
    GlobalPool {
        /// Average, not sum.
        mean: bool,
        /// Position among everything a forward pass keeps.
        slot: usize,
    },
    /// Of one output per class the one of the image's class: linear, given the class.
    SelectClass,
    /// `main(x) + shortcut(x)`.
    Residual {
        /// The residual branch.
        main: Vec<Layer>,
        /// The shortcut branch; empty is the identity.
        shortcut: Vec<Layer>,
    },
}

/// Layers and how much a forward pass keeps.
#[derive(Clone, Debug)]
pub struct Net {
    pub(super) layers: Vec<Layer>,
    pub(super) slots: usize,
    /// Slot of the affine layer that ends the network, where one does.
    pub(super) head: Option<usize>,
}

impl Net {
    /// The affine layers in the order of their indices.
    pub(super) fn affines(&self) -> impl Iterator<Item = &Affine> {
        fn collect<'a>(layers: &'a [Layer], out: &mut Vec<&'a Affine>) {
            for layer in layers {
                match layer {
                    Layer::Conv(a) => out.push(a),
                    Layer::Residual { main, shortcut } => {
                        collect(main, out);
                        collect(shortcut, out);
                    }
                    _ => {}
                }
            }
        }
        let mut out = Vec::new();
        collect(&self.layers, &mut out);
        out.sort_by_key(|a| a.index);
        out.into_iter()
    }
}

/// Name of a layer's bias, where it is its own.
fn bias(name: &str) -> String {
    format!("{name}.bias")
}

/// Declares layers and their parameters.
pub struct NetBuilder {
    params: Builder,
    buffers: Builder,
    spectral: bool,
    affines: usize,
    slots: usize,
}

impl NetBuilder {
    /// `spectral`: every affine layer is spectrally normalised.
    pub fn new(spectral: bool) -> Self {
        Self { params: Builder::default(), buffers: Builder::default(), spectral, affines: 0, slots: 0 }
    }

    /// Trained parameters declared so far.
    pub fn parameters(&self) -> usize {
        self.params.len()
    }

    fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    /// A convolution `name` of square `kernel`, same-size padding for stride 1 and halving for stride 2.
    pub fn conv(&mut self, name: &str, [i, o]: [usize; 2], kernel: usize, stride: usize, init: Init) -> Layer {
        let shape = [o, i, kernel, kernel];
        self.affine(name, &shape, shape, ConvSpec::new(stride, (kernel - 1) / 2), init, Some(&bias(name)))
    }

    /// A 3×3 convolution `name` that keeps the size, then the average over 2×2 pixels.
    pub fn conv_pooled(&mut self, name: &str, [i, o]: [usize; 2], init: Init) -> Layer {
        let mut layer = self.affine(name, &[o, i, 3, 3], [o, i, 3, 3], ConvSpec::new(2, 1), init, Some(&bias(name)));
        if let Layer::Conv(affine) = &mut layer {
            affine.weight.fold = Some(Fold::Pool);
        }
        layer
    }

    /// A linear layer `name` over all `side`×`side` pixels of `i` channels; its weight is stored as `[o, i·side·side]`,
    /// in PyTorch's order of a flattened `[C, H, W]`.
    pub fn linear(&mut self, name: &str, [i, o]: [usize; 2], side: usize, init: Init) -> Layer {
        self.affine(name, &[o, i * side * side], [o, i, side, side], ConvSpec::new(1, 0), init, Some(&bias(name)))
    }

    /// A convolution `name` of square `kernel` that keeps the size, of channels in so many groups. `bias` is the full name of one, where
    /// it has one.
    pub fn conv_grouped(
        &mut self,
        name: &str,
        [i, o, groups]: [usize; 3],
        kernel: usize,
        init: Init,
        bias: Option<&str>,
    ) -> Layer {
        let shape = [o, i / groups, kernel, kernel];
        self.affine(name, &shape, shape, ConvSpec::new(1, (kernel - 1) / 2).grouped(groups), init, bias)
    }

    /// Of each of `c` channels the sum over all `side`×`side` pixels, weighted by `name`; no bias.
    pub fn basis(&mut self, name: &str, c: usize, side: usize, init: Init) -> Layer {
        let shape = [c, 1, side, side];
        self.affine(name, &shape, shape, ConvSpec::new(1, 0).grouped(c), init, None)
    }

    /// A linear layer `name` over images of one pixel, without a bias.
    pub fn product(&mut self, name: &str, [i, o]: [usize; 2], init: Init) -> Layer {
        self.affine(name, &[o, i], [o, i, 1, 1], ConvSpec::new(1, 0), init, None)
    }

    /// A class embedding `name` that is stored as that of ones among zeros, `[i, classes]`; otherwise as [`NetBuilder::embedding`].
    pub fn embedding_of_ones(&mut self, name: &str, [i, classes]: [usize; 2], init: Init) -> Layer {
        let mut layer = self.affine(name, &[i, classes], [i, classes, 1, 1], ConvSpec::new(1, 0), init, None);
        if let Layer::Conv(affine) = &mut layer {
            affine.weight.fold = Some(Fold::Transpose);
        }
        layer
    }

    /// A class embedding `name`, `[classes, i]`: its dot product with the `i` channels, for each class.
    pub fn embedding(&mut self, name: &str, [i, classes]: [usize; 2], init: Init) -> Layer {
        self.product(name, [i, classes], init)
    }

    fn affine(
        &mut self,
        name: &str,
        stored: &[usize],
        shape: [usize; 4],
        spec: ConvSpec,
        init: Init,
        bias: Option<&str>,
    ) -> Layer {
        let suffix = if self.spectral { "weight_orig" } else { "weight" };
        // A weight of zeros has no direction, and of all others the spectral norm takes the length.
        let init = if self.spectral && init == Init::Constant(0.0) { Init::FanIn(1.0) } else { init };
        let id = self.params.add_ordered(format!("{name}.{suffix}"), stored, init, Order::kernel(shape));
        let bias = bias.map(|name| self.params.add(name, &shape[..1], Init::Constant(0.0)));
        let [o, i, kh, kw] = shape;
        let orders = [Order::plain(o), Order::kernel([1, i, kh, kw])];
        let spectral = self.spectral.then(|| Spectral::declare(&mut self.buffers, name, stored, EPSILON, orders));
        let weight = Stored { id, shape, spectral, fold: None };
        let slot = self.slot();
        self.affines += 1;
        Layer::Conv(Affine { weight, bias, spec, index: self.affines - 1, slot })
    }

    /// `max(x, αx)`.
    pub fn leaky(&mut self, alpha: f64) -> Layer {
        Layer::Leaky { alpha, slot: self.slot() }
    }

    /// Average or sum over all pixels.
    pub fn global_pool(&mut self, mean: bool) -> Layer {
        Layer::GlobalPool { mean, slot: self.slot() }
    }

    /// Draws the parameters.
    ///
    /// # Errors
    /// When the device refuses the buffers.
    pub fn build(self, layers: Vec<Layer>, stream: &mut Stream, dtype: DType, device: &Device) -> Result<Critic> {
        let head = match layers.last() {
            Some(Layer::Conv(affine)) => Some(affine.slot),
            _ => None,
        };
        let net = Net { layers, slots: self.slots, head };
        let params = self.params.build(stream, dtype, device)?;
        let buffers = self.buffers.build(stream, dtype, device)?;
        let spectra = spectra(net.affines().map(|a| &a.weight), &params, &buffers)?;
        Ok(Critic { net, params, buffers, spectra })
    }
}

/// A small network with the vocabulary of the critics and several outputs: the feature classifier's shape.
pub fn classifier(channels: [usize; 3], classes: usize, stream: &mut Stream, device: &Device) -> Result<Critic> {
    let mut b = NetBuilder::new(false);
    let init = Init::KaimingNormal;
    let [c0, c1, c2] = channels;
    let layers = vec![
        b.conv("main.0", [3, c0], 4, 2, init),
        b.leaky(0.1),
        b.conv("main.2", [c0, c1], 4, 2, init),
        b.leaky(0.1),
        b.conv("main.4", [c1, c2], 3, 1, init),
        b.leaky(0.1),
        Layer::AvgPool2,
        b.conv("main.7", [c2, c2], 3, 1, init),
        b.leaky(0.1),
        b.global_pool(true),
        b.linear("linear", [c2, classes], 1, Init::Normal(0.05)),
    ];
    b.build(layers, stream, DType::F32, device)
}

pub(super) fn flops(layers: &[Layer], mut images: [usize; 4]) -> Result<(u64, [usize; 4])> {
    let mut total = 0;
    for layer in layers {
        match layer {
            Layer::Conv(a) => {
                let shape = a.shape();
                total += conv2d_flops(&images, shape, a.spec)?;
                for axis in 0..2 {
                    images[1 + axis] =
                        (images[1 + axis] + 2 * a.spec.padding[axis] - shape[2 + axis]) / a.spec.stride + 1;
                }
                images[3] = shape[0];
            }
            Layer::Leaky { .. } => {}
            Layer::SelectClass => images[3] = 1,
            Layer::AvgPool2 | Layer::FirDown2 => {
                images[1] /= 2;
                images[2] /= 2;
            }
            Layer::GlobalPool { .. } => {
                images[1] = 1;
                images[2] = 1;
            }
            Layer::Residual { main, shortcut } => {
                let (m, out) = flops(main, images)?;
                let (s, side) = flops(shortcut, images)?;
                if out != side {
                    bail!("residual branches end in shapes {out:?} and {side:?}")
                }
                total += m + s;
                images = out;
            }
        }
    }
    Ok((total, images))
}
