//! The vocabulary of an experiment file.

use std::ops::RangeInclusive;

use yaml_serde::{Mapping, Value};

use super::reader::{Faults, Section, one_of, pick};
use super::{Cell, EXTRACTORS, EvalLayer, Experiment, Layer, LrDecay, MODES, TrainLayer, WEIGHTS};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::losses::Loss;
use crate::metrics::inception::resize::Resize;
use crate::metrics::scores::{METRICS, Metric};
use crate::{critic, data, methods, yaml};

const LOSSES: [(&str, Loss); 4] = [
    ("hinge", Loss::Hinge),
    ("bce", Loss::Bce),
    ("wasserstein", Loss::Wasserstein),
    ("relativistic", Loss::Relativistic),
];

const NAME: &str = "a name of letters, digits, - and _";
const SIDES: RangeInclusive<u64> = 8..=1024;

pub(super) fn experiment(file: &str, text: &str, set: &[String]) -> Result<Experiment> {
    let value =
        yaml::value(text).map_err(|e| Error::Config { file: file.to_owned(), faults: vec![format!("  {e}")] })?;
    let faults = Faults::default();
    let root = Section::new("", &value, &faults);
    let name = root.value("name", NAME, |v| v.as_str().filter(|s| is_name(s)).map(str::to_owned));
    let title = root.text("title").unwrap_or_default();
    let known = data::IDS.join(", ");
    let allowed = format!("one of: {known}; or {{path: PATH}} of images (a folder, Parquet, zip, npz, LMDB)");
    let dataset = root.value("dataset", &allowed, dataset);
    let split = root.choice("split", &Split::ALL).unwrap_or(Split::Train);
    if let Some(known) = dataset.as_ref().map(Dataset::splits).filter(|known| !known.contains(&split)) {
        let known: Vec<String> = known.iter().map(Split::to_string).collect();
        faults.say("split", &format!("the data set has no {split}, only {}", known.join(", ")));
    }
    let image_size = root.size("image_size", SIDES);
    let base = layer(&root, &faults);
    let mut scales = Vec::new();
    if let Some(section) = root.section("scales") {
        for key in section.keys().map(str::to_owned).collect::<Vec<_>>() {
            if !is_name(&key) {
                faults.say(&section.path(&key), "a scale's name has letters, digits, - and _ only");
            }
            if let Some(scale) = section.section(&key) {
                scales.push((key, layer(&scale, &faults)));
                scale.close();
            }
        }
    }
    root.close();
    for (name, _) in base.architectures.iter().filter(|(name, _)| critic::ARCHITECTURES.contains(&name.as_str())) {
        if let Some(side) = image_size.filter(|&side| side != critic::side(name)) {
            let [path, makes] =
                [format!("architectures.{name}"), format!("makes images of {0}×{0}", critic::side(name))];
            faults.say(&path, &format!("{makes} pixels, but image_size is {side}"));
        }
    }
    for (key, absent) in [
        ("name", name.is_none() && !has(&value, "name")),
        ("dataset", dataset.is_none() && !has(&value, "dataset")),
        ("image_size", image_size.is_none() && !has(&value, "image_size")),
        ("architectures", base.architectures.is_empty() && !has(&value, "architectures")),
        ("scales", scales.is_empty() && !has(&value, "scales")),
    ] {
        if absent {
            faults.say(key, "is missing");
        }
    }
    let settings = ["train", "eval", "architectures"];
    let modified = set.iter().any(|s| s.split(['.', '=']).next().is_some_and(|first| settings.contains(&first)));
    let set_value = overlay_value(set, &faults);
    let set_root = Section::new("--set ", &set_value, &faults);
    let set = layer(&set_root, &faults);
    set_root.close();

    let faults = faults.into_inner();
    match (name, dataset, image_size, faults.is_empty()) {
        (Some(name), Some(dataset), Some(image_size), true) => {
            Ok(Experiment { name, title, dataset, split, image_size, base, scales, set, modified })
        }
        _ => Err(Error::Config { file: file.to_owned(), faults }),
    }
}

