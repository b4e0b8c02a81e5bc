//! The forward pass of a generator as a graph of ONNX's operators. Legend: N images, C channels, channels first.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, bail};

use super::layer::{Affine, BATCH_NORM_EPSILON, BatchNorm, Layer};
use super::passes::transposed_spec;
use super::{Generator, Mode};
use crate::machine::convolution::ConvSpec;
use crate::nn::store::Id;
use crate::nn::weight::Weight;
use crate::onnx::{Attribute, Element, Extent, Graph};

/// Name of the latents `[N, latent]` as an input.
pub const LATENTS: &str = "z";
/// Name of the classes `[N]`, counted from 0, as an input of a conditional generator.
pub const CLASSES: &str = "y";
/// Name of the images `[N, 3, side, side]` as the output.
pub const IMAGES: &str = "images";

/// A value by name, and its channels.
type Flow = (String, usize);

struct Builder<'a> {
    of: &'a Generator,
    mode: Mode,
    weights: Vec<Weight>,
    params: BTreeMap<String, Tensor>,
    buffers: BTreeMap<String, Tensor>,
    graph: Graph,
}

impl Generator {
    /// The forward pass as a graph: of latents [`LATENTS`] and, of a conditional generator, classes [`CLASSES`], the [`IMAGES`]. Batch
    /// normalisation takes the statistics that `mode` says, of the batch by operators in the graph; weights are over their spectral norms and
    /// folded, as the pass itself has them.
    ///
    /// # Errors
    /// In the mode of training, which moves statistics; or when the device fails.
    pub fn graph(&self, mode: Mode) -> Result<Graph> {
        if mode == Mode::Train {
            bail!("a graph moves no statistics: it has those of the batch or the running ones");
        }
        let mut builder = Builder {
            of: self,
            mode,
            weights: self.weights(mode)?,
            params: self.params.named()?,
            buffers: self.buffers.named()?,
            graph: Graph::default(),
        };
        builder.graph.input(LATENTS, Element::Float, &[Extent::Batch, Extent::Of(self.latent)]);
        if self.classes.is_some() {
            builder.graph.input(CLASSES, Element::Int, &[Extent::Batch]);
        }
        let (images, channels) = builder.layers(&self.layers, (LATENTS.to_owned(), self.latent))?;
        let shape = [Extent::Batch, Extent::Of(channels), Extent::Of(self.side), Extent::Of(self.side)];
        builder.graph.output(&images, IMAGES, Element::Float, &shape);
        Ok(builder.graph)
    }
}

impl<'a> Builder<'a> {
    fn layers(&mut self, layers: &[Layer], mut x: Flow) -> Result<Flow> {
        for layer in layers {
            x = self.layer(layer, x)?;
        }
        Ok(x)
    }

    fn layer(&mut self, layer: &Layer, (x, c): Flow) -> Result<Flow> {
        Ok(match layer {
            Layer::JoinClass { embedding } => {
                let name = self.of.params.name(*embedding);
                // A row for each class.
                let table = self.params[name].t()?.contiguous()?;
                let embedded = self.of_class(name, &table)?;
                (self.graph.node("Concat", &[&x, &embedded], &[("axis", Attribute::Int(1))]), c + table.dim(1)?)
            }
            Layer::Linear { affine, side } => self.linear(affine, *side, &x)?,
            Layer::BatchNormRelu(norm) => {
                let y = self.normalised(norm, &x)?;
                (self.graph.node("Relu", &[&y], &[]), c)
            }
            Layer::Conv { affine, spec } => self.convolution("Conv", affine, *spec, &x)?,
            Layer::ConvTranspose { affine, .. } | Layer::UpsampleConv { affine } => {
                self.convolution("ConvTranspose", affine, transposed_spec(layer), &x)?
            }
            Layer::Leaky { alpha, .. } => {
                (self.graph.node("LeakyRelu", &[&x], &[("alpha", Attribute::Float(*alpha as f32))]), c)
            }
            Layer::Upsample2 => {
                let scales = Tensor::new(&[1f32, 1.0, 2.0, 2.0], &Device::Cpu)?;
                let scales = self.graph.constant("double", &scales)?;
                let nearest = [
                    ("mode", Attribute::Text("nearest")),
                    ("coordinate_transformation_mode", Attribute::Text("asymmetric")),
                    ("nearest_mode", Attribute::Text("floor")),
                ];
                (self.graph.node("Resize", &[&x, "", &scales], &nearest), c)
            }
            Layer::FirUp2 => (self.binomial(&x, c)?, c),
            Layer::Tanh { .. } => (self.graph.node("Tanh", &[&x], &[]), c),
            Layer::Residual { main, shortcut } => {
                let (side, _) = self.layers(shortcut, (x.clone(), c))?;
                let (y, c) = self.layers(main, (x, c))?;
                (self.graph.node("Add", &[&y, &side], &[]), c)
            }
        })
    }

    /// An operator of a value, a weight and, where the layer has one, its bias `[O]`.
    fn affine(
        &mut self,
        operator: &str,
        affine: &Affine,
        [x, weight]: [&str; 2],
        attributes: &[(&str, Attribute)],
    ) -> Result<String> {
        let Some(bias) = affine.bias else { return Ok(self.graph.node(operator, &[x, weight], attributes)) };
        let name = self.of.params.name(bias);
        let bias = self.graph.constant(name, &self.params[name])?;
        Ok(self.graph.node(operator, &[x, weight, &bias], attributes))
    }

    /// Name and elements `[O, I/G, Kh, Kw]` of an affine layer's weight, of a transposed convolution `[I, O/G, Kh, Kw]`.
    fn weight(&self, affine: &Affine) -> Result<(&'a str, Tensor)> {
        let name = self.of.params.name(self.of.weights[affine.index].id);
        Ok((name, self.weights[affine.index].kernel.tensor()?))
    }

