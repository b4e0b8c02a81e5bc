//! An experiment: YAML as written, checked as a whole, then resolved into cells (architecture × method × seed).
//!
//! A file has one base layer and named scales that overlay it; `--set` overlays both. [`read`] checks every layer with the
//! same rules and reports all faults at once; [`Experiment::resolve`] merges them.

mod cell;
mod keys;
mod kind;
mod read;
mod reader;
mod schedule;
pub mod schema;

use std::collections::BTreeMap;

use yaml_serde::{Mapping, Value};

use self::keys::{EVAL, Selection};
use self::reader::{Faults, NOWHERE, Otherwise, Section, UNSAID};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::methods;

pub use cell::{Cell, Change};
pub use keys::{EXTRACTORS, Eval, ExtractorKind, LrDecay, MODES, Train, WEIGHTS, Weights};
pub use schedule::{Average, Schedule};

/// The scale at which the experiments of this repository have the paper's settings.
pub const FULL: &str = "full";
/// What that scale is called once `--set` has changed its settings.
pub const MODIFIED: &str = "full-modified";
/// Most cells of an experiment.
const MOST_CELLS: usize = 100_000;

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
    architectures: Vec<String>,
    scales: Vec<String>,
    /// The file.
    value: Value,
    /// What `--set` lays over it.
    set: Value,
    /// Whether `set` changes how networks are trained or evaluated, not only which cells there are.
    modified: bool,
}

/// Puts a setting in the place of what was there.
fn replace(all: &mut Mapping, key: &Value, value: &Value) {
    all.insert(key.clone(), value.clone());
}

/// Changes what was there: of a mapping the keys that are given.
fn change(all: &mut Mapping, key: &Value, value: &Value) {
    match (all.get_mut(key), value) {
        (Some(Value::Mapping(all)), Value::Mapping(of)) => of.iter().for_each(|(k, v)| change(all, k, v)),
        _ => replace(all, key, value),
    }
}

impl Experiment {
    /// Checks the text of a file, named `file` in messages; `set` are `path=value` overlays.
    ///
    /// # Errors
    /// With all faults at once.
    pub fn parse(file: &str, text: &str, set: &[String]) -> Result<Self> {
        read::experiment(file, text, set)
    }

    /// Names of the scales.
    pub fn scales(&self) -> Vec<&str> {
        self.scales.iter().map(String::as_str).collect()
    }

