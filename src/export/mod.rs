//! A run's generator as a folder to give away, laid out as a repository of the Hugging Face Hub; and the way back.

mod card;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};

use crate::config::Weights;
use crate::error::{AtPath, Error, Result};
use crate::files::{create_folder, refuse_pointer, walk, write_bytes, write_folder};
use crate::generators::{Generator, Mode, Restriction};
use crate::results::{self, Row};
use crate::train::checkpoint::{Part, Progress, read_scalars, scalars};
use crate::train::existing::CONFIG;
use crate::train::step::State;
use crate::train::{grid, import, tensorboard};

/// The generators, by the names of the released code: `net_G.…` as trained, `ema_G.…` averaged.
pub const GENERATOR: &str = "generator.safetensors";
/// One generator as a graph.
pub const GRAPH: &str = "generator.onnx";
/// What the folder says of itself.
pub const CARD: &str = "README.md";

/// What is exported as a graph: one of the generators, normalised by these statistics.
pub struct Form<'a> {
    /// The generator.
    pub generator: &'a Generator,
    /// Which of the run's it is.
    pub weights: Weights,
    /// Statistics of batch normalisation.
    pub mode: Mode,
    /// Images of a batch of the run's evaluation.
    batch: usize,
}

impl<'a> Form<'a> {
    /// Of a run's generator.
    pub fn new((state, progress): (&'a State, &Progress), weights: Weights, mode: Mode) -> Self {
        Self { generator: state.generator(weights), weights, mode, batch: progress.cell.eval.batch }
    }

    /// What batch normalisation does, in words.
    fn normalisation(&self) -> String {
        let normalises = self.generator.buffers.layout().any(|(name, _)| name.ends_with("running_mean"));
        match self.mode {
            _ if !normalises => "There is no batch normalisation: an image depends on its own latent alone.".to_owned(),
            Mode::Running => {
                "Batch normalisation uses the running statistics of training: an image depends on its own latent alone."
                    .to_owned()
            }
            Mode::Batch | Mode::Train => format!(
                "Batch normalisation uses the statistics of the batch, as the released code evaluates: an image depends on the others \
                 drawn with it. Evaluations of the run drew {} at a time; small batches give other images.",
                self.batch
            ),
        }
    }

    fn graph(&self, progress: &Progress) -> Result<Vec<u8>> {
        let cell = &progress.cell;
        let notes = [
            ("generator", self.weights.id().to_owned()),
            ("batch_norm", self.normalisation()),
            ("step", progress.step.to_string()),
            ("config_hash", progress.config_hash.clone()),
        ];
        let description = format!("{} of pgn-bench: latents to images in [-1, 1], channels first", cell.name());
        Ok(self.generator.graph(self.mode)?.model(&cell.arch, &description, &notes))
    }
}

/// The generators that a run has.
fn generators(progress: &Progress) -> impl Iterator<Item = Weights> {
    [Weights::Raw, Weights::Ema].into_iter().filter(|weights| progress.has(*weights))
}

/// Name of the sample grid of a generator.
fn samples(weights: Weights) -> String {
    format!("samples-{}.png", weights.id())
}

/// Writes the run in folder `run` to the new folder `into`, whole or not at all.
///
/// # Errors
/// When something but an empty folder is there, or a file of either cannot be read or written.
pub fn write(run: &Path, into: &Path, (state, progress): (&State, &Progress), form: &Form) -> Result<()> {
    let cell = &progress.cell;
    write_folder(into, |folder| {
        let mut measured: Vec<Row> = Vec::new();
        for name in results::FILES {
            let path = run.join(name);
            if path.is_file() {
                copy(&path, &folder.join(name))?;
            }
        }
        // What training measured comes before what was measured again.
        for path in [results::FILE, results::EVAL].map(|name| run.join(name)).into_iter().filter(|p| p.is_file()) {
            let mut rows = results::read(&path)?;
            rows.retain(|row| !measured.iter().any(|had| had.is_again(row)));
            measured.extend(rows);
        }
        write_bytes(&folder.join(CONFIG), cell.json()?.as_bytes())?;
        write_bytes(&folder.join(GENERATOR), &tensors(state, progress)?)?;
        write_bytes(&folder.join(GRAPH), &form.graph(progress)?)?;
        for weights in generators(progress) {
            let grid = grid::draw(
                state.generator(weights),
                cell.seed,
                grid::OF_A_RUN,
                cell.eval.batch_norm,
                Restriction::default(),
            )?;
            write_bytes(&folder.join(samples(weights)), &grid)?;
        }
        let events = run.join(tensorboard::FOLDER);
        if events.is_dir() {
            create_folder(&folder.join(tensorboard::FOLDER))?;
            for file in walk(&events, Path::is_file)? {
                copy(&file, &folder.join(tensorboard::FOLDER).join(file.file_name().unwrap_or_default()))?;
            }
        }
        write_bytes(&folder.join(CARD), card::text(progress, &measured, form)?.as_bytes())
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    write_bytes(to, &std::fs::read(from).at("read", from)?)
}

/// The generators as the bytes of a safetensors file, the run's scalars in its metadata.
fn tensors(state: &State, progress: &Progress) -> Result<Vec<u8>> {
    let mut all = BTreeMap::<String, Tensor>::new();
    for weights in generators(progress) {
        let named = state.generator(weights).state()?;
        all.extend(named.into_iter().map(|(name, tensor)| (format!("{}.{name}", Part::of(weights).key()), tensor)));
    }
    let mut lacking = progress.lacking.clone();
    lacking.extend([Part::Critic, Part::GeneratorAdam, Part::CriticAdam]);
    let unfit = |e: String| Error::invalid(format!("{GENERATOR} cannot be serialised: {e}"));
    let notes = scalars(&Progress { lacking, ..progress.clone() }).map_err(|e| unfit(e.to_string()))?;
    safetensors::serialize(all, Some(notes)).map_err(|e| unfit(e.to_string()))
}

/// Reads the run that [`write`] left in a folder: without its critic, it is measured and drawn, but not trained on.
///
/// # Errors
/// When it is no such folder, or its file is damaged or of other networks than it says.
pub fn read(folder: &Path, device: &Device) -> Result<(State, Progress)> {
    let path = folder.join(GENERATOR);
    refuse_pointer(&path)?;
    let bad = |what: String| Error::content(&path, format!("not the generator of an exported run: {what}"));
    let bytes = std::fs::read(&path).at("read", &path)?;
    let (progress, header) = read_scalars(&path, &bytes, &bad)?;
    // Before networks are built of a size that the file does not have.
    let (arch, width) = (&progress.cell.arch, progress.cell.train.width);
    let needed = Generator::parameters(arch, width, progress.classes)?;
    let stored: usize = header.tensors().values().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    if stored < needed {
        return Err(bad(format!("{stored} numbers, but {arch} of width {width} has {needed}")));
    }
    let (state, imported) = import::read(&path, &progress.cell, progress.classes, device)?;
    Ok((state, Progress { lacking: imported.lacking, ..progress }))
}