    fn convolution(&mut self, operator: &str, affine: &Affine, spec: ConvSpec, x: &str) -> Result<Flow> {
        let (name, weight) = self.weight(affine)?;
        let (stride, [rows, columns]) = (spec.stride as i64, spec.padding.map(|p| p as i64));
        let attributes = [
            ("strides", Attribute::Ints(&[stride, stride])),
            ("pads", Attribute::Ints(&[rows, columns, rows, columns])),
            ("group", Attribute::Int(spec.groups as i64)),
        ];
        let channels = if operator == "Conv" { weight.dim(0)? } else { weight.dim(1)? * spec.groups };
        let weight = self.graph.constant(name, &weight)?;
        Ok((self.affine(operator, affine, [x, &weight], &attributes)?, channels))
    }

    /// Outputs `[N, C·side·side]`, in that order, as images.
    fn linear(&mut self, affine: &Affine, side: usize, x: &str) -> Result<Flow> {
        let (name, weight) = self.weight(affine)?;
        let channels = weight.dim(0)? / (side * side);
        let weight = self.graph.constant(name, &weight.flatten_from(1)?)?;
        let y = self.affine("Gemm", affine, [x, &weight], &[("transB", Attribute::Int(1))])?;
        let shape = Tensor::new(&[-1i64, channels as i64, side as i64, side as i64], &Device::Cpu)?;
        let shape = self.graph.constant(&format!("{name}.pixels"), &shape)?;
        Ok((self.graph.node("Reshape", &[&y, &shape], &[]), channels))
    }

    /// The rows of a table `[classes, …]` for the classes of the images, `[N, …]`.
    fn of_class(&mut self, name: &str, table: &Tensor) -> Result<String> {
        let table = self.graph.constant(name, table)?;
        Ok(self.graph.node("Gather", &[&table, CLASSES], &[("axis", Attribute::Int(0))]))
    }

    fn normalised(&mut self, norm: &BatchNorm, x: &str) -> Result<String> {
        let [mean, variance] = [norm.mean, norm.variance];
        let (centred, variance) = if self.mode == Mode::Running {
            let mean = self.running(mean)?;
            (self.graph.node("Sub", &[x, &mean], &[]), self.running(variance)?)
        } else {
            let mean = self.mean(x);
            let centred = self.graph.node("Sub", &[x, &mean], &[]);
            let squares = self.graph.node("Mul", &[&centred, &centred], &[]);
            (centred, self.mean(&squares))
        };
        let epsilon = self.scalar("epsilon", BATCH_NORM_EPSILON)?;
        let guarded = self.graph.node("Add", &[&variance, &epsilon], &[]);
        let deviation = self.graph.node("Sqrt", &[&guarded], &[]);
        let [mut gamma, beta] = [self.scale_or_shift(norm, norm.gamma)?, self.scale_or_shift(norm, norm.beta)?];
        if norm.conditional {
            let one = self.scalar("one", 1.0)?;
            gamma = self.graph.node("Add", &[&gamma, &one], &[]);
        }
        let scale = self.graph.node("Div", &[&gamma, &deviation], &[]);
        let scaled = self.graph.node("Mul", &[&centred, &scale], &[]);
        Ok(self.graph.node("Add", &[&scaled, &beta], &[]))
    }

    /// `[1, C, 1, 1]`, axis by axis: a sum of millions of pixels at once has three digits less in onnxruntime.
    fn mean(&mut self, x: &str) -> String {
        [3, 2, 0].into_iter().fold(x.to_owned(), |x, axis| {
            let along = [("axes", Attribute::Ints(&[axis])), ("keepdims", Attribute::Int(1))];
            self.graph.node("ReduceMean", &[&x], &along)
        })
    }

    /// `[1, C, 1, 1]`, or of the images' classes `[N, C, 1, 1]`.
    fn scale_or_shift(&mut self, norm: &BatchNorm, id: Id) -> Result<String> {
        let name = self.of.params.name(id);
        let stored = &self.params[name];
        let c = stored.dims()[stored.rank() - 1];
        let per_channel = stored.reshape(((), c, 1, 1))?;
        if norm.conditional { self.of_class(name, &per_channel) } else { self.graph.constant(name, &per_channel) }
    }

    fn running(&mut self, id: Id) -> Result<String> {
        let name = self.of.buffers.name(id);
        self.graph.constant(name, &self.buffers[name].reshape((1, (), 1, 1))?)
    }

    fn scalar(&mut self, name: &str, value: f64) -> Result<String> {
        self.graph.constant(name, &Tensor::new(value as f32, &Device::Cpu)?)
    }

    /// [`crate::nn::fir::fir_up2`]: each pixel spread by [1, 3, 3, 1]/4 along both axes over twice as many.
    fn binomial(&mut self, x: &str, c: usize) -> Result<String> {
        let taps = [1f32, 3.0, 3.0, 1.0].map(|tap| tap / 4.0);
        let filter: Vec<f32> = taps.iter().flat_map(|a| taps.map(|b| a * b)).collect();
        let filter = Tensor::from_vec(filter, (1, 1, 4, 4), &Device::Cpu)?.repeat((c, 1, 1, 1))?;
        let filter = self.graph.constant(&format!("filter.{c}"), &filter)?;
        let attributes = [
            ("strides", Attribute::Ints(&[2, 2])),
            ("pads", Attribute::Ints(&[1; 4])),
            ("group", Attribute::Int(c as i64)),
        ];
        Ok(self.graph.node("ConvTranspose", &[x, &filter], &attributes))
    }
}
