//! What measures, as rows name it.

use crate::data::Images;
use crate::machine::compute::Compute;
use crate::metrics::Extractor;

/// Extractor, reference and device.
#[derive(Clone, Debug)]
pub struct Instrument {
    /// Feature extractor.
    pub extractor: String,
    /// SHA-256 of its weights.
    pub extractor_sha256: String,
    /// The same for scores of its logits.
    pub logits_sha256: String,
    /// How images come to its input size.
    pub resize: String,
    /// Width of its features.
    pub dim: usize,
    /// SHA-256 of the reference's pixels.
    pub reference_sha256: String,
    /// Its images.
    pub reference_images: usize,
    /// Device, with its precision where there is a choice.
    pub device: String,
}

impl Instrument {
    /// Of an evaluation; without an extractor, of the networks themselves.
    pub fn new(extractor: Option<&dyn Extractor>, reference: &Images, compute: &Compute) -> Self {
        let none = "none".to_owned();
        Self {
            extractor: extractor.map_or_else(|| none.clone(), |e| e.id().to_owned()),
            extractor_sha256: extractor.map_or_else(|| none.clone(), |e| e.weights_sha256().to_owned()),
            logits_sha256: extractor.map_or_else(|| none.clone(), |e| e.logits_sha256().to_owned()),
            resize: extractor.map_or(none, |e| e.resize().to_owned()),
            dim: extractor.map_or(0, Extractor::dim),
            reference_sha256: reference.fingerprint().to_owned(),
            reference_images: reference.len(),
            device: compute.id(),
        }
    }
}
