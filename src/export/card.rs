//! The README of an exported run: metadata as the Hub reads it (hub-docs, `modelcard.md`), then what a reader wants.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Form, GENERATOR, GRAPH, generators, samples};
use crate::config::Weights;
use crate::error::{Error, Result};
use crate::files::short_weights;
use crate::generators::onnx::{CLASSES, LATENTS};
use crate::results::{self, Row, is_score, measure};
use crate::train::checkpoint::Progress;
use crate::train::existing::CONFIG;
use crate::train::rows::loss;
use crate::train::tensorboard;

const TASK: &str = "unconditional-image-generation";

#[derive(Serialize)]
struct Metadata<'a> {
    library_name: &'static str,
    pipeline_tag: &'static str,
    tags: Vec<&'a str>,
    #[serde(rename = "model-index", skip_serializing_if = "Vec::is_empty")]
    models: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    name: String,
    results: Vec<Measured<'a>>,
}

#[derive(Serialize)]
struct Measured<'a> {
    task: Named<'a>,
    dataset: Data<'a>,
    metrics: Vec<Metric<'a>>,
}

#[derive(Serialize)]
struct Named<'a> {
    r#type: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct Data<'a> {
    r#type: &'a str,
    name: &'a str,
    split: &'a str,
}

#[derive(Serialize)]
struct Metric<'a> {
    r#type: &'a str,
    name: String,
    value: f64,
    args: BTreeMap<&'static str, String>,
}

/// The numbers of the last evaluation.
fn last<'a>(progress: &Progress, rows: &'a [Row]) -> Vec<&'a Row> {
    let is_last = |row: &&Row| row.step == progress.step && is_score(&row.metric) && row.value.is_finite();
    rows.iter().filter(is_last).collect()
}

/// All that a number depends on, in words.
fn protocol(row: &Row) -> String {
    let of = if row.metric.contains('_') {
        format!(" against the {} split (SHA-256 {})", row.reference, row.reference_sha256)
    } else {
        String::new()
    };
    format!(
        "{} images of the {} generator after {} updates{of}; features of {} (weights SHA-256 {}), resize {}; batch normalisation by {} \
         statistics; pgn-bench {}",
        row.n, row.weights, row.step, row.extractor, row.extractor_sha256, row.resize, row.batch_norm, row.code_version
    )
}

fn metric(row: &Row) -> Metric<'_> {
    Metric {
        r#type: measure(&row.metric),
        name: format!("{} ({})", row.metric, row.weights),
        value: row.value,
        args: BTreeMap::from([("protocol", protocol(row))]),
    }
}

