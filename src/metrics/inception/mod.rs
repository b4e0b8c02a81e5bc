//! Inception-v3 features: the extractor whose distances are comparable with published ones, when its weights are the
//! official ones.

pub mod network;
pub mod resize;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{Extractor, Features};
use crate::error::{AtPath, Error, Result};
use crate::files::sha256;
use network::{FEATURES, Network, Weights};
use resize::{Resize, SIDE};

/// Images in the network at a time, which bounds its memory.
const BATCH: usize = 10;

/// The network with its weights and the resize protocol.
pub struct Inception {
    network: Network,
    /// `[classes, 2048]`, without bias: the Inception Score of the original protocol has none.
    head: Tensor,
    resize: Resize,
    id: String,
    sha256: String,
}

impl Inception {
    /// Reads the network from a safetensors file with pytorch-fid's names.
    ///
    /// The last layer may come from a file of its own (`head`: `fc.weight` `[classes, 2048]`), when `weights` has none.
    ///
    /// # Errors
    /// When a file cannot be read, or a tensor is missing, misshapen or of no use.
    pub fn from_safetensors(weights: &Path, head: Option<&Path>, resize: Resize) -> Result<Self> {
        let (mut tensors, sha256) = read(weights)?;
        if let Some(head) = head {
            tensors.extend(read(head)?.0);
        }
        let bad = |e: candle_core::Error| Error::content(weights, e.to_string());
        let mut tensors = Weights::new(tensors);
        let network = Network::new(&mut tensors).map_err(bad)?;
        let head = tensors.take_rows("fc.weight", FEATURES).map_err(bad)?;
        let head = head.ok_or_else(|| Error::content(weights, "tensor `fc.weight` is missing"))?;
        tensors.take_optional("fc.bias", head.dim(0)?).map_err(bad)?;
        tensors.finish().map_err(bad)?;
        let stem = weights.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self { network, head, resize, id: format!("inception-{stem}"), sha256 })
    }

    /// Features `[N, 2048]` of images `[height, width, 3]`, `see` as for [`Network::forward`].
    ///
    /// # Errors
    /// When the network fails.
    pub fn features(
        &self,
        images: &[&[u8]],
        [height, width]: [usize; 2],
        see: &mut dyn FnMut(&str, &Tensor) -> candle_core::Result<()>,
    ) -> Result<Tensor> {
        let mut parts = Vec::new();
        for batch in images.chunks(BATCH) {
            let inputs: Vec<Vec<f32>> = batch.par_iter().map(|i| self.resize.apply(i, height, width)).collect();
            let inputs = Tensor::from_vec(inputs.concat(), (batch.len(), SIDE, SIDE, 3), &Device::Cpu)?;
            parts.push(self.network.forward(&inputs, see)?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }
}

fn read(path: &Path) -> Result<(BTreeMap<String, Tensor>, String)> {
    let bytes = std::fs::read(path).at("read", path)?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|e| Error::content(path, format!("not a safetensors file: {e}")))?;
    Ok((tensors.into_iter().collect(), sha256(&bytes)))
}

impl Extractor for Inception {
    fn id(&self) -> &str {
        &self.id
    }

    fn weights_sha256(&self) -> &str {
        &self.sha256
    }

    fn resize(&self) -> &'static str {
        self.resize.id()
    }

    fn dim(&self) -> usize {
        FEATURES
    }

    fn classes(&self) -> usize {
        self.head.dims()[0]
    }

    fn extract(&self, pixels: &[u8], side: usize) -> Result<Features> {
        let images: Vec<&[u8]> = pixels.chunks_exact(side * side * 3).collect();
        let features = self.features(&images, [side, side], &mut |_, _| Ok(()))?;
        let logits = features.matmul(&self.head.t()?)?;
        Ok(Features { features, logits })
    }
}
