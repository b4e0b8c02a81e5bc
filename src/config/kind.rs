//! Kinds of values: how each is read, and what a person and an editor are told of it.

use serde_json::json;
use yaml_serde::Value;

use super::reader::{Absent, At, Described, Kind, MISSING, NOWHERE, Otherwise, show};
use super::schedule::{Average, Schedule};
use crate::data::{self, Dataset};
use crate::metrics::scores::{METRICS, Metric};

/// A whole number between two others; the largest there is stands for no limit.
pub(super) struct Integer(pub(super) u64, pub(super) u64);
/// A number between two others.
pub(super) struct Number(pub(super) f64, pub(super) f64);
/// A number between two others, or half a cosine from one to another.
pub(super) struct Moving(pub(super) f64, pub(super) f64);
/// How a moving average forgets.
pub(super) struct Forgetting;
/// One of the named choices.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);
/// One of some names.
pub(super) struct Named(pub(super) fn() -> Vec<String>);
/// A metric by its name.
pub(super) struct Measured;
/// Different values of a kind, one at least.
pub(super) struct List<K>(pub(super) K);
/// A list of metrics that holds the Fréchet distance.
pub(super) struct WithFid;
/// A value that nothing needs.
pub(super) struct Optional<K>(pub(super) K);
/// A name that may be a part of a path.
pub(super) struct Name;
/// Any text.
pub(super) struct Text;
/// A data set.
pub(super) struct Source;

/// Most images that a schedule spans, or a half-life is.
const IMAGES: f64 = 1e12;
/// Real images until the end of a schedule.
const SPAN: Number = Number(1.0, IMAGES);
/// Half-lives of a moving average.
const HALF_LIFE: Moving = Moving(0.0, IMAGES);
/// Decays of a moving average.
const DECAY: Number = Number(0.0, 0.999_999);

impl Described for Integer {
    fn allowed(&self) -> String {
        match *self {
            Self(from, u64::MAX) => format!("a whole number of at least {from}"),
            Self(from, to) => format!("a whole number from {from} to {to}"),
        }
    }

    fn schema(&self) -> serde_json::Value {
        match *self {
            Self(from, u64::MAX) => json!({"type": "integer", "minimum": from}),
            Self(from, to) => json!({"type": "integer", "minimum": from, "maximum": to}),
        }
    }
}

impl Kind<u64> for Integer {
    fn read(&self, at: &At) -> Option<u64> {
        at.expect(&self.allowed(), at.value.as_u64().filter(|n| (self.0..=self.1).contains(n)))
    }
}

impl Kind<usize> for Integer {
    fn read(&self, at: &At) -> Option<usize> {
        Kind::<u64>::read(self, at).and_then(|n| usize::try_from(n).ok())
    }
}

impl Described for Number {
    fn allowed(&self) -> String {
        format!("a number from {} to {}", number(self.0), number(self.1))
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "number", "minimum": self.0, "maximum": self.1})
    }
}

/// As people write it.
fn number(x: f64) -> String {
    if x != 0.0 && (x.abs() < 1e-4 || x.abs() >= 1e7) { format!("{x:e}") } else { x.to_string() }
}

impl Number {
    fn of(&self, value: &Value) -> Option<f64> {
        value.as_f64().filter(|x| (self.0..=self.1).contains(x))
    }
}

impl Kind<f64> for Number {
    fn read(&self, at: &At) -> Option<f64> {
        at.expect(&self.allowed(), self.of(at.value))
    }
}

impl Described for Moving {
    fn allowed(&self) -> String {
        format!(
            "{}, or {{from: NUMBER, to: NUMBER, images: NUMBER}} with such numbers",
            Number(self.0, self.1).allowed()
        )
    }

    fn schema(&self) -> serde_json::Value {
        let number = Number(self.0, self.1).schema();
        let properties = json!({"from": number, "to": number, "images": SPAN.schema()});
        let required = ["from", "to", "images"];
        let cosine =
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        json!({"anyOf": [number, cosine]})
    }
}

