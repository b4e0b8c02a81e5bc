//! Evaluation of a generator as a stream: memory does not grow with the number of images.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::instrument::Instrument;
use crate::config::{Cell, Metric};
use crate::data::Images;
use crate::data::rounded::rounded;
use crate::data::source::Order;
use crate::error::{Error, Result};
use crate::generators::Generator;
use crate::interrupt;
use crate::machine::compute::Compute;
use crate::metrics::collect::{Collected, Collector, KEPT, Needs, keeps};
use crate::metrics::frechet::Reference;
use crate::metrics::inception_score::Score;
use crate::metrics::kid::{self, Kid};
use crate::metrics::manifold::{Manifold, manifold};
use crate::metrics::{BATCH, Extractor, reference};

/// Subsets of the KID, and the most images of one (Bińkowski et al. 2018).
const SUBSETS: [usize; 2] = [100, 1000];
/// Neighbours that reach of precision and recall (Kynkäänniemi et al. 2019).
const NEIGHBOURS: usize = 3;

/// What all cells of an experiment share.
pub struct Bench {
    /// Training images.
    pub train: Arc<Images>,
    /// Feature extractor.
    pub extractor: Box<dyn Extractor>,
    /// Features of the reference split.
    pub reference: Reference,
    /// Features of some of its images, where a metric needs them.
    pub reference_features: Option<Tensor>,
    /// What rows say of it.
    pub instrument: Instrument,
    /// Where networks live.
    pub compute: Compute,
}

/// What an evaluation measured.
#[derive(Clone, Copy, Debug)]
pub struct Scores {
    /// Fréchet distance to the reference.
    pub fid: f64,
    /// Inception Score.
    pub inception: Option<Score>,
    /// Kernel Inception Distance.
    pub kid: Option<Kid>,
    /// Precision, recall, density, coverage.
    pub manifold: Option<Manifold>,
    /// Bootstrap standard errors of the distances, where asked for.
    pub errors: Errors,
}

/// Standard errors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Errors {
    /// Of the Fréchet distance.
    pub fid: Option<f64>,
    /// Of the Kernel Inception Distance.
    pub kid: Option<f64>,
}

/// Features that KID, precision and recall see of each side: as many as both have, 10,000 at most.
pub fn kept(cell: &Cell, reference_images: usize) -> usize {
    let one_by_one = cell.eval.metrics.iter().any(|m| matches!(m, Metric::Kid | Metric::Pr));
    if one_by_one { cell.eval.images.min(reference_images).min(KEPT) } else { 0 }
}

impl Bench {
    /// Checks that the extractor serves the metrics of a cell, then takes the reference's statistics or finds them in the
    /// cache; `progress` hears of the images done.
    ///
    /// # Errors
    /// When the extractor has no class logits for an Inception Score, or fails, or the cache does.
    pub fn new(
        cell: &Cell,
        train: Arc<Images>,
        reference_split: &Images,
        extractor: Box<dyn Extractor>,
        compute: &Compute,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        if cell.eval.metrics.contains(&Metric::Is) && extractor.classes().is_none() {
            return Err(Error::invalid(format!(
                "{} has no `fc.weight`, which the Inception Score needs: give a file with it as --head, or leave `is` out \
                 of eval.metrics",
                extractor.id()
            )));
        }
        let n = reference_split.len();
        let all = (n, Order::File);
        let of = reference::statistics(extractor.as_ref(), reference_split, all, kept(cell, n), progress)?;
        let Some(gaussian) = of.gaussian else { return Err(Error::invalid("the reference has no statistics")) };
        Ok(Self {
            train,
            instrument: Instrument::new(Some(extractor.as_ref()), reference_split, compute),
            extractor,
            reference: Reference::new(&gaussian)?,
            reference_features: of.kept,
            compute: compute.clone(),
        })
    }
}

/// Generates the images of an evaluation, rounded to 8 bits, `[n, side, side, 3]` at a time. The latents are the same at
/// every evaluation of a run.
///
/// # Errors
/// When the generator or `each` fails.
pub fn generate(generator: &Generator, cell: &Cell, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let on_host = |bytes: &Tensor| bytes.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<u8>();
    generated(generator, cell, 1, |bytes| each(&on_host(bytes)?))
}

