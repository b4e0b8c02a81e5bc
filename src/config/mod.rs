//! An experiment: YAML as written, checked as a whole, then resolved into cells (architecture × method × seed).
//!
//! A file has one base layer and named scales that overlay it; `--set` overlays both. [`read`] checks every layer with the
//! same rules and reports all faults at once; [`Experiment::resolve`] merges them.

mod cell;
mod read;
mod reader;
mod schedule;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::generators::Mode;
use crate::losses::Loss;
use crate::metrics::inception::resize::Resize;
use crate::metrics::scores::Metric;
use crate::{methods, yaml};

pub use cell::{Cell, Change, Eval, Train};
pub use schedule::{Average, Schedule};

/// The scale at which the experiments of this repository have the paper's settings.
pub const FULL: &str = "full";
/// What that scale is called once `--set` has changed its settings.
const MODIFIED: &str = "full-modified";
/// Most cells of an experiment.
const MOST_CELLS: usize = 100_000;
/// Extractors by name.
pub const EXTRACTORS: [(&str, ExtractorKind); 2] =
    [("classifier", ExtractorKind::Classifier), ("inception", ExtractorKind::Inception)];
/// Generators by name.
pub const WEIGHTS: [(&str, Weights); 2] = [("raw", Weights::Raw), ("ema", Weights::Ema)];
/// Statistics of batch normalisation while evaluating, by name.
pub const MODES: [(&str, Mode); 2] = [("batch", Mode::Batch), ("running", Mode::Running)];

/// Settings of training, each absent where a layer does not mention it.
#[derive(Clone, Debug, Default)]
pub struct TrainLayer {
    steps: Option<u64>,
    critic_steps: Option<u64>,
    critic_batch: Option<usize>,
    generator_batch: Option<usize>,
    critic_lr: Option<Schedule>,
    generator_lr: Option<Schedule>,
    beta1: Option<f64>,
    beta2: Option<Schedule>,
    lr_decay: Option<LrDecay>,
    ema_decay: Option<Average>,
    ema_start: Option<u64>,
    width: Option<f64>,
    loss: Option<Loss>,
    gamma: Option<Schedule>,
    augment: Option<Schedule>,
}

/// Settings of evaluation, likewise.
#[derive(Clone, Debug, Default)]
pub struct EvalLayer {
    every: Option<u64>,
    images: Option<usize>,
    reference: Option<Split>,
    batch_norm: Option<Mode>,
    weights: Option<Vec<Weights>>,
    batch: Option<usize>,
    extractor: Option<ExtractorKind>,
    resize: Option<Resize>,
    metrics: Option<Vec<Metric>>,
}

/// One layer of an experiment.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    methods: Option<Vec<String>>,
    seeds: Option<Vec<u64>>,
    train: TrainLayer,
    architectures: Vec<(String, TrainLayer)>,
    eval: EvalLayer,
}

/// A checked experiment file.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Name: of the results folder, and in every row.
    pub name: String,
    /// What it reproduces.
    pub title: String,
    dataset: Dataset,
    split: Split,
    image_size: usize,
    base: Layer,
    scales: Vec<(String, Layer)>,
    set: Layer,
    /// Whether `set` changes how networks are trained or evaluated, not only which cells there are.
    modified: bool,
}

/// How learning rates move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrDecay {
    /// Not at all.
    None,
    /// Linearly to zero over the run.
    Linear,
}

/// Which generator is evaluated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// The trained one.
    Raw,
    /// The moving average.
    Ema,
}

impl Weights {
    /// The name in result rows.
    pub fn id(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ema => "ema",
        }
    }
}

/// Which network gives the features.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtractorKind {
    /// The small one trained on the data set's own labels: needs no file, compares with nothing published.
    Classifier,
    /// Inception-v3, from the weights that `run` is given or that `fetch inception` left.
    Inception,
}

