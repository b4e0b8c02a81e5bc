//! Inception-v3 features: the extractor whose distances are comparable with published ones, when its weights are the
//! official ones.

pub mod network;
pub mod resize;

use std::ops::Range;
use std::path::Path;

use candle_core::{Device, Tensor};
use sha2::Sha256;

use super::metric::Family;
use super::resize::Protocol;
use super::weights::{Weights, refuse_others};
use super::{Extractor, Features};
use crate::data::hub::{Kind, Pinned};
use crate::data::source::Picture;
use crate::error::{Error, Result};
use crate::files::file_digest;
use crate::machine::compute::Compute;
use crate::machine::cpu::parallel::threads;
use crate::nn::matrix::product_with_transposed;
use crate::weights::{self, missing};
use network::{FEATURES, Network};
use resize::Resize;

/// The weights every published FID is measured with: `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid, the same bytes
/// as torch-fidelity's. The repository's branch is not a pin; the SHA-256 is.
pub const OFFICIAL: Pinned = Pinned {
    repo: "FoundationVision/unitok_external",
    kind: Kind::Model,
    revision: "main",
    file: "weights-inception-2015-12-05-6726825d.pth",
    sha256: "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
};

/// Images in the network at a time, which bounds its memory: on the CPU (the next multiple of its threads), on a GPU, where an image takes 8.3 MB at most (output and
/// input of the third convolution, f32).
const BATCH: [usize; 2] = [10, 256];

/// Width of the features that sFID compares (Nash et al. 2021), in order of row, column, channel.
pub const SPATIAL: usize = 17 * 17 * SPATIAL_CHANNELS;
/// They are the first channels of the first branch of this stage, which the original graph calls `mixed_6/conv`.
const SPATIAL_STAGE: &str = "Mixed_6d";
const SPATIAL_CHANNELS: usize = 7;

/// What is shown the output of each stage of the network.
type See<'a> = &'a mut dyn FnMut(&str, &Tensor) -> candle_core::Result<()>;

/// The network with its weights and the resize protocol.
pub struct Inception {
    network: Network,
    /// `[classes, 2048]`, without bias: the Inception Score of the original protocol has none. Absent in weights without a
    /// last layer, which serve every measure but that score.
    head: Option<Tensor>,
    protocol: Protocol,
    spatial: bool,
    id: String,
    sha256: String,
    logits_sha256: String,
    compute: Compute,
}

impl Inception {
    /// Reads the network from a file with pytorch-fid's names (see [`crate::weights`]).
    ///
    /// It computes where and as precisely as `compute` says.
    /// The last layer may come from a file of its own (`head`: `fc.weight` `[classes, 2048]`), when `weights` has none.
    ///
    /// # Errors
    /// When a file cannot be read, or a tensor is missing, misshapen, of no use, or in both files.
    pub fn from_file(path: &Path, head: Option<&Path>, resize: Resize, compute: Compute) -> Result<Self> {
        let (mut tensors, sha256) = (weights::read(path)?, file_digest::<Sha256>(path)?);
        refuse_others(Family::Inception, path, &tensors)?;
        let mut logits_sha256 = sha256.clone();
        if let Some(head) = head {
            let mut of_head = weights::read(head)?;
            if !of_head.contains_key("fc.weight") {
                return Err(Error::content(head, missing("fc.weight", of_head.keys().map(String::as_str))));
            }
            for name in ["fc.weight", "fc.bias"] {
                if tensors.contains_key(name) {
                    return Err(Error::content(
                        head,
                        format!("{} has `{name}` of its own: leave --head out", path.display()),
                    ));
                }
                tensors.extend(of_head.remove_entry(name));
            }
            logits_sha256 = format!("{sha256}+{}", file_digest::<Sha256>(head)?);
        }
        let bad = |e: candle_core::Error| Error::content(path, e.to_string());
        let counts = |name: &str| name.ends_with("num_batches_tracked");
        let mut tensors = Weights::new(tensors, counts, &compute.device);
        let network = compute.run(|| Network::new(&mut tensors)).map_err(bad)?;
        let head = tensors.take_rows("fc.weight", FEATURES).map_err(bad)?;
        let head = head.map(|head| head.to_device(&compute.device)).transpose()?;
        if let Some(head) = &head {
            tensors.take_optional("fc.bias", head.dim(0)?).map_err(bad)?;
        }
        tensors.finish().map_err(bad)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let id = format!("inception-{stem}");
        Ok(Self { network, head, protocol: resize.protocol(), spatial: false, id, sha256, logits_sha256, compute })
    }

