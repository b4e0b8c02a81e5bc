//! The DCGAN generator of the released code: a linear layer onto bottom×bottom pixels, then batch norm, ReLU and a
//! transposed convolution four times, tanh. Initial weights N(0, 0.02).

use super::LATENT;
use super::layer::{Layer, NetBuilder};
use crate::critic::scaled;
use crate::nn::init::Init;

pub(super) fn layers(bottom: usize, width: f64, b: &mut NetBuilder) -> Vec<Layer> {
    let init = Init::Normal(0.02);
    let [c0, c1, c2, c3] = [512, 256, 128, 64].map(|c| scaled(c, width));
    let mut layers = vec![b.linear("linear", [LATENT, c0], bottom, init)];
    for (n, (channels, kernel, stride)) in
        [([c0, c1], 4, 2), ([c1, c2], 4, 2), ([c2, c3], 4, 2), ([c3, 3], 3, 1)].into_iter().enumerate()
    {
        layers.push(b.batch_norm_relu(&format!("main.{}", 3 * n), channels[0]));
        layers.push(b.conv_transpose(&format!("main.{}", 3 * n + 2), channels, kernel, stride, init));
    }
    layers.push(b.tanh());
    layers
}
