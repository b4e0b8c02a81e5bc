//! The tensors of an extractor's file, each taken by name and shape: what is missing, misshapen or left over is an error.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::metric::Family;
use crate::error::Error;
use crate::weights::missing;

/// A tensor that only files of a family have, and the option that takes them.
const SIGNS: [(Family, &str, &str); 3] = [
    (Family::Inception, "Conv2d_1a_3x3.conv.weight", "--weights"),
    (Family::Dinov2, "embeddings.patch_embeddings.projection.weight", "--dinov2"),
    (Family::Clip, "vision_model.embeddings.patch_embedding.weight", "--clip"),
];

/// Refuses the weights of another family than the wanted one.
///
/// # Errors
/// When the tensors of a file are those of another.
pub fn refuse_others(wanted: Family, path: &Path, tensors: &BTreeMap<String, Tensor>) -> crate::error::Result<()> {
    let found: Vec<_> = SIGNS.into_iter().filter(|(_, tensor, _)| tensors.contains_key(*tensor)).collect();
    match found[..] {
        [(family, _, option)] if family != wanted => {
            let [family, wanted] = [family, wanted].map(Family::name);
            Err(Error::content(path, format!("holds weights of {family}, not of {wanted}: give it as {option}")))
        }
        _ => Ok(()),
    }
}

/// Tensors that nobody has taken yet.
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    /// Where the network is.
    pub device: Device,
}

impl Weights {
    /// From named tensors, for a network on a device; those that `unused` names are dropped.
    pub fn new(tensors: BTreeMap<String, Tensor>, unused: impl Fn(&str) -> bool, device: &Device) -> Self {
        let tensors = tensors.into_iter().filter(|(name, _)| !unused(name)).collect();
        Self { tensors, device: device.clone() }
    }

    fn missing<T>(&self, name: &str) -> Result<T> {
        bail!("{}", missing(name, self.tensors.keys().map(String::as_str)))
    }

    /// Whether there is a tensor of a name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor of so many axes.
    ///
    /// # Errors
    /// When it is missing, or has another rank.
    pub fn shape<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let Some(tensor) = self.tensors.get(name) else { return self.missing(name) };
        match tensor.dims().try_into() {
            Ok(dims) => Ok(dims),
            Err(_) => bail!("tensor `{name}` has shape {:?}, expected {N} axes", tensor.dims()),
        }
    }

    /// The tensor of a name and shape, as f32 on the CPU.
    ///
    /// # Errors
    /// When it is missing, or has another shape, or is not of floating point.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(tensor) = self.tensors.remove(name) else { return self.missing(name) };
        if tensor.dims() != shape {
            bail!("tensor `{name}` has shape {:?}, expected {shape:?}", tensor.dims())
        }
        if !tensor.dtype().is_float() {
            bail!("tensor `{name}` has dtype {:?}, expected a floating-point one", tensor.dtype())
        }
        tensor.to_dtype(DType::F32)
    }

    /// A tensor of any size along its first axis, if it is there.
    ///
    /// # Errors
    /// When it is there with another rank.
    pub fn take_rows(&mut self, name: &str, columns: usize) -> Result<Option<Tensor>> {
        match self.tensors.get(name).map(|t| t.dims().to_vec()) {
            None => Ok(None),
            Some(dims) if dims.len() == 2 && dims[1] == columns => self.take(name, &dims).map(Some),
            Some(dims) => bail!("tensor `{name}` has shape {dims:?}, expected [classes, {columns}]"),
        }
    }

    /// A vector that may be absent, and is not used.
    ///
    /// # Errors
    /// When it is there with another length.
    pub fn take_optional(&mut self, name: &str, len: usize) -> Result<()> {
        if self.has(name) { self.take(name, &[len]).map(drop) } else { Ok(()) }
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// When something is left.
    pub fn finish(self) -> Result<()> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(first) => {
                bail!("{} tensors are of no use in this network, the first is `{first}`", self.tensors.len())
            }
        }
    }
}
