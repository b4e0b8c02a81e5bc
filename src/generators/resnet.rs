//! The residual generators of the released code: blocks of batch norm, ReLU, nearest ×2 and 3×3 convolutions, tanh.
//! Initial weights by He et al.

use super::LATENT;
use super::layer::{Layer, NetBuilder};
use crate::critic::scaled;
use crate::nn::init::Init;

/// Side of the first feature map, then its channels and those after each block, at full width.
pub(super) struct Blocks {
    bottom: usize,
    channels: &'static [usize],
}

/// 32×32 images.
pub(super) const RESNET32: Blocks = Blocks { bottom: 4, channels: &[256, 256, 256, 256] };
/// 48×48 images.
pub(super) const RESNET48: Blocks = Blocks { bottom: 6, channels: &[512, 256, 128, 64] };
/// 128×128 images.
pub(super) const RESNET128: Blocks = Blocks { bottom: 4, channels: &[1024, 1024, 512, 256, 128, 64] };
/// 256×256 images.
pub(super) const RESNET256: Blocks = Blocks { bottom: 4, channels: &[1024, 1024, 512, 512, 256, 128, 64] };

const INIT: Init = Init::KaimingNormal;

pub(super) fn layers(blocks: &Blocks, width: f64, b: &mut NetBuilder) -> Vec<Layer> {
    let channels: Vec<usize> = blocks.channels.iter().map(|&c| scaled(c, width)).collect();
    let mut layers = vec![b.linear("linear", [LATENT, channels[0]], blocks.bottom, INIT)];
    for (n, pair) in channels.windows(2).enumerate() {
        layers.push(block(&format!("blocks.{n}"), [pair[0], pair[1]], b));
    }
    let last = channels[channels.len() - 1];
    layers.push(b.batch_norm_relu("output.0", last));
    layers.push(b.conv("output.2", [last, 3], 3, INIT));
    layers.push(b.tanh());
    layers
}

fn block(name: &str, [i, o]: [usize; 2], b: &mut NetBuilder) -> Layer {
    // The released code upsamples before the 1×1 convolution, which is the same and costs four times as much.
    let shortcut = vec![b.conv(&format!("{name}.shortcut.1"), [i, o], 1, INIT), Layer::Upsample2];
    let main = vec![
        b.batch_norm_relu(&format!("{name}.residual.0"), i),
        b.upsample_conv(&format!("{name}.residual.3"), [i, o], INIT),
        b.batch_norm_relu(&format!("{name}.residual.4"), o),
        b.conv(&format!("{name}.residual.6"), [o, o], 3, INIT),
    ];
    Layer::Residual { main, shortcut }
}
