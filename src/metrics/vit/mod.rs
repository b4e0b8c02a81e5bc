//! Vision Transformers as extractors: DINOv2 and CLIP's image tower, from files with the names that transformers gives the tensors. What a
//! file's tensors do not say by their shapes is fixed: heads of 64 channels, and the family's activation and ε.

pub mod clip;
pub mod dinov2;
pub mod network;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;

use candle_core::{Device, Tensor};
use sha2::Sha256;

use super::metric::Family;
use super::resize::Protocol;
use super::weights::{Weights, refuse_others};
use super::{Extractor, Features};
use crate::data::source::Picture;
use crate::error::{Error, Result};
use crate::files::file_digest;
use crate::machine::compute::Compute;
use crate::nn::attention::HEAD;
use crate::weights;
use network::Network;

/// Images in the network at a time, on the CPU and on a GPU. In the largest, ViT-L/14 at 336 pixels, an image takes 17 MB beside its input
/// and the weights (T·(1,024·3 + 4,096) numbers), at 224 pixels 7.4 MB.
const BATCH: [usize; 2] = [16, 128];

/// What is shown the output of each stage of the network.
type See<'a> = &'a mut dyn FnMut(&str, &Tensor) -> candle_core::Result<()>;

/// A network with its weights and the resize protocol.
pub struct Vit {
    network: Network,
    protocol: Protocol,
    id: String,
    dim: usize,
    sha256: String,
    compute: Compute,
}

/// What a family makes of a file's tensors.
struct Read {
    network: Network,
    protocol: Protocol,
    id: String,
    dim: usize,
}

/// Rows and columns of a grid of so many cells.
fn grid(name: &str, cells: usize) -> candle_core::Result<usize> {
    let side = cells.isqrt();
    if side == 0 || side * side != cells {
        candle_core::bail!("tensor `{name}` is of {cells} patches, expected a square of them")
    }
    Ok(side)
}

/// Most channels, and pixels on a side, of a network: far more than any has, and what bounds the memory that a file can ask for.
const MOST: [usize; 2] = [8192, 1024];

/// Refuses sizes that no Vision Transformer has.
fn check(width: usize, patch: usize, cells: usize) -> candle_core::Result<()> {
    let [most_channels, most_pixels] = MOST;
    if !width.is_multiple_of(HEAD) || !(HEAD..=most_channels).contains(&width) {
        candle_core::bail!(
            "vectors of {width} numbers, expected heads of {HEAD} channels, {most_channels} in all at most"
        )
    }
    // Patches of fewer pixels would make more tokens than attention is meant for.
    if !(7..=most_pixels).contains(&patch) || patch * cells > most_pixels {
        candle_core::bail!(
            "{cells}×{cells} patches of {patch}×{patch} pixels, expected 7 or more, {most_pixels} a side at most"
        )
    }
    Ok(())
}

/// Name of a published width and depth, or these.
fn size(width: usize, depth: usize) -> String {
    match (width, depth) {
        (384, 12) => "s".to_owned(),
        (768, 12) => "b".to_owned(),
        (1024, 24) => "l".to_owned(),
        _ => format!("-{width}x{depth}-"),
    }
}

impl Vit {
    /// Reads a file; `unused` names the tensors that the family knows and does not use.
    fn from_file(
        (family, path): (Family, &Path),
        compute: Compute,
        unused: impl Fn(&str) -> bool,
        read: impl FnOnce(&mut Weights) -> candle_core::Result<Read>,
    ) -> Result<Self> {
        let (tensors, sha256) = (weights::read(path)?, file_digest::<Sha256>(path)?);
        refuse_others(family, path, &tensors)?;
        let mut tensors = Weights::new(tensors, unused, &compute.device);
        let made = compute.run(|| read(&mut tensors)).and_then(|made| tensors.finish().map(|()| made));
        let Read { network, protocol, id, dim } = made.map_err(|e| Error::content(path, e.to_string()))?;
        Ok(Self { network, protocol, id, dim, sha256, compute })
    }

    /// Features `[N, dim]` of images, where the network is; `see` as for [`Network::forward`].
    ///
    /// # Errors
    /// When the network fails.
    pub fn features(&self, images: &[Picture], see: See) -> Result<Tensor> {
        self.in_batches(images.len(), |of| self.protocol.pictures(&images[of], &self.compute.device), see)
    }

    /// Features of `n` images, of which `inputs` makes some such as the network takes them.
    fn in_batches(
        &self,
        n: usize,
        inputs: impl Fn(Range<usize>) -> candle_core::Result<Tensor>,
        see: See,
    ) -> Result<Tensor> {
        let batch = BATCH[usize::from(!self.compute.device.is_cpu())];
        let some = |first| self.network.forward(&inputs(first..n.min(first + batch))?, see);
        let parts = self.compute.run(|| (0..n).step_by(batch).map(some).collect::<candle_core::Result<Vec<_>>>())?;
        Ok(Tensor::cat(&parts, 0)?)
    }
}

impl Extractor for Vit {
    fn id(&self) -> &str {
        &self.id
    }

    fn weights_sha256(&self) -> &str {
        &self.sha256
    }

    fn resize(&self) -> &'static str {
        self.protocol.id
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn classes(&self) -> Option<usize> {
        None
    }

    fn extract(&self, pictures: &[Picture]) -> Result<Features> {
        let features = self.features(pictures, &mut |_, _| Ok(()))?.to_device(&Device::Cpu)?;
        Ok(Features { features, logits: None, spatial: None })
    }

    fn extract_bytes(&self, images: &Tensor) -> Result<Features> {
        let images = images.to_device(&self.compute.device)?;
        let inputs = |of: Range<usize>| self.protocol.images(&images.narrow(0, of.start, of.len())?);
        Ok(Features {
            features: self.in_batches(images.dim(0)?, inputs, &mut |_, _| Ok(()))?,
            logits: None,
            spatial: None,
        })
    }
}