impl TrainLayer {
    fn overlay(&mut self, over: &Self) {
        macro_rules! take {
            ($($field:ident),*) => { $(if over.$field.is_some() { self.$field = over.$field.clone(); })* };
        }
        take!(steps, critic_steps, critic_batch, generator_batch, critic_lr, generator_lr, beta1, beta2);
        take!(lr_decay, ema_decay, ema_start, width, loss, gamma, augment);
    }
}

impl EvalLayer {
    fn overlay(&mut self, over: &Self) {
        macro_rules! take {
            ($($field:ident),*) => { $(if over.$field.is_some() { self.$field = over.$field.clone(); })* };
        }
        take!(every, images, reference, batch_norm, weights, batch, extractor, resize, metrics);
    }
}

impl Experiment {
    /// Reads and checks a file; `set` are `path=value` overlays.
    ///
    /// # Errors
    /// When the file cannot be read, or with all its faults.
    pub fn read(path: &Path, set: &[String]) -> Result<Self> {
        Self::parse(&path.display().to_string(), &yaml::read(path)?, set)
    }

    /// Checks the text of a file, named `file` in messages.
    ///
    /// # Errors
    /// With all faults at once.
    pub fn parse(file: &str, text: &str, set: &[String]) -> Result<Self> {
        read::experiment(file, text, set)
    }