    /// Gives [`Features::spatial`] too, `[N, 2023]`.
    pub fn with_spatial(self) -> Self {
        Self { spatial: true, ..self }
    }

    /// Features `[N, 2048]` of images, where the network is; `see` as for [`Network::forward`].
    ///
    /// # Errors
    /// When the network fails.
    pub fn features(&self, images: &[Picture], see: See) -> Result<Tensor> {
        let inputs = |of: Range<usize>| self.protocol.pictures(&images[of], &self.compute.device);
        Ok(self.in_batches(images.len(), inputs, see)?.0)
    }

    /// Features of `n` images, of which `inputs` makes some such as the network takes them, and spatial ones if they are wanted.
    fn in_batches(
        &self,
        n: usize,
        inputs: impl Fn(Range<usize>) -> candle_core::Result<Tensor>,
        see: See,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let batch = match self.compute.device.is_cpu() {
            true => BATCH[0].next_multiple_of(threads()),
            false => BATCH[1],
        };
        let mut spatial = Vec::new();
        let mut look = |stage: &str, x: &Tensor| {
            if self.spatial && stage == SPATIAL_STAGE {
                spatial.push(x.narrow(3, 0, SPATIAL_CHANNELS)?.flatten_from(1)?);
            }
            see(stage, x)
        };
        let some = |first| self.network.forward(&inputs(first..n.min(first + batch))?, &mut look);
        let parts = self.compute.run(|| (0..n).step_by(batch).map(some).collect::<candle_core::Result<Vec<_>>>())?;
        let spatial = if self.spatial { Some(Tensor::cat(&spatial, 0)?) } else { None };
        Ok((Tensor::cat(&parts, 0)?, spatial))
    }

    fn with_logits(&self, (features, spatial): (Tensor, Option<Tensor>)) -> Result<Features> {
        let of = |head| self.compute.run(|| product_with_transposed(&features, head));
        Ok(Features { logits: self.head.as_ref().map(of).transpose()?, features, spatial })
    }
}

impl Extractor for Inception {
    fn id(&self) -> &str {
        &self.id
    }

    fn weights_sha256(&self) -> &str {
        &self.sha256
    }

    fn logits_sha256(&self) -> &str {
        &self.logits_sha256
    }

    fn resize(&self) -> &'static str {
        self.protocol.id
    }

    fn dim(&self) -> usize {
        FEATURES
    }

    fn classes(&self) -> Option<usize> {
        self.head.as_ref().map(|h| h.dims()[0])
    }

    fn extract(&self, pictures: &[Picture]) -> Result<Features> {
        let inputs = |of: Range<usize>| self.protocol.pictures(&pictures[of], &self.compute.device);
        let of = self.with_logits(self.in_batches(pictures.len(), inputs, &mut |_, _| Ok(()))?)?;
        let on_cpu = |t: Tensor| t.to_device(&Device::Cpu);
        Ok(Features {
            features: on_cpu(of.features)?,
            logits: of.logits.map(on_cpu).transpose()?,
            spatial: of.spatial.map(on_cpu).transpose()?,
        })
    }

    fn extract_bytes(&self, images: &Tensor) -> Result<Features> {
        let images = images.to_device(&self.compute.device)?;
        let inputs = |of: Range<usize>| self.protocol.images(&images.narrow(0, of.start, of.len())?);
        self.with_logits(self.in_batches(images.dim(0)?, inputs, &mut |_, _| Ok(()))?)
    }
}
