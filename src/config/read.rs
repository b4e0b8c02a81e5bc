//! The vocabulary of an experiment file.

use yaml_serde::{Mapping, Value};

use super::keys::{Eval, Head, SIDES, Selection, Train};
use super::kind::{Name, Named};
use super::reader::{Absent, Faults, MISSING, Otherwise, Section};
use super::{Cell, Experiment};
use crate::data::{self, Dataset, Split};
use crate::error::{Error, Result};
use crate::{critic, methods, yaml};

pub(super) fn experiment(file: &str, text: &str, set: &[String]) -> Result<Experiment> {
    let value =
        yaml::value(text).map_err(|e| Error::Config { file: file.to_owned(), faults: vec![format!("  {e}")] })?;
    let faults = Faults::default();
    let root = Section::new("", &value, &faults);
    let Head { name, title, dataset, split, image_size } = Head::read(&root, MISSING).unwrap_or_default();
    let split = split.unwrap_or(Split::Train);
    if let Some(known) = dataset.as_ref().map(Dataset::splits).filter(|known| !known.contains(&split)) {
        let known: Vec<String> = known.iter().map(Split::to_string).collect();
        faults.say("split", &format!("the data set has no {split}, only {}", known.join(", ")));
    }
    let architectures = layer(&root, Absent::Fine, &faults);
    let mut scales = Vec::new();
    if let Some(section) = root.section("scales") {
        for key in section.keys().map(str::to_owned).collect::<Vec<_>>() {
            if !Name::is_one(&key) {
                faults.say(&section.path(&key), "a scale's name has letters, digits, - and _ only");
            }
            if let Some(scale) = section.section(&key) {
                layer(&scale, Absent::Fine, &faults);
                scale.close();
            }
            scales.push(key);
        }
    }
    root.close();
    for name in architectures.iter().filter(|name| critic::ARCHITECTURES.contains(&name.as_str())) {
        if let Some(side) = image_size.filter(|&side| side != critic::side(name)) {
            let [path, makes] =
                [format!("architectures.{name}"), format!("makes images of {0}×{0}", critic::side(name))];
            faults.say(&path, &format!("{makes} pixels, but image_size is {side}"));
        }
    }
    for (key, is_empty) in [("architectures", architectures.is_empty()), ("scales", scales.is_empty())] {
        if is_empty && value.get(key).is_none() {
            faults.say(key, "is missing");
        }
    }
    let settings = ["train", "eval", "architectures"];
    let modified = set.iter().any(|s| s.split(['.', '=']).next().is_some_and(|first| settings.contains(&first)));
    let set_value = overlay_value(set, &faults);
    let set_root = Section::new("--set ", &set_value, &faults);
    layer(&set_root, Absent::FineWithin, &faults);
    set_root.close();

    let faults = faults.into_inner();
    match (name, dataset, image_size, faults.is_empty()) {
        (Some(name), Some(dataset), Some(image_size), true) => Ok(Experiment {
            name,
            title: title.unwrap_or_default(),
            dataset,
            split,
            image_size,
            architectures,
            scales,
            value,
            set: set_value,
            modified,
        }),
        _ => Err(Error::Config { file: file.to_owned(), faults }),
    }
}

/// Faults of a cell that was read from a file: it obeys the rules of an experiment's.
pub(super) fn faults(cell: &Cell) -> yaml_serde::Result<Vec<String>> {
    let value = yaml_serde::to_value(cell)?;
    let faults = Faults::default();
    let root = Section::new("", &value, &faults);
    for key in ["experiment", "scale"] {
        let _: Option<String> = root.setting(key, &Name, Otherwise::Needed, MISSING);
    }
    let _: Option<usize> = root.setting("image_size", &SIDES, Otherwise::Needed, MISSING);
    for (key, known) in [("arch", Named(architectures)), ("method", Named(methods::ids))] {
        root.setting(key, &known, Otherwise::Needed, MISSING);
    }
    if critic::side(&cell.arch) != cell.image_size {
        faults.say("image_size", &format!("{} makes images of {1}×{1} pixels", cell.arch, critic::side(&cell.arch)));
    }
    if let Dataset::Known(id) = &cell.dataset
        && !data::IDS.contains(&id.as_str())
    {
        faults.say("dataset", &format!("{id} is not one of: {}", data::IDS.join(", ")));
    }
    root.section("train").map(|s| Train::read(&s, MISSING));
    root.section("eval").map(|s| Eval::read(&s, MISSING));
    Ok(faults.into_inner())
}

