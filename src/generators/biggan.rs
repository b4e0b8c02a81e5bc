//! The BigGAN generator of the released code for 32×32 images: residual blocks whose batch normalisation takes scale and
//! shift from the image's class, every affine layer spectrally normalised. Initial weights by Glorot and Bengio.

use super::LATENT;
use super::layer::{Layer, NetBuilder};
use crate::critic::scaled;
use crate::nn::init::Init;

const BOTTOM: usize = 4;
const BLOCKS: usize = 3;
const INIT: Init = Init::XavierUniform;

pub(super) fn layers(classes: usize, width: f64, b: &mut NetBuilder) -> Vec<Layer> {
    let c = scaled(256, width);
    b.spectral = true;
    let mut layers = vec![b.linear("linear", [LATENT, c], BOTTOM, INIT)];
    for n in 0..BLOCKS {
        let name = format!("blocks.{n}");
        let main = vec![
            b.conditional_batch_norm_relu(&format!("{name}.bn1"), c, classes, INIT),
            b.upsample_conv(&format!("{name}.residual1.2"), [c, c], INIT),
            b.conditional_batch_norm_relu(&format!("{name}.bn2"), c, classes, INIT),
            b.conv(&format!("{name}.residual2.1"), [c, c], 3, INIT),
        ];
        let shortcut = vec![b.conv(&format!("{name}.shortcut.1"), [c, c], 1, INIT), Layer::Upsample2];
        layers.push(Layer::Residual { main, shortcut });
    }
    layers.push(b.batch_norm_relu("output_layer.0", c));
    layers.push(b.conv("output_layer.2", [c, 3], 3, INIT));
    layers.push(b.tanh());
    layers
}