impl Kind<Schedule> for Moving {
    fn read(&self, at: &At) -> Option<Schedule> {
        let number = Number(self.0, self.1);
        if !at.value.is_mapping() {
            return at.expect(&self.allowed(), number.of(at.value)).map(Schedule::Constant);
        }
        let section = at.section();
        let [from, to, images] = [("from", &number), ("to", &number), ("images", &SPAN)]
            .map(|(key, kind)| section.setting(key, kind, Otherwise::Needed, within(at.absent)));
        section.close();
        Some(Schedule::Cosine { from: from?, to: to?, images: images? })
    }
}

/// What is made of an absent part of a setting.
fn within(absent: Absent) -> Absent {
    match absent {
        Absent::Fine => MISSING,
        NOWHERE => Absent::Fault("not given: --set changes a part of a schedule, and there is none here"),
        other => other,
    }
}

impl Described for Forgetting {
    fn allowed(&self) -> String {
        format!("{}, or {{half_life: IMAGES}} that the critic sees, a number or a schedule of them", DECAY.allowed())
    }

    fn schema(&self) -> serde_json::Value {
        let properties = json!({"half_life": HALF_LIFE.schema()});
        let half_life = json!({"type": "object", "properties": properties, "required": ["half_life"], "additionalProperties": false});
        json!({"anyOf": [DECAY.schema(), half_life]})
    }
}

impl Kind<Average> for Forgetting {
    fn read(&self, at: &At) -> Option<Average> {
        if !at.value.is_mapping() {
            return at.expect(&self.allowed(), DECAY.of(at.value)).map(Average::Decay);
        }
        let section = at.section();
        let half_life = section.setting("half_life", &HALF_LIFE, Otherwise::Needed, within(at.absent));
        section.close();
        Some(Average::HalfLife { half_life: half_life? })
    }
}

/// A name; nothing at all is called none.
fn name(value: &Value) -> Option<&str> {
    if value.is_null() { Some("none") } else { value.as_str() }
}

fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    format!("one of: {}", names.into_iter().collect::<Vec<_>>().join(", "))
}

impl<T: Sync> Choice<T> {
    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }
}

impl<T: Sync> Described for Choice<T> {
    fn allowed(&self) -> String {
        one_of(self.names())
    }

    fn schema(&self) -> serde_json::Value {
        let mut names: Vec<_> = self.names().map(serde_json::Value::from).collect();
        if self.names().any(|name| name == "none") {
            names.push(serde_json::Value::Null);
        }
        json!({"enum": names})
    }
}

impl<T: Clone + Sync> Kind<T> for Choice<T> {
    fn read(&self, at: &At) -> Option<T> {
        let found = name(at.value).and_then(|name| self.0.iter().find(|(n, _)| *n == name));
        at.expect(&self.allowed(), found.map(|(_, of)| of.clone()))
    }
}

impl Described for Named {
    fn allowed(&self) -> String {
        one_of(self.0().iter().map(String::as_str))
    }

    fn schema(&self) -> serde_json::Value {
        json!({"enum": self.0()})
    }
}

impl Kind<String> for Named {
    fn read(&self, at: &At) -> Option<String> {
        at.expect(&self.allowed(), at.value.as_str().map(str::to_owned).filter(|s| self.0().contains(s)))
    }
}

impl Described for Measured {
    fn allowed(&self) -> String {
        format!("a metric by its name, {} (`all` is none here)", Choice(&METRICS).allowed())
    }

    fn schema(&self) -> serde_json::Value {
        Choice(&METRICS).schema()
    }
}

impl Kind<Metric> for Measured {
    fn read(&self, at: &At) -> Option<Metric> {
        let found = at.value.as_str().and_then(|name| METRICS.iter().find(|(n, _)| *n == name));
        at.expect(&self.allowed(), found.map(|(_, metric)| *metric))
    }
}

impl<K: Described> Described for List<K> {
    fn allowed(&self) -> String {
        format!("a list, each {}", self.0.allowed())
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "array", "items": self.0.schema(), "minItems": 1, "uniqueItems": true})
    }
}

