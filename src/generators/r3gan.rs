//! The generator of R3GAN (Huang et al. 2024, arXiv 2501.05441): a basis of 4×4 pixels weighted by a product with the latent, beside
//! which the class is embedded, then the critic's residual blocks at each resolution and [`crate::nn::fir`] between them. No
//! normalisation, no tanh. Initial weights by the released code.

use super::layer::{Layer, NetBuilder};
use crate::critic::r3gan::{ALPHA, BLOCKS, Stages};
use crate::nn::init::Init;

/// Width of a latent, and of a class embedding.
pub(super) const LATENT: usize = 64;

/// With classes or without.
pub(super) fn layers(stages: &Stages, classes: Option<usize>, width: f64, b: &mut NetBuilder) -> Vec<Layer> {
    let bare =
        |b: &mut NetBuilder, name: &str, [i, o]: [usize; 2]| b.conv_grouped(name, [i, o, 1], 1, Init::FanIn(1.0), None);
    let mut layers = Vec::new();
    let mut channels = LATENT;
    if let Some(classes) = classes {
        layers.push(b.join_class("EmbeddingLayer", [LATENT, classes], Init::FanIn(1.0)));
        channels += LATENT;
    }
    for (n, stage) in stages.at(width).into_iter().enumerate() {
        let (name, c) = (format!("MainLayers.{n}.Layers"), stage.channels);
        if n == 0 {
            layers.push(b.product(&format!("{name}.0.LinearLayer"), [channels, c], Init::FanIn(1.0)));
            layers.push(b.basis(&format!("{name}.0.Basis"), c, stages.bottom, Init::Normal(1.0)));
        } else {
            if channels != c {
                layers.push(bare(b, &format!("{name}.0.LinearLayer.Layer"), [channels, c]));
            }
            layers.push(Layer::FirUp2);
        }
        channels = c;
        for block in 1..=BLOCKS {
            let mut main = Vec::new();
            for part in stages.block(&format!("{name}.{block}"), stage) {
                main.push(b.conv_grouped(&part.name, part.channels, part.kernel, part.init, part.bias.as_deref()));
                if part.bias.is_some() {
                    main.push(b.leaky(ALPHA));
                }
            }
            layers.push(Layer::Residual { main, shortcut: Vec::new() });
        }
    }
    layers.push(bare(b, "AggregationLayer.Layer", [channels, 3]));
    layers
}
