//! The residual critics of the released code: pre-activation blocks with average pooling, ReLU, global average, linear
//! head. Initial weights by He et al.

use super::layer::{Layer, NetBuilder};
use super::scaled;
use crate::nn::init::Init;

/// (output channels at full width, halves the resolution) of each block.
pub(super) type Blocks = [(usize, bool)];

/// 32×32 images.
pub(super) const RESNET32: [(usize, bool); 4] = [(128, true), (128, true), (128, false), (128, false)];
/// 48×48 images.
pub(super) const RESNET48: [(usize, bool); 4] = [(64, true), (128, true), (256, true), (512, true)];
/// 128×128 images.
pub(super) const RESNET128: [(usize, bool); 6] =
    [(64, true), (128, true), (256, true), (512, true), (1024, true), (1024, false)];
/// 256×256 images.
pub(super) const RESNET256: [(usize, bool); 7] =
    [(64, true), (128, true), (256, true), (512, true), (512, true), (1024, true), (1024, false)];

const INIT: Init = Init::KaimingNormal;

pub(super) fn layers(blocks: &Blocks, width: f64, mut b: NetBuilder) -> (Vec<Layer>, NetBuilder) {
    let (mut layers, channels) = trunk("model", blocks, width, INIT, &mut b);
    layers.push(b.global_pool(true));
    layers.push(b.linear("linear", [channels, 1], 1, INIT));
    (layers, b)
}

/// The blocks `name.0`, `name.1`, … and the ReLU after them, and their output channels.
pub(super) fn trunk(name: &str, blocks: &Blocks, width: f64, init: Init, b: &mut NetBuilder) -> (Vec<Layer>, usize) {
    let mut layers = Vec::new();
    let mut channels = 3;
    for (n, &(out, down)) in blocks.iter().enumerate() {
        let out = scaled(out, width);
        let name = format!("{name}.{n}");
        layers.push(if n == 0 { first(&name, out, init, b) } else { block(&name, [channels, out], down, init, b) });
        channels = out;
    }
    layers.push(b.leaky(0.0));
    (layers, channels)
}

fn first(name: &str, out: usize, init: Init, b: &mut NetBuilder) -> Layer {
    let shortcut = vec![Layer::AvgPool2, b.conv(&format!("{name}.shortcut.1"), [3, out], 1, 1, init)];
    let main = vec![
        b.conv(&format!("{name}.residual.0"), [3, out], 3, 1, init),
        b.leaky(0.0),
        b.conv_pooled(&format!("{name}.residual.2"), [out, out], init),
    ];
    Layer::Residual { main, shortcut }
}

fn block(name: &str, [i, o]: [usize; 2], down: bool, init: Init, b: &mut NetBuilder) -> Layer {
    let mut shortcut = Vec::new();
    if down {
        // The released code pools after the 1×1 convolution, which is the same and costs four times as much.
        shortcut.push(Layer::AvgPool2);
    }
    if i != o || down {
        shortcut.push(b.conv(&format!("{name}.shortcut.0"), [i, o], 1, 1, init));
    }
    let second = format!("{name}.residual.3");
    let main = vec![
        b.leaky(0.0),
        b.conv(&format!("{name}.residual.1"), [i, o], 3, 1, init),
        b.leaky(0.0),
        if down { b.conv_pooled(&second, [o, o], init) } else { b.conv(&second, [o, o], 3, 1, init) },
    ];
    Layer::Residual { main, shortcut }
}
