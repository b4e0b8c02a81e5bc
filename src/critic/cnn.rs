//! The DCGAN critic of the released code: seven convolutions, LeakyReLU 0.1, a linear head, no normalisation layer.
//! Initial weights N(0, 0.02).

use super::layer::{Layer, NetBuilder};
use super::scaled;
use crate::nn::init::Init;

/// (input, output channels at full width, kernel, stride)
const CONVOLUTIONS: [(usize, usize, usize, usize); 7] = [
    (3, 64, 3, 1),
    (64, 128, 4, 2),
    (128, 128, 3, 1),
    (128, 256, 4, 2),
    (256, 256, 3, 1),
    (256, 512, 4, 2),
    (512, 512, 3, 1),
];

/// `bottom`: side of the last feature map (image side / 8).
pub(super) fn layers(bottom: usize, width: f64, mut b: NetBuilder) -> (Vec<Layer>, NetBuilder) {
    let init = Init::Normal(0.02);
    let channels = |c| if c == 3 { 3 } else { scaled(c, width) };
    let mut layers = Vec::new();
    for (n, (i, o, kernel, stride)) in CONVOLUTIONS.into_iter().enumerate() {
        layers.push(b.conv(&format!("main.{}", 2 * n), [channels(i), channels(o)], kernel, stride, init));
        layers.push(b.leaky(0.1));
    }
    layers.push(b.linear("linear", [channels(512), 1], bottom, init));
    (layers, b)
}