impl<T: PartialEq, K: Kind<T>> Kind<Vec<T>> for List<K> {
    fn read(&self, at: &At) -> Option<Vec<T>> {
        let items = at.expect(&self.allowed(), at.value.as_sequence().filter(|items| !items.is_empty()))?;
        let mut out = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let at = at.item(i, item);
            let read = self.0.read(&at);
            if read.as_ref().is_some_and(|read| out.contains(read)) {
                at.faults.say(&at.path, &format!("{} is there twice", show(item)));
                return None;
            }
            out.extend(read);
        }
        Some(out)
    }
}

impl Described for WithFid {
    fn allowed(&self) -> String {
        format!("a list with fid, each {}", Measured.allowed())
    }

    fn schema(&self) -> serde_json::Value {
        let mut schema = List(Measured).schema();
        schema["contains"] = json!({"const": Metric::FID.name()});
        schema
    }
}

impl Kind<Vec<Metric>> for WithFid {
    fn read(&self, at: &At) -> Option<Vec<Metric>> {
        let all = List(Measured).read(at)?;
        at.expect("a list with fid", Some(all).filter(|all| all.contains(&Metric::FID)))
    }
}

impl<K: Described> Described for Optional<K> {
    fn allowed(&self) -> String {
        self.0.allowed()
    }

    fn schema(&self) -> serde_json::Value {
        self.0.schema()
    }
}

/// Of a value that is not allowed there is a fault, and nothing else.
impl<T, K: Kind<T>> Kind<Option<T>> for Optional<K> {
    fn read(&self, at: &At) -> Option<Option<T>> {
        Some(self.0.read(at))
    }

    fn absent(&self) -> Option<Option<T>> {
        Some(None)
    }
}

impl Name {
    /// Names end up in paths.
    pub(super) fn is_one(s: &str) -> bool {
        !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    }
}

impl Described for Name {
    fn allowed(&self) -> String {
        "a name of letters, digits, - and _".to_owned()
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "string", "pattern": "^[A-Za-z0-9_-]+$"})
    }
}

impl Kind<String> for Name {
    fn read(&self, at: &At) -> Option<String> {
        at.expect(&self.allowed(), at.value.as_str().filter(|s| Self::is_one(s)).map(str::to_owned))
    }
}

impl Described for Text {
    fn allowed(&self) -> String {
        "text".to_owned()
    }

    fn schema(&self) -> serde_json::Value {
        json!({"type": "string"})
    }
}

impl Kind<String> for Text {
    fn read(&self, at: &At) -> Option<String> {
        at.expect(&self.allowed(), at.value.as_str().map(str::to_owned))
    }
}

impl Source {
    /// Keys of a mapping that says where images are, which all say the same.
    const KINDS: [&str; 4] = ["path", "folder", "parquet", "lmdb"];
}

impl Described for Source {
    fn allowed(&self) -> String {
        format!("{}; or {{path: PATH}} of images (a folder, Parquet, zip, npz, LMDB)", one_of(data::IDS))
    }

    fn schema(&self) -> serde_json::Value {
        let of = |kind: &str| {
            json!({"type": "object", "properties": {kind: {"type": "string"}}, "required": [kind],
              "additionalProperties": false})
        };
        let kinds = Self::KINDS.map(of);
        json!({"anyOf": std::iter::once(json!({"enum": data::IDS})).chain(kinds).collect::<Vec<_>>()})
    }
}

impl Kind<Dataset> for Source {
    fn read(&self, at: &At) -> Option<Dataset> {
        let elsewhere = || {
            let (kind, path) = at.value.as_mapping().filter(|m| m.len() == 1)?.iter().next()?;
            let kind = kind.as_str().filter(|kind| Self::KINDS.contains(kind));
            kind.and(path.as_str()).map(|path| Dataset::Elsewhere { path: path.into() })
        };
        let of = match at.value.as_str() {
            Some(id) => data::IDS.contains(&id).then(|| Dataset::Known(id.to_owned())),
            None => elsewhere(),
        };
        at.expect(&self.allowed(), of)
    }
}
