//! The Vision Transformer (Dosovitskiy et al., arXiv 2010.11929): patches and a class token, each with its position, through blocks of
//! attention and a layer of two; the class token is the image's.
//!
//! Legend: N images, T tokens (the class, then the patches row by row), C channels.

use candle_core::{D, Result, Tensor};

use crate::metrics::weights::Weights;
use crate::nn::activation::Gelu;
use crate::nn::attention::attention;
use crate::nn::conv::packed::Linear;
use crate::nn::conv::{ConvSpec, Then, conv2d};
use crate::nn::kernel::Kernel;
use crate::nn::layer_norm::LayerNorm;

/// What the families call the parts of a block, of which `N` follows `blocks`, and how they differ.
pub struct Family {
    /// Before the number of a block.
    pub blocks: &'static str,
    /// Before attention and before the layer of two.
    pub norms: [&'static str; 2],
    /// Queries, keys, values, and what follows attention.
    pub attention: [&'static str; 4],
    /// Factors of what attention and the layer of two add to the tokens, where there are any.
    pub scales: Option<[&'static str; 2]>,
    /// Between the two.
    pub activation: Gelu,
    /// ε of layer normalisation.
    pub epsilon: f64,
}

/// Attention and a layer of two, each added to its input.
struct Block {
    norms: [LayerNorm; 2],
    qkv: Linear,
    out: Linear,
    hidden: Linear,
    back: Linear,
    activation: Gelu,
}

impl Block {
    fn new(family: &Family, k: usize, width: usize, weights: &mut Weights) -> Result<Self> {
        let at = |part: &str| format!("{}{k}.{part}", family.blocks);
        let [before, between] = family.norms.map(|part| norm(&at(part), width, family.epsilon, weights));
        let [inner, _] = weights.shape(&at("mlp.fc1.weight"))?;
        let mut scale = |part: usize| family.scales.map(|of| weights.take(&at(of[part]), &[width])).transpose();
        let scales = [scale(0)?, scale(1)?];
        let mut of = |part: &str, [o, i]: [usize; 2]| -> Result<[Tensor; 2]> {
            let weight = weights.take(&at(&format!("{part}.weight")), &[o, i])?;
            Ok([weight, weights.take(&at(&format!("{part}.bias")), &[o])?])
        };
        let scaled = |[weight, bias]: [Tensor; 2], scale: &Option<Tensor>| -> Result<[Tensor; 2]> {
            let Some(scale) = scale else { return Ok([weight, bias]) };
            Ok([weight.broadcast_mul(&scale.unsqueeze(1)?)?, (bias * scale)?])
        };
        let [q, k, v, out] = family.attention;
        let qkv = [of(q, [width; 2])?, of(k, [width; 2])?, of(v, [width; 2])?];
        let qkv = [0, 1].map(|side| Tensor::cat(&qkv.each_ref().map(|part| &part[side]), 0));
        let out = scaled(of(out, [width; 2])?, &scales[0])?;
        let hidden = of("mlp.fc1", [inner, width])?;
        let back = scaled(of("mlp.fc2", [width, inner])?, &scales[1])?;
        let linear = |[weight, bias]: [Tensor; 2]| Linear::new(&weight, Some(&bias), &weights.device);
        let [weight, bias] = qkv;
        Ok(Self {
            norms: [before?, between?],
            qkv: linear([weight?, bias?])?,
            out: linear(out)?,
            hidden: linear(hidden)?,
            back: linear(back)?,
            activation: family.activation,
        })
    }

    /// The first `tokens` of what it makes of `x` `[N, T, C]`.
    fn run(&self, x: &Tensor, tokens: usize) -> Result<Tensor> {
        fn plus(x: &Tensor) -> Then<'_> {
            Then::Sum { plus: Some(x), noted: None }
        }
        let attended = attention(&self.qkv.run(&self.norms[0].run(x)?, Then::Nothing)?, tokens)?;
        let x = x.narrow(1, 0, tokens)?.contiguous()?;
        let x = self.out.run(&attended, plus(&x))?;
        let hidden = self.hidden.run(&self.norms[1].run(&x)?, Then::Gelu(self.activation))?;
        self.back.run(&hidden, plus(&x))
    }
}

/// The layer normalisation of a name.
pub fn norm(name: &str, width: usize, epsilon: f64, weights: &mut Weights) -> Result<LayerNorm> {
    let [gamma, beta] = ["weight", "bias"].map(|part| weights.take(&format!("{name}.{part}"), &[width]));
    LayerNorm::new(&gamma?, &beta?, epsilon, &weights.device)
}

/// What the families take out of their files themselves, all on the CPU.
pub struct Ends {
    /// `[C, 3, P, P]` for patches of P×P pixels.
    pub patches: Tensor,
    /// `[C]`.
    pub patch_bias: Option<Tensor>,
    /// `[C]`.
    pub class: Tensor,
    /// `[T, C]`.
    pub positions: Tensor,
    /// Before the first block.
    pub before: Option<LayerNorm>,
    /// After the last one.
    pub after: LayerNorm,
    /// Of the image's token, to vectors of length one.
    pub projection: Option<Linear>,
}

/// The network.
pub struct Network {
    patches: Kernel,
    patch_bias: Option<Tensor>,
    patch: usize,
    /// With its position, `[1, 1, C]`.
    class: Tensor,
    /// Of the patches, `[T − 1, C]`.
    positions: Tensor,
    before: Option<LayerNorm>,
    blocks: Vec<Block>,
    after: LayerNorm,
    projection: Option<Linear>,
}

impl Network {
    /// The network of these weights, of which the family's blocks are taken out here.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(family: &Family, ends: Ends, weights: &mut Weights) -> Result<Self> {
        let (width, _, patch, _) = ends.patches.dims4()?;
        let tokens = ends.positions.dim(0)?;
        let class = (ends.positions.narrow(0, 0, 1)? + ends.class.unsqueeze(0)?)?.unsqueeze(0)?;
        let mut blocks = Vec::new();
        while weights.has(&format!("{}{}.mlp.fc1.weight", family.blocks, blocks.len())) || blocks.is_empty() {
            blocks.push(Block::new(family, blocks.len(), width, weights)?);
        }
        let there = |t: &Tensor| t.to_device(&weights.device);
        Ok(Self {
            patches: Kernel::new(&there(&ends.patches.contiguous()?)?)?,
            patch_bias: ends.patch_bias.as_ref().map(there).transpose()?,
            patch,
            class: there(&class)?,
            positions: there(&ends.positions.narrow(0, 1, tokens - 1)?)?,
            before: ends.before,
            blocks,
            after: ends.after,
            projection: ends.projection,
        })
    }

    /// Blocks.
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Features `[N, C]`, or as many as the projection makes, of images `[N, side, side, 3]`; `see` is shown the output of each stage,
    /// of which the last block makes the class token alone.
    ///
    /// # Errors
    /// On images of another shape or dtype.
    pub fn forward(&self, images: &Tensor, see: &mut dyn FnMut(&str, &Tensor) -> Result<()>) -> Result<Tensor> {
        let spec = ConvSpec::new(self.patch, 0);
        let patches = conv2d(images, &self.patches, self.patch_bias.as_ref(), spec)?;
        let (n, rows, columns, width) = patches.dims4()?;
        let patches = patches.reshape((n, rows * columns, width))?.broadcast_add(&self.positions)?;
        let mut x = Tensor::cat(&[&self.class.broadcast_as((n, 1, width))?, &patches], 1)?.contiguous()?;
        see("embeddings", &x)?;
        if let Some(norm) = &self.before {
            x = norm.run(&x)?;
            see("before", &x)?;
        }
        for (k, block) in self.blocks.iter().enumerate() {
            let tokens = if k + 1 == self.blocks.len() { 1 } else { x.dim(1)? };
            x = block.run(&x, tokens)?;
            see(&format!("block.{k}"), &x)?;
        }
        let x = self.after.run(&x)?;
        see("after", &x)?;
        let Some(projection) = &self.projection else { return x.squeeze(1) };
        let x = projection.run(&x, Then::Nothing)?.squeeze(1)?;
        see("projection", &x)?;
        x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
    }
}
