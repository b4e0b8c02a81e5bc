//! Result rows of what was measured on a run.

use super::checkpoint::Progress;
use super::evaluate::Measured;
use super::instrument::Instrument;
use super::log::Line;
use super::probe::Sample;
use crate::config::{Cell, Change, Weights};
use crate::error::Result;
use crate::generators::Mode;
use crate::losses::Loss;
use crate::methods;
use crate::results::{COST, PEAK, Row, TRACES, metric};

/// Points of a curve between two evaluations.
const STRETCHES: u64 = 20;
/// Half the width of a 95 % interval in standard errors.
const INTERVAL: f64 = 1.96;

/// The 95 % interval of a value with this standard error.
pub fn interval(value: f64, error: f64) -> [f64; 2] {
    [value - INTERVAL * error, value + INTERVAL * error]
}

/// Where numbers come from.
pub struct Origin<'a> {
    /// How the run stands, and what it was trained as.
    progress: &'a Progress,
    /// Hash of that without the seed.
    family: String,
    /// Hash of how it was trained, method and loss excepted.
    settings: String,
    /// The run, its evaluation as it was made.
    cell: &'a Cell,
    /// What it was measured with.
    instrument: &'a Instrument,
}

/// The loss a cell is trained with: its own, unless the method defines one.
///
/// # Errors
/// When the method is unknown.
pub fn loss(cell: &Cell) -> Result<Loss> {
    Ok(methods::require(&cell.method)?.method.loss().unwrap_or(cell.train.loss))
}

impl<'a> Origin<'a> {
    /// Of a run that was evaluated as `cell` says, by an instrument.
    ///
    /// # Errors
    /// Never for a resolved cell.
    pub fn new(progress: &'a Progress, cell: &'a Cell, instrument: &'a Instrument) -> Result<Self> {
        let (family, settings) = (progress.cell.family()?, progress.cell.settings()?);
        Ok(Self { progress, family, settings, cell, instrument })
    }

    fn row(&self, metric: String, value: f64, weights: Weights) -> Result<Row> {
        self.row_of(self.instrument, metric, value, weights)
    }

    fn row_of(&self, instrument: &Instrument, metric: String, value: f64, weights: Weights) -> Result<Row> {
        let cell = self.cell;
        Ok(Row {
            experiment: cell.experiment.clone(),
            scale: cell.scale.clone(),
            dataset: cell.dataset.name(),
            split: cell.split.to_string(),
            image_size: cell.image_size as u64,
            arch: cell.arch.clone(),
            width: cell.train.width,
            method: cell.method.clone(),
            loss: loss(cell)?.id().to_owned(),
            seed: cell.seed,
            step: self.progress.step,
            images_seen: cell.train.images_seen(self.progress.step),
            wall_s: self.progress.train_s,
            metric,
            value,
            std: None,
            low: None,
            high: None,
            n: cell.eval.images as u64,
            extractor: instrument.extractor.clone(),
            extractor_sha256: instrument.extractor_sha256.clone(),
            resize: instrument.resize.clone(),
            reference: cell.eval.reference.to_string(),
            reference_sha256: instrument.reference_sha256.clone(),
            reference_n: None,
            order: None,
            batch_norm: match cell.eval.batch_norm {
                Mode::Batch if cell.eval.batch != self.progress.cell.eval.batch => {
                    format!("batch of {}", cell.eval.batch)
                }
                mode => mode.id().to_owned(),
            },
            weights: weights.id().to_owned(),
            warning: cell.changes.iter().map(Change::to_string).collect::<Vec<_>>().join("; "),
            status: "running".to_owned(),
            code_version: env!("CARGO_PKG_VERSION").to_owned(),
            config_hash: self.progress.config_hash.clone(),
            family: self.family.clone(),
            settings: self.settings.clone(),
            device: instrument.device.clone(),
        })
    }

    /// What training cost, where it is known: seconds a step, and the peak of memory.
    ///
    /// # Errors
    /// When the cell's method is unknown.
    pub fn cost(&self) -> Result<Vec<Row>> {
        let Progress { step, untimed, train_s, peak_bytes, .. } = *self.progress;
        let row = |metric: &str, value: f64| self.row(metric.to_owned(), value, self.cell.eval.weights[0]);
        let timed = step.saturating_sub(untimed);
        let seconds = (timed > 0).then(|| row(COST, train_s / timed as f64)).transpose()?;
        let peak = (peak_bytes > 0).then(|| row(PEAK, peak_bytes as f64)).transpose()?;
        Ok(seconds.into_iter().chain(peak).collect())
    }