/// Faults of a cell that was read from a file: it obeys the rules of an experiment's.
pub(super) fn faults(cell: &Cell) -> yaml_serde::Result<Vec<String>> {
    let value = yaml_serde::to_value(cell)?;
    let faults = Faults::default();
    let root = Section::new("", &value, &faults);
    for key in ["experiment", "scale"] {
        root.value(key, NAME, |v| v.as_str().filter(|s| is_name(s)).map(drop));
    }
    root.size("image_size", SIDES);
    let known = critic::ARCHITECTURES.join(", ");
    root.value("arch", &known, |v| v.as_str().filter(|s| critic::ARCHITECTURES.contains(s)).map(drop));
    if critic::side(&cell.arch) != cell.image_size {
        faults.say("image_size", &format!("{} makes images of {1}×{1} pixels", cell.arch, critic::side(&cell.arch)));
    }
    root.value("method", &methods::ids().join(", "), |v| v.as_str().and_then(|s| methods::require(s).ok()).map(drop));
    if let Dataset::Known(id) = &cell.dataset
        && !data::IDS.contains(&id.as_str())
    {
        faults.say("dataset", &format!("{id} is not one of: {}", data::IDS.join(", ")));
    }
    root.section("train").map(|s| train(&s));
    root.section("eval").map(|s| eval(&s));
    Ok(faults.into_inner())
}

/// A known data set, or where one is.
fn dataset(value: &Value) -> Option<Dataset> {
    if let Some(id) = value.as_str() {
        return data::IDS.contains(&id).then(|| Dataset::Known(id.to_owned()));
    }
    let (kind, path) = value.as_mapping().filter(|m| m.len() == 1)?.iter().next()?;
    let kind = kind.as_str().filter(|kind| ["path", "folder", "parquet", "lmdb"].contains(kind));
    kind.and(path.as_str()).map(|path| Dataset::Elsewhere { path: path.into() })
}

fn has(value: &Value, key: &str) -> bool {
    value.get(key).is_some()
}

