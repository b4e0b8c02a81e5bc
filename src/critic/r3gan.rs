//! The critic of R3GAN (Huang et al. 2024, arXiv 2501.05441): at each resolution residual blocks of a 1×1, a grouped 3×3 and a 1×1
//! convolution with biased LeakyReLU 0.2 between them, then the resampling by [`crate::nn::fir`]; at last a basis over the pixels that are
//! left, and the class projection f = ⟨W·h, embedding(y)⟩. No normalisation layer. Initial weights by the released code: deviations of
//! gain/√fan-in, residual branches that begin at zero.

use super::layer::{Layer, NetBuilder};
use super::scaled;
use crate::nn::init::Init;

/// The resolutions of one family of networks.
pub(crate) struct Stages {
    /// Side of the smallest feature map.
    pub(crate) bottom: usize,
    /// Channels at full width, from the smallest feature map to the images.
    channels: &'static [usize],
}

/// The preset for CIFAR-10.
pub(crate) const R3GAN32: Stages = Stages { bottom: 4, channels: &[768; 4] };
/// The same for 48×48 images.
pub(crate) const R3GAN48: Stages = Stages { bottom: 6, channels: &[768; 4] };
/// The preset for FFHQ at 64×64.
pub(crate) const R3GAN64: Stages = Stages { bottom: 4, channels: &[768, 768, 768, 768, 384] };

/// Residual blocks of a resolution.
pub(crate) const BLOCKS: usize = 2;
/// Channels inside of a block over those outside.
const EXPANSION: usize = 2;
/// Channels outside of a block for each group of its 3×3 convolution.
const OF_GROUP: usize = 8;
/// Slope of the activations' negative half.
pub(crate) const ALPHA: f64 = 0.2;

/// Channels at one resolution, and groups.
#[derive(Clone, Copy)]
pub(crate) struct Stage {
    pub(crate) channels: usize,
    groups: usize,
}

/// A convolution of a residual block: its names, channels and groups, kernel and initial values. The first two have a bias, which is
/// stored as the activation's, and are followed by it.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) bias: Option<String>,
    pub(crate) channels: [usize; 3],
    pub(crate) kernel: usize,
    pub(crate) init: Init,
}

impl Stages {
    /// From the smallest feature map to the images. There are fewer groups in narrower networks, each as wide, but never fewer than two.
    pub(crate) fn at(&self, width: f64) -> Vec<Stage> {
        let stage = |&full: &usize| match scaled(full / OF_GROUP, width) {
            1 => Stage { channels: scaled(full, width), groups: 2 },
            groups => Stage { channels: OF_GROUP * groups, groups },
        };
        self.channels.iter().map(stage).collect()
    }

    /// The block `name` of a resolution.
    pub(crate) fn block(&self, name: &str, Stage { channels, groups }: Stage) -> [Part; 3] {
        let inside = EXPANSION * channels;
        // Of LeakyReLU, and of as many residual sums as there are blocks of three layers each.
        let gain = (2.0 / (1.0 + ALPHA * ALPHA)).sqrt() / ((BLOCKS * self.channels.len()) as f64).powf(0.25);
        let part = |n: usize, channels, kernel, init| Part {
            name: format!("{name}.LinearLayer{n}.Layer"),
            bias: (n < 3).then(|| format!("{name}.NonLinearity{n}.Bias")),
            channels,
            kernel,
            init,
        };
        [
            part(1, [channels, inside, 1], 1, Init::FanIn(gain)),
            part(2, [inside, inside, groups], 3, Init::FanIn(gain)),
            part(3, [inside, channels, 1], 1, Init::Constant(0.0)),
        ]
    }
}

