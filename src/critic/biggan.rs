//! The BigGAN critic of the released code for 32×32 images: residual blocks, ReLU, global sum h, and the class projection
//! f = linear(h) + ⟨embedding(y), h⟩ (Miyato and Koyama 2018). No spectral normalisation of its own. Initial weights by
//! Glorot and Bengio.

use super::layer::{Layer, NetBuilder};
use super::resnet::trunk;
use crate::nn::init::Init;

const BLOCKS: [(usize, bool); 4] = [(256, true), (256, true), (256, false), (256, false)];
const INIT: Init = Init::XavierUniform;

pub(super) fn layers(classes: usize, width: f64, mut b: NetBuilder) -> (Vec<Layer>, NetBuilder) {
    let (mut layers, channels) = trunk("blocks", &BLOCKS, width, INIT, &mut b);
    layers.push(b.global_pool(false));
    layers.push(Layer::Residual {
        main: vec![b.linear("linear", [channels, 1], 1, INIT)],
        shortcut: vec![b.embedding("embedding", [channels, classes], INIT), Layer::SelectClass],
    });
    (layers, b)
}