/// Names end up in paths.
fn is_name(s: &str) -> bool {
    !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// `a.b=1` as the mapping `{a: {b: 1}}`.
fn overlay_value(set: &[String], faults: &Faults) -> Value {
    let mut root = Mapping::new();
    for item in set {
        let Some((path, text)) = item.split_once('=') else {
            faults.say(&format!("--set {item}"), "expected PATH=VALUE, such as train.steps=1000");
            continue;
        };
        let value: Value = match yaml_serde::from_str(text) {
            Ok(value) => value,
            Err(e) => {
                faults.say(&format!("--set {item}"), &format!("the value is not YAML: {e}"));
                continue;
            }
        };
        let keys: Vec<&str> = path.split('.').collect();
        if !insert(&mut root, &keys, value) {
            faults.say(&format!("--set {item}"), "a part of the path was already given a value");
        }
    }
    Value::Mapping(root)
}

/// Whether every part of the path before the last is a mapping, and the last none that would be lost.
fn insert(map: &mut Mapping, path: &[&str], value: Value) -> bool {
    match path {
        [] => false,
        [last] => !matches!(map.insert(Value::from(*last), value), Some(Value::Mapping(_))),
        [first, rest @ ..] => match map.entry(Value::from(*first)).or_insert_with(|| Value::Mapping(Mapping::new())) {
            Value::Mapping(next) => insert(next, rest, value),
            _ => false,
        },
    }
}

fn layer(section: &Section, faults: &Faults) -> Layer {
    let ids = methods::ids();
    let known = format!("one of: {}", ids.join(", "));
    let method = |v: &Value| v.as_str().filter(|s| ids.iter().any(|id| id == s)).map(str::to_owned);
    let mut architectures = Vec::new();
    if let Some(section) = section.section("architectures") {
        for key in section.keys().map(str::to_owned).collect::<Vec<_>>() {
            if !critic::ARCHITECTURES.contains(&key.as_str()) {
                let known = critic::ARCHITECTURES.join(", ");
                faults.say(&section.path(&key), &format!("unknown architecture; known: {known}"));
            }
            if let Some(s) = section.section(&key) {
                architectures.push((key, train(&s)));
                s.close();
            }
        }
    }
    Layer {
        methods: section.list("methods", &known, method),
        seeds: section.list("seeds", "a whole number", Value::as_u64),
        train: section.section("train").map(closed(train)).unwrap_or_default(),
        architectures,
        eval: section.section("eval").map(closed(eval)).unwrap_or_default(),
    }
}

fn closed<T>(read: fn(&Section) -> T) -> impl Fn(Section) -> T {
    move |section| {
        let out = read(&section);
        section.close();
        out
    }
}

fn train(s: &Section) -> TrainLayer {
    TrainLayer {
        steps: s.integer("steps", 1..=u64::MAX),
        critic_steps: s.integer("critic_steps", 1..=100),
        critic_batch: s.size("critic_batch", 1..=65_536),
        generator_batch: s.size("generator_batch", 2..=65_536),
        critic_lr: s.schedule("critic_lr", 1e-9..=1.0),
        generator_lr: s.schedule("generator_lr", 1e-9..=1.0),
        beta1: s.number("beta1", 0.0..=0.999_999),
        beta2: s.schedule("beta2", 0.0..=0.999_999),
        lr_decay: s.choice("lr_decay", &[("none", LrDecay::None), ("linear", LrDecay::Linear)]),
        ema_decay: s.average("ema_decay"),
        ema_start: s.integer("ema_start", 0..=u64::MAX),
        width: s.number("width", 1e-3..=8.0),
        loss: s.choice("loss", &LOSSES),
        gamma: s.schedule("gamma", 0.0..=1e6),
        augment: s.schedule("augment", 0.0..=1.0),
    }
}

fn eval(s: &Section) -> EvalLayer {
    EvalLayer {
        every: s.integer("every", 1..=u64::MAX),
        images: s.size("images", 100..=10_000_000),
        reference: s.choice("reference", &Split::ALL),
        batch_norm: s.choice("batch_norm", &MODES),
        weights: s.list("weights", &one_of(&WEIGHTS), |v| pick(v, &WEIGHTS)),
        batch: s.size("batch", 2..=65_536),
        extractor: s.choice("extractor", &EXTRACTORS),
        resize: s.choice("resize", &Resize::ALL),
        metrics: s
            .list("metrics", "a metric by its name, as `pgn-bench measure --help` has them (`all` is none here)", |v| {
                pick(v, &METRICS)
            })
            .and_then(|all: Vec<Metric>| {
                s.value("metrics", "a list with fid", |_| Some(all.clone()).filter(|m| m.contains(&Metric::FID)))
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::only;
    use super::*;

    const GOOD: &str = "
name: t
dataset: shapes
image_size: 32
methods: [none, pgn+cr]
seeds: [0, 1]
train: {steps: 10, critic_steps: 1, critic_batch: 8, generator_batch: 8, critic_lr: 2e-4, generator_lr: 2e-4, beta1: 0,
  beta2: 0.9, lr_decay: none, ema_decay: 0.99, ema_start: 0, width: 1, loss: hinge}
architectures:
  cnn32:
  resnet32: {critic_steps: 5}
eval: {every: 5, images: 100, reference: train, batch_norm: batch, weights: [raw], extractor: classifier}
scales:
  full:
  smoke: {train: {width: 0.25}, architectures: {resnet32: {width: 0.125}}, seeds: [7]}
";

    #[test]
    fn layers_overlay_each_other() {
        let e =
            Experiment::parse("t.yaml", GOOD, &["train.steps=3".into(), "architectures.cnn32.steps=4".into()]).unwrap();
        let cells = e.resolve("smoke").unwrap();
        let got: Vec<_> =
            cells.iter().map(|c| (c.name(), c.train.steps, c.train.width, c.train.critic_steps)).collect();
        assert_eq!(
            got,
            [
                ("cnn32-none-s7".into(), 4, 0.25, 1),
                ("cnn32-pgn+cr-s7".into(), 4, 0.25, 1),
                ("resnet32-none-s7".into(), 3, 0.125, 5),
                ("resnet32-pgn+cr-s7".into(), 3, 0.125, 5),
            ]
        );
        assert_eq!(e.resolve("full").unwrap().len(), 8);
        assert_eq!(only(e.resolve("full").unwrap(), &["method=none,seed=1".into()]).unwrap().len(), 2);
        assert!(
            only(e.resolve("full").unwrap(), &["method=gn".into()]).unwrap_err().to_string().contains("none, pgn+cr")
        );
        assert!(e.resolve("tiny").unwrap_err().to_string().contains("full, smoke"));
        for (set, group) in [("train={steps: 3}", "t-full-modified"), ("seeds=[4]", "t-full")] {
            let cells = Experiment::parse("t.yaml", GOOD, &[set.into()]).unwrap().resolve("full").unwrap();
            assert_eq!(cells[0].group(), group);
        }
        let moving =
            ["methods=[none, r1r2]", "train.gamma={from: 0.1, to: 0.01, images: 100}", "train.loss=relativistic"];
        let moving =
            [&moving[..], &["train.ema_decay={half_life: 500}", "train.beta2={from: 0.9, to: 0.99, images: 100}"]];
        let cells =
            Experiment::parse("t.yaml", GOOD, &moving.concat().iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
                .unwrap()
                .resolve("full")
                .unwrap();
        // A step sees eight images; γ is nothing to those who have no use for it.
        let got =
            [0, 1].map(|k| (cells[k].train.gamma(0), cells[k].train.gamma(100), cells[k].train.critic_pace(100).beta2));
        assert_eq!(got, [(0.0, 0.0, 0.99), (0.1, 0.01, 0.99)]);
        assert_eq!(cells[0].train.average_decay(0), 0.5f64.powf(8.0 / 500.0));
        let lost = ["train.steps=3".into(), "train={beta1: 0.5}".into()];
        let error = Experiment::parse("t.yaml", GOOD, &lost).unwrap_err().to_string();
        assert!(error.contains("a part of the path was already given a value"), "{error}");
    }

    #[test]
    fn all_faults_come_at_once() {
        let bad = GOOD
            .replace("pgn+cr", "pgm")
            .replace("critic_lr: 2e-4", "critic_lr: fast")
            .replace("steps: 10,", "stepz: 10,")
            .replace("dataset: shapes", "dataset: mnist")
            .replace("seeds: [0, 1]", "seeds: [0, 1, 0]")
            .replace("every: 5, ", "every: 5, metrics: [is], ");
        let error =
            Experiment::parse("t.yaml", &bad, &["train.beta1=2".into(), "oops".into()]).unwrap_err().to_string();
        for part in [
            "t.yaml: 8 faults",
            "eval.metrics: - is is not allowed; expected a list with fid",
            "methods[1]: pgm is not allowed; expected one of: none, wgan",
            "train.critic_lr: fast is not allowed; expected a number from",
            "seeds[2]: 0 is there twice",
            "train.stepz: unknown key; known here: steps, critic_steps",
            "dataset: mnist is not allowed; expected one of: shapes, cifar10",
            "--set .train.beta1: 2 is not allowed",
            "--set oops: expected PATH=VALUE",
        ] {
            assert!(error.contains(part), "`{part}` is not in:\n{error}");
        }
    }

    #[test]
    fn metrics_are_names_each_once() {
        for (metrics, expected) in [
            ("[fid, fid]", "eval.metrics[1]: fid is there twice"),
            ("[fid, all]", "eval.metrics[1]: all is not allowed; expected a metric by its name"),
            ("fid", "eval.metrics: fid is not allowed; expected a list"),
        ] {
            let bad = GOOD.replace("every: 5, ", &format!("every: 5, metrics: {metrics}, "));
            let error = Experiment::parse("t.yaml", &bad, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "`{expected}` is not in:\n{error}");
        }
    }

    #[test]
    fn missing_settings_are_named() {
        let bad = GOOD.replace("beta1: 0,", "").replace("every: 5, ", "");
        let e = Experiment::parse("t.yaml", &bad, &[]).unwrap();
        let error = e.resolve("full").unwrap_err().to_string();
        assert!(error.contains("architectures.cnn32.beta1") && error.contains("eval.every"), "{error}");
        let e = Experiment::parse("t.yaml", GOOD, &["methods=[gn+r1r2]".into()]).unwrap();
        let error = e.resolve("full").unwrap_err().to_string();
        assert!(error.contains("architectures.cnn32.gamma, which gn+r1r2 needs: not given"), "{error}");
        for bad in [
            "gamma=-1",
            "gamma={from: 1, to: 0.1}",
            "critic_lr={from: 1, to: 9, images: 5}",
            "ema_decay={half_life: no}",
        ] {
            let error = Experiment::parse("t.yaml", GOOD, &[format!("train.{bad}")]).unwrap_err().to_string();
            assert!(error.contains("is not allowed; expected a number from"), "{error}");
        }
        assert!(Experiment::parse("t.yaml", "name: [", &[]).unwrap_err().to_string().contains("not YAML"));
        let error = Experiment::parse("t.yaml", "{}", &[]).unwrap_err().to_string();
        assert!(error.contains("dataset: is missing") && error.contains("5 faults"), "{error}");
    }
}
