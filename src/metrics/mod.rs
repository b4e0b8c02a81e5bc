//! Measures of generated images: feature extractors, and pure functions of features.

pub mod authenticity;
pub mod classifier;
pub mod cmmd;
pub mod collect;
pub mod frechet;
mod growing;
pub mod inception;
pub mod inception_score;
pub mod infinity;
pub mod kid;
pub mod manifold;
pub mod memorisation;
pub mod metric;
pub mod mind;
pub mod npz;
mod pairs;
pub mod reference;
pub mod resize;
pub mod scores;
pub mod vit;
pub mod weights;

use candle_core::{Device, Tensor};

use crate::data::source::{Picture, pictures};
use crate::error::Result;

/// Images an extractor sees at a time.
pub const BATCH: usize = 250;

/// A network that turns images into features and class logits.
pub trait Extractor: Send + Sync {
    /// Name in result rows; it says what the network was trained on.
    fn id(&self) -> &str;
    /// SHA-256 of the weights that features depend on.
    fn weights_sha256(&self) -> &str;
    /// SHA-256 of those that logits depend on: `FEATURES+HEAD` where the last layer is of a file of its own.
    fn logits_sha256(&self) -> &str {
        self.weights_sha256()
    }
    /// How images are brought to its input size, in result rows.
    fn resize(&self) -> &'static str;
    /// Width of the features.
    fn dim(&self) -> usize;
    /// Number of classes; `None` where there is no last layer, and so no Inception Score.
    fn classes(&self) -> Option<usize>;
    /// Features `[N, dim]` and, with a last layer, logits `[N, classes]` of 8-bit images, on the CPU.
    ///
    /// # Errors
    /// When the images do not fit.
    fn extract(&self, pictures: &[Picture]) -> Result<Features>;

    /// The same of bytes `[N, side, side, 3]`, wherever they are; the features are where the extractor computes.
    ///
    /// # Errors
    /// As for [`Extractor::extract`].
    fn extract_bytes(&self, images: &Tensor) -> Result<Features> {
        let (_, side, _, _) = images.dims4()?;
        let pixels: Vec<u8> = images.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
        self.extract(&pictures(&pixels, side))
    }
}

/// What an extractor makes of a batch.
pub struct Features {
    /// `[N, dim]`, f32.
    pub features: Tensor,
    /// `[N, classes]`, f32.
    pub logits: Option<Tensor>,
    /// What sFID compares, f32, where it was asked for: see [`inception::Inception::with_spatial`].
    pub spatial: Option<Tensor>,
}
