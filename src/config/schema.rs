//! The vocabulary of experiments for editors, as a JSON schema, and for people, as a page. Both are made of the tables that the
//! reader follows.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::keys::{EVAL, HEAD, SELECTION, TRAIN};
use super::reader::{Key, Otherwise};
use crate::critic;

/// The keys that hold mappings, and what these are.
const SECTIONS: [(&str, &str); 4] = [
    ("train", "Settings of training of all architectures."),
    ("architectures", "Architectures of both networks; below each, its own settings of training."),
    ("eval", "Settings of evaluation."),
    ("scales", "Named layers over the file, such as full and smoke, one of which `--scale` chooses."),
];

/// JSON schema (draft 7) of an experiment. What depends on several layers (that each setting is given by one, that an architecture makes
/// images of `image_size`) is for the program to say.
pub fn json() -> Value {
    let names = critic::ARCHITECTURES.map(|arch| (arch.to_owned(), reference("train")));
    let properties: Map<String, Value> = names.into_iter().collect();
    let mut file = properties_of(HEAD);
    file.extend(layer());
    file.insert(
        "scales".to_owned(),
        json!({"type": "object", "description": SECTIONS[3].1,
        "patternProperties": {"^[A-Za-z0-9_-]+$": reference("layer")}, "additionalProperties": false}),
    );
    let mut required: Vec<&str> =
        HEAD.iter().filter(|k| matches!(k.otherwise, Otherwise::Needed)).map(|k| k.name).collect();
    required.extend(["architectures", "scales"]);
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Experiment of pgn-bench",
        "type": "object",
        "properties": file,
        "required": required,
        "additionalProperties": false,
        "definitions": {
            "train": section(properties_of(TRAIN)),
            "eval": section(properties_of(EVAL)),
            "architectures": section(properties),
            "layer": section(layer()),
        }
    })
}

/// The file of [`json`].
pub fn text() -> String {
    format!("{:#}\n", json())
}

fn reference(definition: &str) -> Value {
    json!({"$ref": format!("#/definitions/{definition}")})
}

/// A mapping, which may be left empty.
fn section(properties: Map<String, Value>) -> Value {
    json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false})
}

fn layer() -> Map<String, Value> {
    let mut layer = properties_of(SELECTION);
    // What stands beside a reference is ignored, so that a description takes it into a list.
    let sections = &SECTIONS[..3];
    layer.extend(
        sections.iter().map(|(key, doc)| ((*key).to_owned(), json!({"description": doc, "allOf": [reference(key)]}))),
    );
    layer
}

fn properties_of(keys: &[Key]) -> Map<String, Value> {
    let property = |key: &Key| {
        let mut schema = key.kind.schema();
        schema["description"] = key.doc.trim().into();
        if let Otherwise::Yaml(text) = key.otherwise {
            schema["default"] = yaml_serde::from_str(text).unwrap_or_default();
        }
        (key.name.to_owned(), schema)
    };
    keys.iter().map(property).collect()
}

/// The keys as a page of Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# Keys of an experiment\n\nAn experiment is a YAML file. It has the keys of the first three tables; `train`, `architectures` and \
         `eval` hold those of the others. A scale (`scales: {smoke: {…}}`) is a layer over the file: `methods`, `seeds`, `train`, \
         `architectures` and `eval` again, of which it needs to say only what differs. Over both lies `--set`, as in `--set \
         train.steps=1000` or, for a part of a schedule, `--set train.gamma.to=0.01`. What an architecture says goes before what `train` \
         of the same layer says. A setting without a default is given by some layer.\n\n`pgn-bench schema` prints the same as a JSON \
         schema ([experiments/schema.json](../../experiments/schema.json)), with which editors complete and check these files: its first \
         line, `# yaml-language-server: $schema=schema.json`, names it.\n",
    );
    for (title, keys) in [("File", HEAD), ("File and scales", SELECTION)] {
        table(&mut page, title, keys);
    }
    page += "\n## Sections\n\n| key | holds |\n|---|---|\n";
    for (key, doc) in SECTIONS {
        let _ = writeln!(page, "| `{key}` | {doc} |");
    }
    for (title, keys) in [("`train`, and below each of `architectures`", TRAIN), ("`eval`", EVAL)] {
        table(&mut page, title, keys);
    }
    let _ = write!(
        page,
        "\nArchitectures, whose names end with the side of their images: {}.\n\n## Schedules\n\n`{{from: 2e-4, to: 5e-5, images: 2e7}}` is \
         half a cosine over the real images that the critic sees: to + (from − to)·(1 + cos(π·seen/images))/2, and `to` from then on. \
         `ema_decay: {{half_life: 5e5}}` forgets half over so many images, which may be a schedule too. With `lr_decay: linear` what the \
         schedules of both learning rates say is multiplied by 1 − step/steps.\n",
        critic::ARCHITECTURES.join(", ")
    );
    page
}

fn table(page: &mut String, title: &str, keys: &[Key]) {
    let _ = write!(page, "\n## {title}\n\n| key | values | default | meaning |\n|---|---|---|---|\n");
    for Key { name, doc, kind, otherwise } in keys {
        let default = match otherwise {
            Otherwise::Needed => String::new(),
            Otherwise::Nothing => "none".to_owned(),
            Otherwise::Yaml(text) => format!("`{text}`"),
            Otherwise::Train(key) => format!("`train.{key}`"),
        };
        let _ = writeln!(page, "| `{name}` | {} | {default} | {} |", kind.allowed(), doc.trim());
    }
}

#[cfg(test)]
mod tests {
    use super::super::Experiment;
    use super::*;

    #[test]
    fn the_schema_has_the_keys_that_the_reader_knows() {
        let schema = json();
        let keys = |of: &Value| of["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let definitions = &schema["definitions"];
        for (text, of) in [
            ("zzz: 1", &schema),
            ("scales: {a: {zzz: 1}}", &definitions["layer"]),
            ("train: {zzz: 1}", &definitions["train"]),
            ("architectures: {cnn32: {zzz: 1}}", &definitions["train"]),
            ("eval: {zzz: 1}", &definitions["eval"]),
        ] {
            let error = Experiment::parse("t", text, &[]).unwrap_err().to_string();
            let (_, known) = error.split_once("unknown key; known here: ").unwrap();
            let mut known: Vec<&str> = known.lines().next().unwrap().split(", ").collect();
            known.sort_unstable();
            let mut keys = keys(of);
            keys.sort();
            assert_eq!(keys, known, "{text}");
        }
        let error = Experiment::parse("t", "architectures: {zzz: 1}", &[]).unwrap_err().to_string();
        assert!(keys(&definitions["architectures"]).iter().all(|arch| error.contains(arch.as_str())), "{error}");
    }
}
