//! Evaluation of a generator as a stream: memory does not grow with the number of images.

use candle_core::{Device, Tensor};

use crate::data::source::pictures;
use crate::data::to_bytes;
use crate::error::Result;
use crate::generators::{Generator, LATENT, Mode};
use crate::metrics::frechet::{FeatureSums, Gaussian, distance};
use crate::metrics::inception_score::{ProbabilitySums, Score};
use crate::metrics::{BATCH, Extractor};
use crate::rng::Stream;

/// What an evaluation measures.
#[derive(Clone, Copy, Debug)]
pub struct Scores {
    /// Fréchet distance to the reference.
    pub fid: f64,
    /// Inception Score.
    pub inception: Score,
}

/// How images are generated.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Images.
    pub images: usize,
    /// Images at a time.
    pub batch: usize,
    /// Statistics of batch normalisation.
    pub mode: Mode,
    /// Seed of the latents, which are the same at every evaluation of a run.
    pub seed: u64,
}

/// Latents `[n, 128]` of a named stream.
///
/// # Errors
/// When the device refuses the memory.
pub fn latents(seed: u64, purpose: &str, step: u64, n: usize, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_vec(Stream::new(seed, purpose, step).normals(n * LATENT), (n, LATENT), device)?)
}

/// Scores a generator against a reference; `progress` hears of the images done.
///
/// # Errors
/// When the generator or the extractor fails.
pub fn evaluate(
    generator: &Generator,
    extractor: &dyn Extractor,
    reference: &Gaussian,
    sampling: Sampling,
    progress: &mut dyn FnMut(usize),
) -> Result<Scores> {
    let mut features = FeatureSums::new(extractor.dim())?;
    let mut probabilities = ProbabilitySums::new(sampling.images, extractor.classes());
    let device = generator.params.flat().device().clone();
    let stride = generator.side * generator.side * 3;
    let (mut done, mut batch) = (0, 0);
    while done < sampling.images {
        let z = latents(sampling.seed, "evaluation/latents", batch, sampling.batch, &device)?;
        let mut pixels = to_bytes(&generator.images(&z, sampling.mode)?)?;
        // The last batch is generated whole, so that batch statistics are always those of a full batch.
        pixels.truncate((sampling.images - done).min(sampling.batch) * stride);
        for part in pixels.chunks(BATCH * stride) {
            let of = extractor.extract(&pictures(part, generator.side))?;
            features.add(&of.features)?;
            probabilities.add(&of.logits)?;
        }
        done += pixels.len() / stride;
        batch += 1;
        progress(done);
    }
    Ok(Scores { fid: distance(reference, &features.finish()?)?, inception: probabilities.finish()? })
}