fn architectures() -> Vec<String> {
    critic::ARCHITECTURES.map(str::to_owned).to_vec()
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

/// Checks a layer; the architectures that it names.
fn layer(section: &Section, absent: Absent, faults: &Faults) -> Vec<String> {
    let mut named = Vec::new();
    if let Some(section) = section.section("architectures") {
        for key in section.keys().map(str::to_owned).collect::<Vec<_>>() {
            if !critic::ARCHITECTURES.contains(&key.as_str()) {
                let known = critic::ARCHITECTURES.join(", ");
                faults.say(&section.path(&key), &format!("unknown architecture; known: {known}"));
            }
            if let Some(s) = section.section(&key) {
                Train::read(&s, absent);
                s.close();
            }
            named.push(key);
        }
    }
    Selection::read(section, absent);
    if let Some(s) = section.section("train") {
        Train::read(&s, absent);
        s.close();
    }
    if let Some(s) = section.section("eval") {
        Eval::read(&s, absent);
        s.close();
    }
    named
}

#[cfg(test)]
mod tests {
    use super::super::{Average, Schedule, only};
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
        let left = |filters: &[&str]| {
            only(e.resolve("full").unwrap(), &filters.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(left(&["method=none,seed=1"]).unwrap().len(), 2);
        for filters in [&["method=none,arch=cnn32", "method=pgn+cr"][..], &["arch=cnn32, method = none, pgn+cr"]] {
            assert_eq!(left(filters).unwrap().len(), 4, "{filters:?}");
        }
        for (filters, why) in [
            ("seed=1,method=gn", "no cell has the method `gn`; there are: none, pgn+cr"),
            ("method=none,", "no cell has the method ``"),
            ("size=1", "unknown key `size`"),
            ("none", "--only \"none\": expected KEY=VALUE"),
            ("method=gn,seed=9,size=1", ": 3 faults"),
        ] {
            assert!(left(&[filters]).unwrap_err().to_string().contains(why), "{filters}");
        }
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
            "eval.metrics: [is] is not allowed; expected a list with fid",
            "methods[1]: pgm is not allowed; expected one of: none, wgan",
            "train.critic_lr: fast is not allowed; expected a number from",
            "seeds[2]: 0 is there twice",
            "train.stepz: unknown key; known here: steps, critic_steps",
            "dataset: mnist is not allowed; expected one of: shapes, cifar10",
            "--set train.beta1: 2 is not allowed; expected a number from 0 to 0.999999",
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
    fn faults_of_a_schedule_name_its_wrong_part() {
        for (bad, expected) in [
            ("gamma=-1", "train.gamma: -1 is not allowed; expected a number from 0 to 1000000, or {from: NUMBER, to"),
            ("gamma=[1, {a: b}]", "train.gamma: [1, {a: b}] is not allowed"),
            (
                "critic_lr={from: 1, to: 9, images: 5}",
                "train.critic_lr.to: 9 is not allowed; expected a number from 1e-9 to 1",
            ),
            (
                "critic_lr={from: 1, to: 1, images: 0}",
                "train.critic_lr.images: 0 is not allowed; expected a number from 1 to",
            ),
            ("gamma.steps=5", "train.gamma.steps: unknown key; known here: from, to, images"),
            (
                "ema_decay={half_life: no}",
                "train.ema_decay.half_life: no is not allowed; expected a number from 0 to 1e12",
            ),
            ("ema_decay={halflife: 5}", "train.ema_decay.halflife: unknown key; known here: half_life"),
        ] {
            let error = Experiment::parse("t.yaml", GOOD, &[format!("train.{bad}")]).unwrap_err().to_string();
            assert!(error.contains(&format!("--set {expected}")), "`{expected}` is not in:\n{error}");
        }
        let bad = GOOD.replace("beta1: 0,", "beta1: 0, gamma: {from: 1, to: 0.1},");
        let error = Experiment::parse("t.yaml", &bad, &[]).unwrap_err().to_string();
        assert!(error.contains("  train.gamma.images: is missing"), "{error}");
    }

    #[test]
    fn set_changes_a_part_of_a_schedule() {
        let moving = "beta2: {from: 0.9, to: 0.99, images: 100}, ema_decay: {half_life: {from: 0, to: 5, images: 9}},";
        let text = GOOD.replace("beta2: 0.9,", moving).replace("ema_decay: 0.99,", "");
        let of = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
            let cells = Experiment::parse("t.yaml", &text, &set).unwrap().resolve("full")?;
            Ok::<_, Error>((cells[0].train.beta2, cells[0].train.ema_decay))
        };
        let half_life = |to| Average::HalfLife { half_life: Schedule::Cosine { from: 0.0, to, images: 9.0 } };
        let beta2 = |to, images| Schedule::Cosine { from: 0.9, to, images };
        assert_eq!(of(&[]).unwrap(), (beta2(0.99, 100.0), half_life(5.0)));
        let set = ["train.beta2.to=0.5", "train.ema_decay.half_life.to=7", "architectures.cnn32.beta2.images=2"];
        assert_eq!(of(&set).unwrap(), (beta2(0.5, 2.0), half_life(7.0)));
        let whole = ["train.beta2=0.5", "train.ema_decay={half_life: 7}"];
        assert_eq!(of(&whole).unwrap(), (0.5.into(), Average::HalfLife { half_life: 7.0.into() }));
        // There is no schedule to change a part of.
        let error = of(&["train.critic_lr.to=0.1"]).unwrap_err().to_string();
        for part in ["from", "images"] {
            assert!(error.contains(&format!("architectures.cnn32.critic_lr.{part}: not given")), "{error}");
        }
    }

    #[test]
    fn a_penalty_of_weight_zero_is_none() {
        let with = |gamma: &str, method: &str| {
            let set = [format!("methods=[none, {method}]"), format!("train.gamma={gamma}")];
            Experiment::parse("t.yaml", GOOD, &set).unwrap().resolve("full").map(drop).map_err(|e| e.to_string())
        };
        let error = with("0", "pgn+r1r2").unwrap_err();
        assert!(error.contains("architectures.cnn32.gamma: the penalty of pgn+r1r2 has the weight 0"), "{error}");
        assert_eq!([with("0", "gn"), with("{from: 0, to: 1, images: 9}", "r1")], [Ok(()), Ok(())]);
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
        assert!(Experiment::parse("t.yaml", "name: [", &[]).unwrap_err().to_string().contains("not YAML"));
        let error = Experiment::parse("t.yaml", "{}", &[]).unwrap_err().to_string();
        assert!(error.contains("dataset: is missing") && error.contains("5 faults"), "{error}");
    }
}
