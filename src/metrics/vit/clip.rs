//! The image tower of CLIP (Radford et al., arXiv 2103.00020), as CMMD takes it (Jayasumana et al., arXiv 2401.09603): the projection of
//! the class token, of length one. Files are transformers', such as openai/clip-vit-large-patch14-336; the text tower in them is not used.

use std::path::Path;

use candle_core::Result;

use super::dinov2::pil_bicubic;
use super::network::{Ends, Family, Network, norm};
use super::{Read, Vit, check, grid, size};
use crate::data::hub::{Kind, Pinned};
use crate::error;
use crate::machine::compute::Compute;
use crate::metrics::metric;
use crate::metrics::resize::{Levels, Protocol, Sums};
use crate::metrics::weights::Weights;
use crate::nn::activation::Gelu;
use crate::nn::conv::packed::Linear;

/// The weights that CMMD is published with; the repository has no safetensors of them. The SHA-256 is what the Hub keeps the file under.
pub const OFFICIAL: Pinned = Pinned {
    repo: "openai/clip-vit-large-patch14-336",
    kind: Kind::Model,
    revision: "ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
    file: "pytorch_model.bin",
    sha256: "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
};

const FAMILY: Family = Family {
    blocks: "vision_model.encoder.layers.",
    norms: ["layer_norm1", "layer_norm2"],
    attention: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"],
    scales: None,
    activation: Gelu::Logistic,
    epsilon: 1e-5,
};

/// How 8-bit images come to the network: the square in the middle, by Pillow's antialiased bicubic rounded to bytes after each pass, and
/// CLIP's mean and deviation.
pub const RESIZE: &str = "clip-cmmd";

pub(super) fn protocol(side: usize) -> Protocol {
    Protocol {
        id: RESIZE,
        side,
        taps: pil_bicubic,
        square: true,
        sums: Sums::Bytes,
        levels: Levels {
            over: 255.0,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            deviation: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        },
    }
}

/// Reads the network from a file with transformers' names (see [`crate::weights`]); it computes where and as precisely as `compute` says.
/// The side of its images is what its positions are for.
///
/// # Errors
/// When the file cannot be read, or a tensor is missing, misshapen or of no use.
pub fn from_file(path: &Path, compute: Compute) -> error::Result<Vit> {
    let unused = |name: &str| {
        name.starts_with("text_model.")
            || ["text_projection.weight", "logit_scale", "vision_model.embeddings.position_ids"].contains(&name)
    };
    Vit::from_file((metric::Family::Clip, path), compute, unused, read)
}

fn read(weights: &mut Weights) -> Result<Read> {
    let embeddings = ["patch_embedding.weight", "class_embedding", "position_embedding.weight"];
    let [patches, class, positions] = embeddings.map(|part| format!("vision_model.embeddings.{part}"));
    let [width, _, patch, _] = weights.shape(&patches)?;
    let [tokens, _] = weights.shape(&positions)?;
    let cells = grid(&positions, tokens.saturating_sub(1))?;
    check(width, patch, cells)?;
    let side = patch * cells;
    let [dim, _] = weights.shape("visual_projection.weight")?;
    let ends = Ends {
        patches: weights.take(&patches, &[width, 3, patch, patch])?,
        patch_bias: None,
        class: weights.take(&class, &[width])?,
        positions: weights.take(&positions, &[tokens, width])?,
        // The published name has this slip.
        before: Some(norm("vision_model.pre_layrnorm", width, FAMILY.epsilon, weights)?),
        after: norm("vision_model.post_layernorm", width, FAMILY.epsilon, weights)?,
        projection: Some(Linear::new(
            &weights.take("visual_projection.weight", &[dim, width])?,
            None,
            &weights.device,
        )?),
    };
    let network = Network::new(&FAMILY, ends, weights)?;
    let id = format!("clip-vit{}{patch}-{side}", size(width, network.depth()));
    Ok(Read { network, protocol: protocol(side), id, dim })
}
