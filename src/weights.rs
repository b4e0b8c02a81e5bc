//! Files that hold weights: safetensors, or PyTorch's `.pth` in its zip and its older stream container. A
//! pickle is parsed, never executed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use pytorch_reader::{DType as Stored, PytorchReader};

use crate::error::{AtPath, Error, Result};

/// Tensors that may share their bytes in a `.pth` file.
const SHARED: u64 = 4;

/// Every tensor of a file by name.
///
/// # Errors
/// When the file cannot be read, or is not what its extension says.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    File::open(path).at("open", path)?;
    let is = |extension: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
    if is("pth") || is("pt") {
        pickled(path)
    } else if is("safetensors") {
        let bytes = std::fs::read(path).at("read", path)?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|e| Error::content(path, format!("not a safetensors file: {e}")))?;
        Ok(tensors.into_iter().collect())
    } else {
        Err(Error::content(path, "weights are a .safetensors, .pth or .pt file"))
    }
}

fn pickled(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bad = |what: String| Error::content(path, format!("not a PyTorch file of weights: {what}"));
    let reader = PytorchReader::new(path).map_err(|e| bad(e.to_string()))?;
    if !reader.metadata().is_modern_format() && !reader.metadata().is_legacy_format() {
        return Err(bad("it is a bare pickle, in neither container of torch.save".to_owned()));
    }
    let length = File::open(path).and_then(|file| file.metadata()).at("read", path)?.len();
    let claimed = reader.tensors().values().fold(0, |sum: u64, stored| sum.saturating_add(stored.byte_len() as u64));
    if claimed > length.saturating_mul(SHARED) {
        return Err(bad(format!(
            "its tensors have {claimed} bytes, but the file {length}: views that repeat are not read"
        )));
    }
    let mut tensors = BTreeMap::new();
    for (name, stored) in reader.tensors() {
        let dtype = match stored.dtype() {
            Stored::F32 => DType::F32,
            Stored::F64 => DType::F64,
            Stored::F16 => DType::F16,
            Stored::BF16 => DType::BF16,
            Stored::I64 => DType::I64,
            other => return Err(bad(format!("tensor `{name}` has dtype {other:?}, which no network here uses"))),
        };
        let bytes = stored.read().map_err(|e| bad(format!("tensor `{name}`: {e}")))?;
        if bytes.len() != stored.num_elements() * dtype.size_in_bytes() {
            return Err(bad(format!("tensor `{name}` has {} bytes for shape {:?}", bytes.len(), stored.shape())));
        }
        tensors.insert(name.clone(), Tensor::from_raw_buffer(&bytes, dtype, stored.shape(), &Device::Cpu)?);
    }
    Ok(tensors)
}
