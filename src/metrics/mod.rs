//! Measures of generated images: feature extractors, the Fréchet distance and the Inception Score.

pub mod classifier;
pub mod frechet;
pub mod inception;
pub mod inception_score;
pub mod kid;
pub mod manifold;
pub mod npz;

use candle_core::Tensor;

use crate::data::Images;
use crate::data::source::{Picture, pictures};
use crate::error::Result;
use frechet::{FeatureSums, Gaussian};

/// Images an extractor sees at a time.
pub const BATCH: usize = 250;

/// A network that turns images into features and class logits.
pub trait Extractor: Send + Sync {
    /// Name in result rows; it says what the network was trained on.
    fn id(&self) -> &str;
    /// SHA-256 of its weights.
    fn weights_sha256(&self) -> &str;
    /// How images are brought to its input size, in result rows.
    fn resize(&self) -> &'static str;
    /// Width of the features.
    fn dim(&self) -> usize;
    /// Number of classes.
    fn classes(&self) -> usize;
    /// Features `[N, dim]` and logits `[N, classes]` of 8-bit images.
    ///
    /// # Errors
    /// When the images do not fit.
    fn extract(&self, pictures: &[Picture]) -> Result<Features>;
}

/// What an extractor makes of a batch.
pub struct Features {
    /// `[N, dim]`, f32.
    pub features: Tensor,
    /// `[N, classes]`, f32.
    pub logits: Tensor,
}

/// The Gaussian of a whole split's features: a reference for the Fréchet distance.
///
/// # Errors
/// When the extractor fails.
pub fn reference(extractor: &dyn Extractor, images: &Images) -> Result<Gaussian> {
    let mut sums = FeatureSums::new(extractor.dim())?;
    for pixels in images.pixels.chunks(BATCH * images.stride()) {
        sums.add(&extractor.extract(&pictures(pixels, images.side))?.features)?;
    }
    sums.finish()
}