    /// Names of the scales.
    pub fn scales(&self) -> Vec<&str> {
        self.scales.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The cells at a scale, seeds outermost and methods innermost: a whole comparison stands before the next seed begins.
    ///
    /// # Errors
    /// When the scale is unknown or a setting is given nowhere.
    pub fn resolve(&self, scale: &str) -> Result<Vec<Cell>> {
        let Some((_, at_scale)) = self.scales.iter().find(|(name, _)| name == scale) else {
            return Err(Error::invalid(format!(
                "unknown scale `{scale}`; {} has: {}",
                self.name,
                self.scales().join(", ")
            )));
        };
        let layers = [&self.base, at_scale, &self.set];
        let last = |pick: fn(&Layer) -> bool| layers.iter().rev().copied().find(|l| pick(l));
        let mut faults = Vec::new();
        let mut missing = |what: &str| faults.push(format!("  {what}: not given in the file, the scale or --set"));

        let ids = last(|l| l.methods.is_some()).and_then(|l| l.methods.clone());
        let seeds = last(|l| l.seeds.is_some()).and_then(|l| l.seeds.clone());
        for (what, absent) in [("methods", ids.is_none()), ("seeds", seeds.is_none())] {
            if absent {
                missing(what);
            }
        }
        let mut eval = EvalLayer::default();
        layers.iter().for_each(|l| eval.overlay(&l.eval));
        let mut settings = Vec::new();
        for (arch, _) in &self.base.architectures {
            let mut train = TrainLayer::default();
            for layer in layers {
                train.overlay(&layer.train);
                for (name, over) in &layer.architectures {
                    if name == arch {
                        train.overlay(over);
                    }
                }
            }
            let train = train.complete(&format!("architectures.{arch}"), &mut missing);
            let eval = eval.clone().complete(train.as_ref(), &mut missing);
            if let (Some(train), Some(eval)) = (train, eval) {
                settings.push((arch, train, eval));
            }
        }
        let [n_seeds, n_methods] = [seeds.as_ref().map_or(0, Vec::len), ids.as_ref().map_or(0, Vec::len)];
        let n = n_seeds.saturating_mul(n_methods).saturating_mul(settings.len());
        if n > MOST_CELLS {
            return Err(Error::invalid(format!(
                "{} at scale {scale} has {n} cells, more than {MOST_CELLS}",
                self.name
            )));
        }
        let (mut cells, mut clashes) = (Vec::new(), Vec::new());
        for &seed in seeds.iter().flatten() {
            for (arch, train, eval) in &settings {
                for method in ids.iter().flatten() {
                    let choice = methods::require(method)?;
                    let augment = train.augment.filter(|of| of.ends() != [0.0; 2]);
                    if augment.is_some() && (choice.consistency || choice.method.penalty().is_some()) {
                        clashes.push(format!(
                            "  architectures.{arch}.augment: {method} takes no augmentation; leave it out, or set augment to 0"
                        ));
                    }
                    let penalised = choice.zero_centred.is_some();
                    if penalised && train.gamma.is_none() {
                        missing(&format!("architectures.{arch}.gamma, which {method} needs"));
                    }
                    let gamma = train.gamma.filter(|_| penalised);
                    cells.push(Cell {
                        experiment: self.name.clone(),
                        // What is called full has the file's settings.
                        scale: if self.modified && scale == FULL { MODIFIED } else { scale }.to_owned(),
                        dataset: self.dataset.clone(),
                        split: self.split,
                        image_size: self.image_size,
                        arch: (*arch).clone(),
                        method: method.clone(),
                        seed,
                        train: Train { gamma, augment, ..train.clone() },
                        eval: eval.clone(),
                        changes: Vec::new(),
                    });
                }
            }
        }
        faults.extend(clashes);
        if !faults.is_empty() {
            faults.sort();
            faults.dedup();
            return Err(Error::Config { file: format!("{} at scale {scale}", self.name), faults });
        }
        Ok(cells)
    }
}

impl TrainLayer {
    fn complete(self, path: &str, missing: &mut dyn FnMut(&str)) -> Option<Train> {
        macro_rules! need {
            ($($field:ident),*) => {{
                $(if self.$field.is_none() { missing(&format!("{path}.{}", stringify!($field))); })*
                Some(Train { $($field: self.$field?,)* gamma: self.gamma, augment: self.augment })
            }};
        }
        need!(
            steps,
            critic_steps,
            critic_batch,
            generator_batch,
            critic_lr,
            generator_lr,
            beta1,
            beta2,
            lr_decay,
            ema_decay,
            ema_start,
            width,
            loss
        )
    }
}

impl EvalLayer {
    fn complete(self, train: Option<&Train>, missing: &mut dyn FnMut(&str)) -> Option<Eval> {
        macro_rules! need {
            ($($field:ident),*; $($defaulted:ident: $value:expr),*) => {{
                $(if self.$field.is_none() { missing(concat!("eval.", stringify!($field))); })*
                Some(Eval { $($field: self.$field?,)* $($defaulted: $value),* })
            }};
        }
        need!(
            every, images, reference, batch_norm, weights, extractor;
            // The released code evaluates in batches of the generator's training size.
            batch: self.batch.or(train.map(|t| t.generator_batch))?,
            resize: self.resize.unwrap_or(Resize::Tf),
            metrics: self.metrics.unwrap_or_else(|| vec![Metric::FID, Metric::IS])
        )
    }
}

/// Keeps the cells that a filter such as `method=pgn,seed=0` names.
///
/// # Errors
/// When a key is unknown, or nothing is left.
pub fn only(cells: Vec<Cell>, filters: &[String]) -> Result<Vec<Cell>> {
    let mut kept = cells.clone();
    for filter in filters.iter().flat_map(|f| f.split(',')) {
        let Some((key, value)) = filter.split_once('=') else {
            return Err(Error::invalid(format!(
                "--only {filter}: expected KEY=VALUE with a key of arch, method, seed"
            )));
        };
        let of: fn(&Cell) -> String = match key {
            "arch" => |c| c.arch.clone(),
            "method" => |c| c.method.clone(),
            "seed" => |c| c.seed.to_string(),
            _ => {
                return Err(Error::invalid(format!("--only {filter}: unknown key `{key}`; known: arch, method, seed")));
            }
        };
        kept.retain(|c| of(c) == value);
        if kept.is_empty() {
            let mut there: Vec<String> = cells.iter().map(of).collect();
            there.dedup();
            return Err(Error::invalid(format!(
                "--only {filter}: no cell is left; {key} is one of: {}",
                there.join(", ")
            )));
        }
    }
    Ok(kept)
}
