//! Walks a YAML value, collecting every fault with its path, its value and what is allowed.

use std::cell::RefCell;

use yaml_serde::Value;

/// Faults of one file.
#[derive(Default)]
pub(super) struct Faults(RefCell<Vec<String>>);

impl Faults {
    pub(super) fn add(&self, path: &str, value: &Value, allowed: &str) {
        self.say(path, &format!("{} is not allowed; expected {allowed}", show(value)));
    }

    pub(super) fn say(&self, path: &str, message: &str) {
        self.0.borrow_mut().push(format!("  {path}: {message}"));
    }

    pub(super) fn into_inner(self) -> Vec<String> {
        self.0.into_inner()
    }
}

/// A value on one line, as it may be written.
pub(super) fn show(value: &Value) -> String {
    fn flow(value: &Value) -> String {
        let all = |items: Vec<String>| items.join(", ");
        match value {
            Value::Sequence(items) => format!("[{}]", all(items.iter().map(flow).collect())),
            Value::Mapping(map) => {
                format!("{{{}}}", all(map.iter().map(|(k, v)| format!("{}: {}", flow(k), flow(v))).collect()))
            }
            other => yaml_serde::to_string(other).unwrap_or_default().trim().replace('\n', " "),
        }
    }
    let text = flow(value);
    if text.chars().count() > 60 { format!("{}…", text.chars().take(60).collect::<String>()) } else { text }
}

/// What a person and an editor are told of a kind of values.
pub(super) trait Described: Sync {
    /// What is allowed, after "expected".
    fn allowed(&self) -> String;
    /// The same as a JSON schema.
    fn schema(&self) -> serde_json::Value;
}

/// A kind of values that are read as `T`.
pub(super) trait Kind<T>: Described {
    /// The value, or a fault.
    fn read(&self, at: &At) -> Option<T>;
    /// What an absent value means, where it means something.
    fn absent(&self) -> Option<T> {
        None
    }
}

/// A key of the vocabulary.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    pub(super) kind: &'static dyn Described,
    pub(super) otherwise: Otherwise,
}

/// What is made of a setting that is not given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// Nothing: another layer may give it.
    Fine,
    /// Nothing, not even of a part of a setting, such as an end of a schedule.
    FineWithin,
    /// A fault that says this.
    Fault(&'static str),
}

/// What is said of a setting of which no layer says anything.
pub(super) const UNSAID: &str = "not given in the file, the scale or --set";
/// Such a setting.
pub(super) const NOWHERE: Absent = Absent::Fault(UNSAID);
/// A key that a file must have.
pub(super) const MISSING: Absent = Absent::Fault("is missing");

/// What holds where a setting is not given.
#[derive(Clone, Copy)]
pub(super) enum Otherwise {
    /// Nothing can: some layer must give it.
    Needed,
    /// Nothing has to.
    Nothing,
    /// This, in YAML.
    Yaml(&'static str),
    /// What `train` has under this key.
    Train(&'static str),
}

/// A value at a path.
pub(super) struct At<'a> {
    pub(super) value: &'a Value,
    pub(super) path: String,
    pub(super) absent: Absent,
    pub(super) faults: &'a Faults,
}

impl<'a> At<'a> {
    /// What a value was taken for; a fault where it was taken for nothing.
    pub(super) fn expect<T>(&self, allowed: &str, parsed: Option<T>) -> Option<T> {
        if parsed.is_none() {
            self.faults.add(&self.path, self.value, allowed);
        }
        parsed
    }

    /// The value as a mapping.
    pub(super) fn section(&self) -> Section<'a> {
        Section::new(&self.path, self.value, self.faults)
    }

    /// Of an item of its list.
    pub(super) fn item(&self, i: usize, value: &'a Value) -> Self {
        Self { value, path: format!("{}[{i}]", self.path), ..*self }
    }
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
        // `--set ` is before a path, and no part of it.
        let dot = if self.path.is_empty() || self.path.ends_with(' ') { "" } else { "." };
        format!("{}{dot}{key}", self.path)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(k, _)| k.as_str())
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.asked.borrow_mut().push(key.to_owned());
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| *v)
    }

    /// The value of a key that this kind takes, or what holds without it.
    pub(super) fn setting<T>(&self, key: &str, kind: &impl Kind<T>, otherwise: Otherwise, absent: Absent) -> Option<T> {
        let read = |value: &Value| kind.read(&At { value, path: self.path(key), absent, faults: self.faults });
        match (self.get(key), otherwise) {
            (Some(value), _) => read(value),
            (None, Otherwise::Yaml(text)) => read(&yaml_serde::from_str(text).ok()?),
            (None, Otherwise::Nothing) => kind.absent(),
            (None, Otherwise::Needed | Otherwise::Train(_)) => {
                if let Absent::Fault(message) = absent {
                    self.faults.say(&self.path(key), message);
                }
                kind.absent()
            }
        }
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
