//! YAML as people write it: a byte-order mark is passed over, and merge keys (`<<: *anchor`, `<<: [*a, *b]`) are resolved.

use std::path::Path;

use serde::de::DeserializeOwned;
use yaml_serde::{Mapping, Value};

use crate::error::{AtPath, Error, Result};

/// Most bytes of a file: what is nested deeply takes a time that grows with the square of them.
const LONGEST: u64 = 1 << 16;
/// The key whose value is merged into the mapping around it.
const MERGE: &str = "<<";

/// Text of an experiment or of gates.
///
/// # Errors
/// When it cannot be read, or is too long.
pub fn read(path: &Path) -> Result<String> {
    let length = std::fs::metadata(path).at("read", path)?.len();
    if length > LONGEST {
        return Err(Error::content(path, format!("has {length} bytes; at most {LONGEST} are read")));
    }
    std::fs::read_to_string(path).at("read", path)
}

/// A text's value, its merge keys resolved.
///
/// # Errors
/// When it is not YAML, or merges what is no mapping.
pub fn value(text: &str) -> Result<Value, String> {
    parse(text).map(|(value, _)| value)
}

/// What a text holds.
///
/// # Errors
/// When it is not YAML, or holds something else.
pub fn typed<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let read = match parse(text)? {
        (value, true) => yaml_serde::from_value(value),
        // The text itself says in which line a fault is.
        (_, false) => yaml_serde::from_str(unmarked(text)),
    };
    read.map_err(|e| e.to_string())
}

/// A text without the mark that some editors put before it.
fn unmarked(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A text's value, and whether something was merged.
fn parse(text: &str) -> Result<(Value, bool), String> {
    let mut value = yaml_serde::from_str(unmarked(text)).map_err(|e| format!("not YAML: {e}"))?;
    let merged = merge(&mut value)?;
    Ok((value, merged))
}

/// Resolves merge keys as YAML 1.1 does: a mapping's own keys win over merged ones, and of several mappings the first. What is merged comes
/// before a mapping's own keys, as it is written. Everything is moved, so that nothing grows. Whether there was one.
fn merge(value: &mut Value) -> Result<bool, String> {
    match value {
        Value::Sequence(items) => items.iter_mut().try_fold(false, |any, item| Ok(merge(item)? | any)),
        Value::Tagged(tagged) => merge(&mut tagged.value),
        Value::Mapping(map) => {
            // What is merged may merge something itself.
            let any = map.values_mut().try_fold(false, |any, value| Ok::<_, String>(merge(value)? | any))?;
            let Some(merged) = map.shift_remove(MERGE) else { return Ok(any) };
            let own = std::mem::replace(map, Mapping::new());
            let sources = if let Value::Sequence(sources) = merged { sources } else { vec![merged] };
            for source in sources {
                let Value::Mapping(source) = source else {
                    return Err(format!("the key `{MERGE}` takes a mapping or a list of mappings, such as *anchor"));
                };
                for (key, value) in source {
                    map.entry(key).or_insert(value);
                }
            }
            map.extend(own);
            Ok(true)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_keys_come_first_and_give_way() {
        let anchors = "\u{feff}a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2, z: 2}\n";
        for (merging, expected) in [
            ("{<<: *a, y: 3}", "{x: 1, y: 3}"),
            ("{y: 3, <<: *a}", "{x: 1, y: 3}"),
            ("{<<: [*a, *b], w: 4}", "{x: 1, y: 1, z: 2, w: 4}"),
            ("{<<: [*b, *a]}", "{x: 1, y: 2, z: 2}"),
            ("{<<: {<<: {<<: *b}}}", "{x: 1, y: 2, z: 2}"),
            ("[{k: {<<: *a}}]", "[{k: {x: 1, y: 1}}]"),
            ("{<<: []}", "{}"),
        ] {
            let of = |text: &str| value(&format!("{anchors}c: {text}")).unwrap()["c"].clone();
            assert_eq!(yaml_serde::to_string(&of(merging)).unwrap(), yaml_serde::to_string(&of(expected)).unwrap());
        }
        for wrong in ["{<<: 3}", "{<<: }", "{<<: [[*a]]}", "{<<: [*a, x]}"] {
            let error = value(&format!("{anchors}c: {wrong}")).unwrap_err();
            assert!(error.contains("`<<` takes a mapping"), "{wrong}: {error}");
        }
    }

    #[test]
    fn faults_of_a_type_are_said_with_their_line() {
        let typed = |text: &str| typed::<std::collections::BTreeMap<String, u8>>(text);
        assert_eq!(typed("\u{feff}a: 1").unwrap()["a"], 1);
        assert!(typed("a: 1\nb: x").unwrap_err().contains("line 2"));
    }
}