    /// The log since the last evaluation as means over [`STRETCHES`] stretches of `every` steps in all.
    ///
    /// # Errors
    /// When the cell's method is unknown.
    pub fn traces(&self, lines: &[Line]) -> Result<Vec<Row>> {
        let stretch = (self.cell.eval.every / STRETCHES).max(1) as usize;
        let mut rows = Vec::new();
        let seconds = |lines: &[Line]| lines.iter().map(|l| l.step_s).sum::<f64>();
        let mut wall_s = self.progress.train_s - seconds(lines);
        for lines in lines.chunks(stretch) {
            let Some(last) = lines.last() else { continue };
            let mean = |of: fn(&Line) -> Option<f64>| {
                let values: Vec<f64> = lines.iter().filter_map(of).collect();
                (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
            };
            let values = [
                mean(|l| Some(l.critic_loss)),
                mean(|l| Some(l.generator_loss)),
                mean(|l| l.input_gradient_norm),
                mean(|l| Some(l.critic_gradient_norm)),
                mean(|l| Some(l.generator_gradient_norm)),
            ];
            wall_s += seconds(lines);
            let images_seen = self.cell.train.images_seen(last.step);
            for (metric, value) in TRACES.iter().zip(values) {
                let Some(value) = value else { continue };
                let row = self.row((*metric).to_owned(), value, Weights::Raw)?;
                rows.push(Row { step: last.step, images_seen, wall_s, n: lines.len() as u64, ..row });
            }
        }
        Ok(rows)
    }

    /// One row a number.
    ///
    /// # Errors
    /// When the cell's method is unknown.
    pub fn rows(&self, weights: Weights, scores: &[Measured]) -> Result<Vec<Row>> {
        let reference = self.cell.eval.reference.to_string();
        let row = |Measured { score, instrument }: &Measured| {
            let n = score.generated;
            let name = metric(&score.name, n, score.real.map(|_| reference.as_str()));
            let row = self.row_of(instrument, name, score.value, weights)?;
            let ends = score.error.map(|error| interval(score.value, error));
            let doubts: Vec<&str> =
                score.warning.into_iter().chain(Some(row.warning.as_str()).filter(|w| !w.is_empty())).collect();
            let sha256 = if score.real.is_some() { &instrument.extractor_sha256 } else { &instrument.logits_sha256 };
            Ok(Row {
                extractor_sha256: sha256.clone(),
                reference_n: score.real.map(|n| n as u64),
                warning: doubts.join("; "),
                std: score.std,
                low: ends.map(|e| e[0]),
                high: ends.map(|e| e[1]),
                n: n as u64,
                ..row
            })
        };
        scores.iter().map(row).collect()
    }

    /// One row a number of [`outlook`](super::probe::outlook).
    ///
    /// # Errors
    /// When the cell's method is unknown.
    pub fn outlook_rows(&self, outlook: &[(&str, [f64; 2])], n: usize) -> Result<Vec<Row>> {
        let sides = outlook.iter().flat_map(|(name, [real, generated])| {
            [(format!("{name}_real"), *real), (format!("{name}_generated"), *generated)]
        });
        sides.map(|(name, value)| Ok(Row { n: n as u64, ..self.row(name, value, Weights::Raw)? })).collect()
    }

    /// One row for the mean, the median, the 99 % quantile and the maximum of each sample of a probe: `gradient_max_real`.
    ///
    /// # Errors
    /// When the cell's method is unknown.
    pub fn probe_rows(&self, samples: &[Sample]) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for sample in samples {
            for (name, value) in [
                ("mean", sample.mean()),
                ("median", sample.quantile(0.5)),
                ("p99", sample.quantile(0.99)),
                ("max", sample.quantile(1.0)),
            ] {
                let metric = format!("{}_{name}_{}", sample.quantity, sample.on);
                rows.push(Row { n: sample.values.len() as u64, ..self.row(metric, value, Weights::Raw)? });
            }
        }
        Ok(rows)
    }
}
