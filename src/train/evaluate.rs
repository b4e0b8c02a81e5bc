//! Evaluation of a generator as a stream: memory does not grow with the number of images.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::instrument::Instrument;
use crate::config::{Cell, ExtractorKind};
use crate::data::Images;
use crate::data::rounded::rounded;
use crate::data::source::Order;
use crate::error::{Error, Result};
use crate::generators::{Generator, Restriction};
use crate::interrupt;
use crate::machine::compute::Compute;
use crate::metrics::collect::{Collected, Collector, KEPT};
use crate::metrics::scores::{Comparison, Family, Measure, Metric, SUBSETS, Score, Settings, needs};
use crate::metrics::{BATCH, Extractor, reference};

/// Neighbours that reach of precision and recall (Kynkäänniemi et al. 2019).
const NEIGHBOURS: usize = 3;

/// An extractor, what is measured over it, and what it makes of the reference.
pub struct Part {
    family: Family,
    measures: Vec<Measure>,
    /// The extractor.
    pub extractor: Box<dyn Extractor>,
    reference: Collected,
    /// What rows say of it.
    pub instrument: Instrument,
}

/// What all cells of an experiment share.
pub struct Bench {
    /// Training images.
    pub train: Arc<Images>,
    /// Extractors; the first is that of the Fréchet distance that ranks.
    parts: Vec<Part>,
    /// Where networks live.
    pub compute: Compute,
}

/// A number, and what it was measured with.
#[derive(Clone, Debug)]
pub struct Measured<'a> {
    /// The number.
    pub score: Score,
    /// Extractor, reference and device.
    pub instrument: &'a Instrument,
}

/// The extractors that a cell's metrics need, with the measures of each, that of the Fréchet distance that ranks first.
///
/// # Errors
/// When no extractor of the cell's gives what a metric needs.
pub fn families(cell: &Cell) -> Result<Vec<(Family, Vec<Measure>)>> {
    let mut families: Vec<(Family, Vec<Measure>)> = Vec::new();
    for metric in std::iter::once(&Metric::FID).chain(cell.eval.metrics.iter().filter(|m| **m != Metric::FID)) {
        match families.iter_mut().find(|(family, _)| *family == metric.family) {
            Some((_, measures)) if measures.contains(&metric.measure) => {}
            Some((_, measures)) => measures.push(metric.measure),
            None => families.push((metric.family, vec![metric.measure])),
        }
    }
    let is_spatial = cell.eval.extractor == ExtractorKind::Inception;
    if !is_spatial && families.iter().any(|(_, measures)| measures.contains(&Measure::Sfid)) {
        return Err(Error::invalid(
            "eval.metrics: sfid is of Inception's spatial features, which the classifier has not: leave it out, or set \
             eval.extractor to inception",
        ));
    }
    Ok(families)
}

/// Of measures that see features one by one, as many a side as both have, 10,000 at most.
fn settings(cell: &Cell, reference_images: usize, bootstrap: usize) -> Settings {
    let [subsets, size] = SUBSETS;
    let most = cell.eval.images.min(reference_images).min(KEPT);
    Settings { neighbours: NEIGHBOURS, subsets, size, most, bootstrap, seed: cell.seed }
}

impl Bench {
    /// Checks that the extractors, in the order of [`families`], serve the metrics of a cell, then takes the reference's statistics or
    /// finds them in the cache; `progress` hears of the images done.
    ///
    /// # Errors
    /// When an extractor does not give what a metric needs, or fails, or the cache does.
    pub fn new(
        cell: &Cell,
        train: Arc<Images>,
        reference: &Images,
        extractors: Vec<Box<dyn Extractor>>,
        compute: &Compute,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let families = families(cell)?;
        for ((_, measures), extractor) in families.iter().zip(&extractors) {
            if measures.iter().any(|m| m.is_of_one()) && extractor.classes().is_none() {
                return Err(Error::invalid(format!(
                    "{} has no `fc.weight`, which the Inception Score needs: give a file with it as --head, or leave `is` and `is-inf` \
                     out of eval.metrics",
                    extractor.id()
                )));
            }
        }
        let n = reference.len();
        let settings = settings(cell, n, 0);
        let mut parts = Vec::new();
        for ((family, measures), extractor) in families.into_iter().zip(extractors) {
            let needs = needs(&measures, false, None, &settings);
            let instrument = Instrument::new(Some(extractor.as_ref()), reference, compute);
            let reference =
                reference::statistics(extractor.as_ref(), reference, (n, Order::File), needs, &mut *progress)?;
            parts.push(Part { family, measures, extractor, reference, instrument });
        }
        if parts.is_empty() {
            return Err(Error::invalid("an evaluation needs an extractor"));
        }
        Ok(Self { train, parts, compute: compute.clone() })
    }