fn metadata(progress: &Progress, rows: &[&Row]) -> Result<String> {
    let cell = &progress.cell;
    let mut by_reference = BTreeMap::<&str, Vec<&Row>>::new();
    rows.iter().for_each(|row| by_reference.entry(&row.reference).or_default().push(row));
    let dataset = cell.dataset.name();
    let results = by_reference.iter().map(|(reference, rows)| Measured {
        task: Named { r#type: TASK, name: "Unconditional Image Generation" },
        dataset: Data { r#type: &dataset, name: &dataset, split: reference },
        metrics: rows.iter().map(|row| metric(row)).collect(),
    });
    let model = Model { name: cell.name(), results: results.collect() };
    let metadata = Metadata {
        library_name: "pgn-bench",
        pipeline_tag: TASK,
        tags: vec!["gan", "onnx", &cell.arch, &cell.method],
        models: if rows.is_empty() { Vec::new() } else { vec![model] },
    };
    yaml_serde::to_string(&metadata).map_err(|e| Error::invalid(format!("metadata cannot be written: {e}")))
}

/// A program of ten lines that draws images.
fn program(form: &Form) -> String {
    let generator = form.generator;
    let classes = generator.classes.map_or(String::new(), |n| format!(", \"{CLASSES}\": np.arange(64) % {n}"));
    format!(
        r#"import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{GRAPH}")
z = np.random.default_rng(0).standard_normal((64, {latent}), dtype=np.float32)
images = session.run(None, {{"{LATENTS}": z{classes}}})[0]  # [64, 3, {side}, {side}] in [-1, 1]
pixels = ((images + 1) * 127.5).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
for number, image in enumerate(pixels):
    Image.fromarray(image).save(f"{{number:02}}.png")
"#,
        latent = generator.latent,
        side = generator.side,
    )
}

/// The whole file.
pub(super) fn text(progress: &Progress, rows: &[Row], form: &Form) -> Result<String> {
    let (cell, rows) = (&progress.cell, last(progress, rows));
    let (name, side, dataset) = (cell.name(), cell.image_size, cell.dataset.name());
    let mut text = format!("---\n{}---\n\n# {name}\n\n", metadata(progress, &rows)?);
    for weights in generators(progress) {
        text += &format!("![Images of the {} generator]({})\n\n", weights.id(), samples(weights));
    }
    let conditional = form.generator.classes.map_or(String::new(), |n| format!(" of {n} classes"));
    text += &format!(
        "A generator of {side}×{side} images{conditional}, trained by pgn-bench on {dataset} ({} split) for {} of {} updates: architecture \
         `{}` at width {}, a critic with `{}`, the loss `{}`, seed {}.\n\n",
        cell.split,
        progress.step,
        cell.train.steps,
        cell.arch,
        cell.train.width,
        cell.method,
        loss(cell)?.id(),
        cell.seed
    );
    if let Some(reason) = &progress.diverged {
        text += &format!("The run diverged ({reason}): this is its last good checkpoint.\n\n");
    }
    if !rows.is_empty() {
        text.push_str("| metric | generator | value | extractor | weights | batch norm |\n|---|---|---|---|---|---|\n");
    }
    for row in &rows {
        let Row { metric, weights, value, extractor, extractor_sha256, batch_norm, .. } = row;
        let hash = short_weights(extractor_sha256);
        text += &format!("| {metric} | {weights} | {value:.4} | {extractor} | {hash}… | {batch_norm} |\n");
    }
    let (latent, program, normalisation) = (form.generator.latent, program(form), form.normalisation());
    let classes = form
        .generator
        .classes
        .map_or(String::new(), |n| format!(" and `{CLASSES}` `[N]` (int64, classes 0 to {})", n - 1));
    text += &format!(
        "\n## Drawing images\n\n`pip install numpy onnxruntime pillow`, then\n\n```python\n{program}```\n\n`{GRAPH}` (IR version {ir}, operators of \
         version {opset}) takes latents `{LATENTS}` `[N, {latent}]` (float32, standard normal){classes} and gives `images` `[N, 3, {side}, {side}]` \
         (float32, red, green, blue, in [-1, 1]; clip what leaves it). It is the {weights} generator. {normalisation}\n\n`pgn-bench import FOLDER` \
         takes this folder back: `eval` and `sample` then work as on the run.\n\n\
         | file | holds |\n|---|---|\n| `{GENERATOR}` | {kinds}, under the names of the released code |\n| `{CONFIG}` | the configuration it was \
         trained with |\n| `{rows_file}`, and what else ends in `.parquet` | every measured number with its protocol |\n| `{events}/` | TensorBoard's events |\n",
        ir = crate::onnx::IR_VERSION,
        opset = crate::onnx::OPSET,
        weights = form.weights.id(),
        kinds = kinds(progress),
        rows_file = results::FILE,
        events = tensorboard::FOLDER,
    );
    Ok(text)
}

/// The generators in words.
fn kinds(progress: &Progress) -> String {
    let kind = |weights: Weights| match weights {
        Weights::Raw => "the trained generator (`net_G.…`)",
        Weights::Ema => "its moving average (`ema_G.…`)",
    };
    generators(progress).map(kind).collect::<Vec<_>>().join(" and ")
}