/// As [`generate`]; the bytes stay where the generator is, batch by batch until there are `enough` of them.
fn generated(
    generator: &Generator,
    cell: &Cell,
    enough: usize,
    mut each: impl FnMut(&Tensor) -> Result<()>,
) -> Result<()> {
    let eval = &cell.eval;
    let (mut left, mut waiting, mut images) = (eval.images, Vec::new(), 0);
    for batch in 0.. {
        if left == 0 {
            break;
        }
        let latents = generator.latents(cell.seed, "evaluation/latents", batch, eval.batch)?;
        let bytes = rounded(&generator.images(&latents, eval.batch_norm)?)?;
        // The last batch is generated whole, so that batch statistics are always those of a full batch.
        let n = left.min(eval.batch);
        waiting.push(bytes.narrow(0, 0, n)?);
        left -= n;
        images += n;
        if images >= enough || left == 0 {
            each(&Tensor::cat(&waiting, 0)?)?;
            waiting.clear();
            images = 0;
        }
    }
    Ok(())
}

/// Scores a generator as the cell says; `bootstrap` replicates give standard errors, 0 none. `progress` hears of the images
/// done.
///
/// # Errors
/// When the generator or the extractor fails, or a signal asks for the end.
pub fn evaluate(
    generator: &Generator,
    cell: &Cell,
    bench: &Bench,
    bootstrap: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Scores> {
    let metrics = &cell.eval.metrics;
    let kept = kept(cell, bench.instrument.reference_images);
    let keep = if bootstrap > 0 { cell.eval.images } else { kept };
    let classes = bench.extractor.classes().filter(|_| metrics.contains(&Metric::Is));
    let needs = Needs { gaussian: true, classes, keep };
    let mut collector = Collector::new(cell.eval.images, bench.extractor.dim(), needs)?;
    // A device takes large batches; the CPU's are as they come, for they decide the last bits of sums.
    let [enough, most] = if bench.compute.is_machine() { [BATCH, 2 * BATCH] } else { [1, BATCH] };
    let mut done = 0;
    generated(generator, cell, enough, |bytes| {
        let n = bytes.dim(0)?;
        for first in (0..n).step_by(most) {
            let part = bytes.narrow(0, first, most.min(n - first))?;
            collector.add(&bench.extractor.extract_bytes(&part)?)?;
            done += part.dim(0)?;
            progress(done);
            if interrupt::requested().is_some() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    })?;
    let Collected { gaussian, inception, kept: features } = collector.finish()?;
    let fid = gaussian.map(|g| bench.reference.distance(&g)).transpose()?.unwrap_or(f64::NAN);
    let mut scores = Scores { fid, inception, kid: None, manifold: None, errors: Errors::default() };
    let Some(features) = features else { return Ok(scores) };
    if bootstrap > 0 {
        scores.errors.fid = Some(bench.reference.bootstrap(&features, bootstrap, cell.seed, &mut || ())?);
    }
    let Some(real) = &bench.reference_features else { return Ok(scores) };
    let some = spread(&features, kept)?;
    if metrics.contains(&Metric::Kid) {
        let size = SUBSETS[1].min(some.dim(0)?).min(real.dim(0)?);
        scores.kid = Some(kid::over_subsets(real, &some, SUBSETS[0], size, cell.seed)?);
        if bootstrap > 0 {
            scores.errors.kid = Some(kid::bootstrap(real, &some, bootstrap, cell.seed)?);
        }
    }
    if metrics.contains(&Metric::Pr) {
        scores.manifold = Some(manifold(real, &some, NEIGHBOURS)?);
    }
    Ok(scores)
}

/// The rows that a [`Collector`] would have kept of so many.
fn spread(features: &Tensor, keep: usize) -> Result<Tensor> {
    let n = features.dim(0)?;
    if n <= keep {
        return Ok(features.clone());
    }
    let rows: Vec<u32> = (0..n).filter(|&i| keeps(i, keep, n)).map(|i| i as u32).collect();
    Ok(features.index_select(&Tensor::new(rows, features.device())?, 0)?)
}