    /// The cells at a scale, seeds outermost and methods innermost: a whole comparison stands before the next seed begins.
    ///
    /// # Errors
    /// When the scale is unknown or a setting is given nowhere.
    pub fn resolve(&self, scale: &str) -> Result<Vec<Cell>> {
        if !self.scales.iter().any(|name| name == scale) {
            return Err(Error::invalid(format!(
                "unknown scale `{scale}`; {} has: {}",
                self.name,
                self.scales().join(", ")
            )));
        }
        let faults = Faults::default();
        let selection = self.merged(scale, &[&[]]);
        let selection = Selection::read(&Section::new("", &selection, &faults), NOWHERE);
        let mut settings = Vec::new();
        for arch in &self.architectures {
            let train = self.merged(scale, &[&["train"], &["architectures", arch]]);
            let mut eval = self.merged(scale, &[&["eval"]]);
            if let Value::Mapping(eval) = &mut eval {
                for key in EVAL {
                    if let Otherwise::Train(of) = key.otherwise
                        && let Some(value) = train.get(of)
                    {
                        eval.entry(key.name.into()).or_insert_with(|| value.clone());
                    }
                }
            }
            let train = Train::read(&Section::new(&format!("architectures.{arch}"), &train, &faults), NOWHERE);
            let eval = Eval::read(&Section::new("eval", &eval, &faults), NOWHERE);
            if let (Some(train), Some(eval)) = (train, eval) {
                settings.push((arch, train, eval));
            }
        }
        let (methods, seeds) = selection.map_or_else(Default::default, |of| (of.methods, of.seeds));
        let n = seeds.len().saturating_mul(methods.len()).saturating_mul(settings.len());
        if n > MOST_CELLS {
            return Err(Error::invalid(format!(
                "{} at scale {scale} has {n} cells, more than {MOST_CELLS}",
                self.name
            )));
        }
        let mut cells = Vec::new();
        for &seed in &seeds {
            for (arch, train, eval) in &settings {
                for method in &methods {
                    let choice = methods::require(method)?;
                    let augment = train.augment.filter(|of| of.ends() != [0.0; 2]);
                    if augment.is_some() && (choice.consistency || choice.method.penalty().is_some()) {
                        faults.say(
                            &format!("architectures.{arch}.augment"),
                            &format!("{method} takes no augmentation; leave it out, or set augment to 0"),
                        );
                    }
                    let gamma = train.gamma.filter(|_| choice.zero_centred.is_some());
                    let gamma_path = format!("architectures.{arch}.gamma");
                    if choice.zero_centred.is_some() && gamma.is_none() {
                        faults.say(&format!("{gamma_path}, which {method} needs"), UNSAID);
                    }
                    if gamma.is_some_and(|of| of.ends() == [0.0; 2]) {
                        let message = format!(
                            "the penalty of {method} has the weight 0, and is none: raise gamma, or leave {method} out"
                        );
                        faults.say(&gamma_path, &message);
                    }
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
        let mut faults = faults.into_inner();
        if !faults.is_empty() {
            faults.sort();
            faults.dedup();
            return Err(Error::Config { file: format!("{} at scale {scale}", self.name), faults });
        }
        Ok(cells)
    }

    /// The settings at paths of every layer, later ones over earlier ones: of the file, of the scale, of `--set`, which also changes
    /// parts of a setting.
    fn merged(&self, scale: &str, paths: &[&[&str]]) -> Value {
        let mut all = Mapping::new();
        let at_scale = self.value.get("scales").and_then(|scales| scales.get(scale));
        let layers: [(_, fn(&mut _, &_, &_)); 3] =
            [(Some(&self.value), replace), (at_scale, replace), (Some(&self.set), change)];
        for (layer, lay) in layers {
            for path in paths {
                let of = layer.and_then(|layer| path.iter().try_fold(layer, |value, key| value.get(*key)));
                if let Some(Value::Mapping(of)) = of {
                    of.iter().for_each(|(key, value)| lay(&mut all, key, value));
                }
            }
        }
        Value::Mapping(all)
    }
}

/// Keeps the cells that filters such as `method=gn,pgn,seed=0` name: several values of a key, there or in another filter, are
/// alternatives.
///
/// # Errors
/// When a key is unknown or no cell has a value.
pub fn only(cells: Vec<Cell>, filters: &[String]) -> Result<Vec<Cell>> {
    let of = |key: &str, cell: &Cell| match key {
        "arch" => Some(cell.arch.clone()),
        "method" => Some(cell.method.clone()),
        "seed" => Some(cell.seed.to_string()),
        _ => None,
    };
    let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut faults = Vec::new();
    for filter in filters {
        let mut last = None;
        for part in filter.split(',').map(str::trim) {
            let mut fault = |why: String| faults.push(format!("  --only {filter:?}: {why}"));
            let (key, value) = match (part.split_once('='), last) {
                (Some((key, value)), _) => (key.trim_end(), value.trim_start()),
                (None, Some(key)) => (key, part),
                (None, None) => {
                    fault("expected KEY=VALUE,… with a key of arch, method, seed".into());
                    continue;
                }
            };
            last = Some(key);
            let mut there: Vec<String> = Vec::new();
            for value in cells.iter().filter_map(|cell| of(key, cell)) {
                if !there.contains(&value) {
                    there.push(value);
                }
            }
            if there.is_empty() {
                fault(format!("unknown key `{key}`; known: arch, method, seed"));
            } else if there.iter().all(|t| t != value) {
                fault(format!("no cell has the {key} `{value}`; there are: {}", there.join(", ")));
            } else {
                wanted.entry(key).or_default().push(value);
            }
        }
    }
    if let (Some(cell), false) = (cells.first(), faults.is_empty()) {
        return Err(Error::Config { file: format!("{} at scale {}", cell.experiment, cell.scale), faults });
    }
    let is_wanted =
        |cell: &Cell| wanted.iter().all(|(key, values)| of(key, cell).is_some_and(|v| values.contains(&v.as_str())));
    Ok(cells.into_iter().filter(is_wanted).collect())
}