/// With classes or without.
pub(super) fn layers(
    stages: &Stages,
    classes: Option<usize>,
    width: f64,
    mut b: NetBuilder,
) -> (Vec<Layer>, NetBuilder) {
    let all = stages.at(width);
    let bare =
        |b: &mut NetBuilder, name: &str, [i, o]: [usize; 2]| b.conv_grouped(name, [i, o, 1], 1, Init::FanIn(1.0), None);
    let mut layers = vec![bare(&mut b, "ExtractionLayer.Layer", [3, all[all.len() - 1].channels])];
    for (n, (&stage, at)) in all.iter().rev().zip((0..all.len()).rev()).enumerate() {
        let name = format!("MainLayers.{n}.Layers");
        for block in 0..BLOCKS {
            let mut main = Vec::new();
            for part in stages.block(&format!("{name}.{block}"), stage) {
                main.push(b.conv_grouped(&part.name, part.channels, part.kernel, part.init, part.bias.as_deref()));
                if part.bias.is_some() {
                    main.push(b.leaky(ALPHA));
                }
            }
            layers.push(Layer::Residual { main, shortcut: Vec::new() });
        }
        let (name, c) = (format!("{name}.{BLOCKS}"), stage.channels);
        if let Some(below) = at.checked_sub(1).map(|at| all[at]) {
            layers.push(Layer::FirDown2);
            if below.channels != c {
                layers.push(bare(&mut b, &format!("{name}.LinearLayer.Layer"), [c, below.channels]));
            }
        } else {
            layers.push(b.basis(&format!("{name}.Basis"), c, stages.bottom, Init::FanIn(1.0)));
            let outputs = if classes.is_some() { c } else { 1 };
            layers.push(b.product(&format!("{name}.LinearLayer"), [c, outputs], Init::FanIn(1.0)));
            if let Some(classes) = classes {
                let init = Init::FanIn(1.0 / (c as f64).sqrt());
                layers.push(b.embedding_of_ones("EmbeddingLayer", [c, classes], init));
                layers.push(Layer::SelectClass);
            }
        }
    }
    (layers, b)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::critic::Critic;
    use crate::rng::Stream;

    #[test]
    fn narrower_networks_have_fewer_groups_as_wide() {
        let at = |stages: &Stages, width| stages.at(width).iter().map(|s| [s.channels, s.groups]).collect::<Vec<_>>();
        assert_eq!(at(&R3GAN32, 1.0), [[768, 96]; 4]);
        assert_eq!(at(&R3GAN64, 0.25), [[192, 24], [192, 24], [192, 24], [192, 24], [96, 12]]);
        assert_eq!(at(&R3GAN48, 0.02), [[16, 2]; 4]);
        assert_eq!(at(&R3GAN32, 0.005), [[4, 2]; 4]);
    }

    #[test]
    fn initial_weights_have_the_released_deviations() {
        let deviation = |spectral: bool, name: &str| {
            let stream = &mut Stream::new(0, "test", 0);
            let critic = Critic::new("r3gan32", 0.1, 10, spectral, stream, DType::F64, &Device::Cpu).unwrap();
            let values = critic.params.named().unwrap()[name].flatten_all().unwrap().to_vec1::<f64>().unwrap();
            (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
        };
        // 80 channels; √(2/1.04)·8^(-1/4) = 0.8246.
        let block = "MainLayers.2.Layers.1.LinearLayer";
        for (name, want) in [
            ("ExtractionLayer.Layer.weight".to_owned(), 1.0 / 3f64.sqrt()),
            (format!("{block}1.Layer.weight"), 0.8246 / 80f64.sqrt()),
            (format!("{block}2.Layer.weight"), 0.8246 / 144f64.sqrt()),
            (format!("{block}3.Layer.weight"), 0.0),
            ("MainLayers.3.Layers.2.Basis.weight".to_owned(), 0.25),
            ("MainLayers.3.Layers.2.LinearLayer.weight".to_owned(), 1.0 / 80f64.sqrt()),
            ("EmbeddingLayer.weight".to_owned(), 1.0 / 800f64.sqrt()),
        ] {
            let got = deviation(false, &name);
            assert!((got - want).abs() <= 0.1 * want, "{name}: {got}, not {want}");
        }
        assert!(deviation(true, &format!("{block}3.Layer.weight_orig")) > 0.0);
    }
}
