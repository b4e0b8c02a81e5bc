//! Walks a YAML value, collecting every fault with its path, its value and what is allowed.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use yaml_serde::Value;

use super::schedule::{Average, Schedule};

/// Faults of one file.
#[derive(Default)]
pub(super) struct Faults(RefCell<Vec<String>>);

impl Faults {
    pub(super) fn add(&self, path: &str, value: &Value, allowed: &str) {
        self.0.borrow_mut().push(format!("  {path}: {} is not allowed; expected {allowed}", show(value)));
    }

    pub(super) fn say(&self, path: &str, message: &str) {
        self.0.borrow_mut().push(format!("  {path}: {message}"));
    }

    pub(super) fn into_inner(self) -> Vec<String> {
        self.0.into_inner()
    }
}

fn show(value: &Value) -> String {
    let text = yaml_serde::to_string(value).unwrap_or_default();
    let text = text.trim().replace('\n', " ");
    if text.chars().count() > 60 { format!("{}…", text.chars().take(60).collect::<String>()) } else { text }
}

/// A mapping at a path. Keys that nobody asked for are faults when it is closed.
pub(super) struct Section<'a> {
    path: String,
    entries: Vec<(String, &'a Value)>,
    asked: RefCell<Vec<String>>,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    pub(super) fn new(path: &str, value: &'a Value, faults: &'a Faults) -> Self {
        let mut entries = Vec::new();
        match value {
            Value::Mapping(map) => {
                for (key, value) in map {
                    match key {
                        Value::String(key) => entries.push((key.clone(), value)),
                        other => faults.add(path, other, "a name as key"),
                    }
                }
            }
            Value::Null => {}
            other => faults.add(if path.is_empty() { "the file" } else { path }, other, "a mapping of names to values"),
        }
        Self { path: path.to_owned(), entries, asked: RefCell::default(), faults }
    }

    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(k, _)| k.as_str())
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.asked.borrow_mut().push(key.to_owned());
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| *v)
    }

    /// A value that `parse` accepts, or a fault naming what is allowed.
    pub(super) fn value<T>(&self, key: &str, allowed: &str, parse: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = self.get(key)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.faults.add(&self.path(key), value, allowed);
        }
        parsed
    }

    pub(super) fn number(&self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let allowed = format!("a number from {} to {}", range.start(), range.end());
        self.value(key, &allowed, |v| v.as_f64().filter(|x| range.contains(x)))
    }

    /// A number, or half a cosine from one to another.
    pub(super) fn schedule(&self, key: &str, range: RangeInclusive<f64>) -> Option<Schedule> {
        let numbers = format!("from {} to {}", range.start(), range.end());
        let allowed = format!("a number {numbers}, or {{from: NUMBER, to: NUMBER, images: NUMBER}} with such numbers");
        self.value(key, &allowed, |v| schedule(v, &range))
    }

    /// How a moving average forgets.
    pub(super) fn average(&self, key: &str) -> Option<Average> {
        let allowed =
            "a number from 0 to 0.999999, or {half_life: IMAGES} that the critic sees, a number or a schedule of them";
        self.value(key, allowed, |v| match v.as_mapping() {
            None => v.as_f64().filter(|x| (0.0..=0.999_999).contains(x)).map(Average::Decay),
            Some(map) if map.len() == 1 => {
                let half_life = schedule(map.get("half_life")?, &(0.0..=1e12))?;
                Some(Average::HalfLife { half_life })
            }
            Some(_) => None,
        })
    }

    pub(super) fn integer(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let allowed = if *range.end() == u64::MAX {
            format!("a whole number of at least {}", range.start())
        } else {
            format!("a whole number from {} to {}", range.start(), range.end())
        };
        self.value(key, &allowed, |v| v.as_u64().filter(|x| range.contains(x)))
    }

    pub(super) fn size(&self, key: &str, range: RangeInclusive<u64>) -> Option<usize> {
        self.integer(key, range).and_then(|n| usize::try_from(n).ok())
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.value(key, "text", |v| v.as_str().map(str::to_owned))
    }

    /// One of the named choices.
    pub(super) fn choice<T: Clone>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.value(key, &one_of(choices), |v| pick(v, choices))
    }

    /// A non-empty list of different items, which `parse` accepts.
    pub(super) fn list<T: PartialEq>(
        &self,
        key: &str,
        allowed: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.get(key)?;
        let Some(items) = value.as_sequence().filter(|s| !s.is_empty()) else {
            self.faults.add(&self.path(key), value, &format!("a list, each of {allowed}"));
            return None;
        };
        let mut out = Vec::new();
        for (i, item) in items.iter().enumerate() {
            match parse(item) {
                Some(parsed) if out.contains(&parsed) => {
                    self.faults.say(&format!("{}[{i}]", self.path(key)), &format!("{} is there twice", show(item)));
                    return None;
                }
                Some(parsed) => out.push(parsed),
                None => self.faults.add(&format!("{}[{i}]", self.path(key)), item, allowed),
            }
        }
        Some(out)
    }

    pub(super) fn section(&self, key: &str) -> Option<Section<'a>> {
        self.get(key).map(|v| Section::new(&self.path(key), v, self.faults))
    }

    /// Reports keys that are not of the vocabulary.
    pub(super) fn close(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.entries.iter().filter(|(k, _)| !asked.contains(k)) {
            self.faults.say(&self.path(key), &format!("unknown key; known here: {}", asked.join(", ")));
        }
    }
}

fn schedule(value: &Value, range: &RangeInclusive<f64>) -> Option<Schedule> {
    let of: Schedule = yaml_serde::from_value(value.clone()).ok()?;
    let is_one = match of {
        Schedule::Constant(_) => true,
        Schedule::Cosine { images, .. } => images >= 1.0 && value.as_mapping().is_some_and(|map| map.len() == 3),
    };
    (is_one && of.ends().iter().all(|end| range.contains(end))).then_some(of)
}

pub(super) fn pick<T: Clone>(value: &Value, choices: &[(&str, T)]) -> Option<T> {
    let name = match value {
        Value::Null => "none",
        other => other.as_str()?,
    };
    choices.iter().find(|(n, _)| *n == name).map(|(_, t)| t.clone())
}

pub(super) fn one_of<T>(choices: &[(&str, T)]) -> String {
    let names: Vec<&str> = choices.iter().map(|(n, _)| *n).collect();
    format!("one of: {}", names.join(", "))
}