    /// That of the Fréchet distance that ranks.
    pub fn first(&self) -> &Part {
        &self.parts[0]
    }

    /// Whether rows with this SHA-256 of an extractor's weights are of one of the extractors.
    pub fn measures_with(&self, extractor_sha256: &str) -> bool {
        self.parts.iter().any(|part| {
            let Instrument { extractor_sha256: features, logits_sha256: logits, .. } = &part.instrument;
            [features, logits].iter().any(|sha256| *sha256 == extractor_sha256)
        })
    }

    /// What rows say of it.
    pub fn instrument(&self) -> &Instrument {
        &self.parts[0].instrument
    }
}

/// Generates the images of an evaluation, rounded to 8 bits, `[n, side, side, 3]` at a time. The latents are the same at
/// every evaluation of a run.
///
/// # Errors
/// When the generator or `each` fails.
pub fn generate(
    generator: &Generator,
    cell: &Cell,
    within: Restriction,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let on_host = |bytes: &Tensor| bytes.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<u8>();
    generated(generator, (cell, within), 1, |bytes| each(&on_host(bytes)?))
}

/// As [`generate`]; the bytes stay where the generator is, batch by batch until there are `enough` of them.
fn generated(
    generator: &Generator,
    (cell, within): (&Cell, Restriction),
    enough: usize,
    mut each: impl FnMut(&Tensor) -> Result<()>,
) -> Result<()> {
    let eval = &cell.eval;
    let (mut left, mut waiting, mut images) = (eval.images, Vec::new(), 0);
    for batch in 0.. {
        if left == 0 {
            break;
        }
        let latents = generator.latents_within(cell.seed, "evaluation/latents", (batch, eval.batch), within)?;
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
pub fn evaluate<'a>(
    generator: &Generator,
    cell: &Cell,
    bench: &'a Bench,
    bootstrap: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Measured<'a>>> {
    let settings = settings(cell, bench.instrument().reference_images, bootstrap);
    let collector = |part: &Part| {
        let needs = needs(&part.measures, true, part.extractor.classes(), &settings);
        Collector::new(cell.eval.images, part.extractor.dim(), needs)
    };
    let mut collectors = bench.parts.iter().map(collector).collect::<Result<Vec<_>>>()?;
    // A device takes large batches; the CPU's are as they come, for they decide the last bits of sums.
    let [enough, most] = if bench.compute.is_machine() { [BATCH, 2 * BATCH] } else { [1, BATCH] };
    let mut done = 0;
    generated(generator, (cell, Restriction::default()), enough, |bytes| {
        let n = bytes.dim(0)?;
        for first in (0..n).step_by(most) {
            let some = bytes.narrow(0, first, most.min(n - first))?;
            for (part, collector) in bench.parts.iter().zip(&mut collectors) {
                collector.add(&part.extractor.extract_bytes(&some)?)?;
            }
            done += some.dim(0)?;
            progress(done);
            if interrupt::requested().is_some() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    })?;
    let mut all = Vec::new();
    for (part, collector) in bench.parts.iter().zip(collectors) {
        let collected = collector.finish()?;
        let comparison = Comparison::new(part.family, Some(&part.reference), &collected, settings);
        for &measure in &part.measures {
            let scores = comparison.scores(measure, &mut || ())?;
            all.extend(scores.into_iter().map(|score| Measured { score, instrument: &part.instrument }));
        }
    }
    Ok(all)
}
