//! Files that hold weights: safetensors, or PyTorch's (`.pth`, `.bin`) in its zip and its older stream container. A
//! pickle is parsed, never executed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use pytorch_reader::{DType as Stored, PytorchReader};

use crate::error::{AtPath, Error, Result};
use crate::files::{has_extension, refuse_pointer};

/// Names of PyTorch's files, transformers' `pytorch_model.bin` among them, end so.
const PICKLED: [&str; 3] = ["pth", "pt", "bin"];
/// Tensors that may share their bytes in a `.pth` file.
const SHARED: u64 = 4;

/// Words that (Distributed)DataParallel, torch.compile and R3GAN's trainer put before the names of a network's tensors.
pub const WRAPPERS: [&str; 3] = ["module", "_orig_mod", "Model"];
/// Keys under which files hold a network, and [`WRAPPERS`].
const KEYS: [&str; 7] = ["state_dict", "model_state_dict", "model", "ema", WRAPPERS[0], WRAPPERS[1], WRAPPERS[2]];

/// Every tensor of a file by name, without the words that wrap all of them ([`strip_wrappers`]).
///
/// # Errors
/// When the file cannot be read, is not what its extension says, or has a number that is not finite.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    File::open(path).at("open", path)?;
    refuse_pointer(path)?;
    let mut tensors: BTreeMap<_, _> = if PICKLED.iter().any(|extension| has_extension(path, extension)) {
        pickled(path)?
    } else if has_extension(path, "safetensors") {
        let bytes = std::fs::read(path).at("read", path)?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|e| Error::content(path, format!("not a safetensors file: {e}")))?;
        tensors.into_iter().collect()
    } else {
        return Err(Error::content(path, "weights are a .safetensors, .pth, .pt or .bin file"));
    };
    for (name, tensor) in &tensors {
        if !is_finite(tensor)? {
            return Err(Error::content(path, format!("tensor `{name}` has numbers that are not finite")));
        }
    }
    if strip_wrappers(&mut tensors, "", &KEYS) {
        tensors.retain(|name, _| !is_of_optimiser(name));
    }
    Ok(tensors)
}

/// Whether all of a tensor is finite in f32, which networks take it in.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    if !tensor.dtype().is_float() {
        return Ok(true);
    }
    let values = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    Ok(values.iter().all(|v| v.is_finite()))
}

fn is_of_optimiser(name: &str) -> bool {
    name.starts_with("optim")
}

/// Takes words off that wrap the tensors whose names begin with `prefix`: one of `words` that is the next word of all these names is
/// left out, and so on for the rest of the names. Two kinds of tensors need not share it: whole numbers, which count batches or averages, and
/// what an optimiser keeps beside the network (`optim…`). Whether there was such a word.
pub fn strip_wrappers(tensors: &mut BTreeMap<String, Tensor>, prefix: &str, words: &[&str]) -> bool {
    let mut found = false;
    // No file wraps a network more than once in each.
    for _ in words {
        let shares = |wrapped: &String| {
            let mut names = tensors
                .iter()
                .filter(|(name, t)| name.starts_with(prefix) && t.dtype().is_float() && !is_of_optimiser(name))
                .map(|(name, _)| name)
                .peekable();
            names.peek().is_some() && names.all(|name| name.starts_with(wrapped))
        };
        let Some(wrapped) = words.iter().map(|word| format!("{prefix}{word}.")).find(shares) else { break };
        let bare = |name: String| name.strip_prefix(&wrapped).map(|rest| format!("{prefix}{rest}")).unwrap_or(name);
        *tensors = std::mem::take(tensors).into_iter().map(|(name, tensor)| (bare(name), tensor)).collect();
        found = true;
    }
    found
}

/// Says that a tensor is missing, and which of those that are there have names like its own: they differ in one place, which is short.
pub fn missing<'a>(name: &str, there: impl Iterator<Item = &'a str>) -> String {
    let likeness = |other: &str| {
        let same = |pairs: &mut dyn Iterator<Item = (u8, u8)>| pairs.take_while(|(a, b)| a == b).count();
        let ahead = same(&mut name.bytes().zip(other.bytes()));
        let behind = same(&mut name.bytes().rev().zip(other.bytes().rev()));
        (ahead + behind).min(name.len()).min(other.len())
    };
    let near = |other: &&str| 3 * likeness(other) >= 2 * name.len() && other.len() < name.len() + 32;
    let mut names: Vec<&str> = there.filter(near).collect();
    names.sort_by_key(|other| (std::cmp::Reverse(likeness(other)), other.len()));
    match names[..] {
        [] => format!("tensor `{name}` is missing"),
        [one] => format!("tensor `{name}` is missing; there is `{one}`"),
        [one, two, ..] => format!("tensor `{name}` is missing; there are `{one}` and `{two}`"),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> BTreeMap<String, Tensor> {
        let tensor = |name: &str| {
            let dtype = if name.ends_with('#') { DType::I64 } else { DType::F32 };
            Tensor::zeros(2, dtype, &Device::Cpu).unwrap()
        };
        names.iter().map(|name| ((*name).to_owned(), tensor(name))).collect()
    }

    #[test]
    fn words_are_taken_off_that_all_tensors_share() {
        for (names, prefix, expected) in [
            (&["module.a.w", "module.b.w"][..], "", Some(&["a.w", "b.w"][..])),
            (&["g._orig_mod.module.a", "h.b"], "g.", Some(&["g.a", "h.b"])),
            (&["g.module._orig_mod.a"], "g.", Some(&["g.a"])),
            (&["linear", "model.a"], "", None),
            (&["module.a", "n#", "module.m#"], "", Some(&["a", "m#", "n#"])),
            (&["state_dict.module.a", "optimizer.state.0.m"], "", Some(&["a", "optimizer.state.0.m"])),
            (&["ema.a", "state_dict.a"], "", None),
            (&["n#"], "", None),
            (&["module.module.module.module.module.module.module.module.a"], "", Some(&["module.a"])),
        ] {
            let mut tensors = named(names);
            assert_eq!(strip_wrappers(&mut tensors, prefix, &KEYS), expected.is_some(), "{names:?}");
            assert_eq!(tensors.keys().collect::<Vec<_>>(), expected.unwrap_or(names));
        }
    }

    #[test]
    fn a_missing_tensor_has_its_like_beside_it() {
        let there = ["g.module.linear.weight", "g.linear.bias", "g.blocks.0.weight", "h.x"];
        let said = |name| missing(name, there.into_iter());
        assert_eq!(said("g.linear.weight"), "tensor `g.linear.weight` is missing; there is `g.module.linear.weight`");
        assert_eq!(said("g.linaer.bias"), "tensor `g.linaer.bias` is missing; there is `g.linear.bias`");
        assert_eq!(said("Conv2d_1a.weight"), "tensor `Conv2d_1a.weight` is missing");
    }
}
