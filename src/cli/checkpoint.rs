//! `pgn-bench eval`, `sample` and `probe`: what the generator of a checkpoint is worth, what it draws, and how steep its
//! critic is.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use candle_core::Device;

use super::progress::{bar, followed};
use super::setup::{self, Place, Transformers, Weights, bench};
use super::terminal::{say, show};
use super::{choice, replicates};
use crate::config::{self, Cell, EXTRACTORS, Eval, ExtractorKind, MODES};
use crate::data::{Split, nearest, to_bytes};
use crate::error::AtPath;
use crate::files::{check_folder, check_output, has_extension, names_folder, short_weights, write_bytes, write_folder};
use crate::generators::{Mode, Restriction};
use crate::methods;
use crate::metrics::inception::resize::Resize;
use crate::metrics::scores::{METRICS, Metric};
use crate::nn::image::channels_first;
use crate::report::markdown::aligned;
use crate::results::{self, Row};
use crate::train::checkpoint::{self, Part, Progress, Stored};
use crate::train::evaluate::{evaluate as score, generate};
use crate::train::existing::{CONFIG, add_measured};
use crate::train::grid;
use crate::train::instrument::Instrument;
use crate::train::probe::measure;
use crate::train::rows::Origin;
use crate::train::run::{NEIGHBOURS, networks};
use crate::train::step::State;

#[derive(clap::Args)]
pub(super) struct EvalArgs {
    /// A run's folder (the rows are left there, as eval.parquet, and reports have them), or its checkpoint.safetensors
    checkpoint: PathBuf,
    /// Generated images
    #[arg(short, long)]
    n: Option<usize>,
    /// Images generated at a time, which matters where batch statistics are used
    #[arg(long)]
    batch: Option<usize>,
    /// Statistics that batch normalisation uses
    #[arg(long, value_parser = choice(&MODES))]
    batch_norm: Option<Mode>,
    /// Trained generator, or its moving average
    #[arg(long, value_delimiter = ',', value_parser = choice(&config::WEIGHTS))]
    generator: Vec<config::Weights>,
    /// Split that distances refer to
    #[arg(long, value_parser = choice(&Split::ALL))]
    reference: Option<Split>,
    /// What to measure; the Fréchet distance always is
    #[arg(long, value_delimiter = ',', value_parser = choice(&METRICS))]
    metrics: Vec<Metric>,
    /// Network that gives the features
    #[arg(long, value_parser = choice(&EXTRACTORS))]
    extractor: Option<ExtractorKind>,
    /// How images are brought to 299×299 pixels
    #[arg(long, value_parser = choice(&Resize::ALL))]
    resize: Option<Resize>,
    #[command(flatten)]
    weights: Weights,
    #[command(flatten)]
    transformers: Transformers,
    /// Give 95 % intervals of the Fréchet and kernel distances from N bootstrap replicates of the generated images
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = replicates)]
    bootstrap: usize,
    #[command(flatten)]
    place: Place,
    /// Write the rows to this Parquet file, and not into the run's folder
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object a number
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct SampleArgs {
    /// A run's checkpoint.safetensors, or its folder
    checkpoint: PathBuf,
    /// A grid (a name in .png), tensors with the latents (a name in .safetensors), or a new folder with one PNG file an image
    #[arg(short, long)]
    output: PathBuf,
    /// Images; a grid is filled to whole rows
    #[arg(short, long, default_value_t = 64)]
    n: usize,
    /// Columns of a grid; a conditional generator has one for each class
    #[arg(long, default_value_t = 8)]
    columns: usize,
    /// Seed of the latents; the run's own if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Images of this class only, counted from 0 (of a conditional generator)
    #[arg(long, value_name = "K")]
    class: Option<u16>,
    /// Draw numbers of the latents anew whose absolute value is above PSI: fewer and more typical images
    #[arg(long, value_name = "PSI", value_parser = truncation)]
    truncation: Option<f32>,
    /// Statistics that batch normalisation uses; the run's own if not given
    #[arg(long, value_parser = choice(&MODES))]
    batch_norm: Option<Mode>,
    /// Trained generator, or its moving average; the run's own if not given
    #[arg(long, value_parser = choice(&config::WEIGHTS))]
    generator: Option<config::Weights>,
    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
pub(super) struct ProbeArgs {
    /// A run's folder (the rows are left there, as probe.parquet), or its checkpoint.safetensors
    checkpoint: PathBuf,
    /// Images of each set
    #[arg(short, long, default_value_t = 1000)]
    n: usize,
    /// Split of the real images; the run's own if not given
    #[arg(long, value_parser = choice(&Split::ALL))]
    split: Option<Split>,
    #[command(flatten)]
    place: Place,
    /// Print one JSON object a number
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct NeighboursArgs {
    /// A run's folder (the picture is left there, as neighbours.png, and reports show it), or its checkpoint.safetensors
    checkpoint: PathBuf,
    /// Generated images
    #[arg(short, long, default_value_t = 8)]
    n: usize,
    /// Training images beside each
    #[arg(short, default_value_t = 7)]
    k: usize,
    /// The picture, a name in .png
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

pub(super) fn open(path: &Path) -> Result<Stored> {
    Ok(Stored::open(&if path.is_dir() { path.join(checkpoint::FILE) } else { path.to_path_buf() })?)
}

/// Checks a file of rows before the work that fills it starts: one that is there already is one of rows, and of no run's training.
pub(super) fn check_rows(path: &Path) -> Result<()> {
    check_output(path, Some("parquet"))?;
    if path.file_name().is_some_and(|name| name == results::FILE) && path.with_file_name(CONFIG).is_file() {
        bail!("{} is the record of the run's training: give another name", path.display());
    }
    if path.is_file() {
        results::read(path)?;
    }
    Ok(())
}

pub(super) fn restore(stored: Stored, device: &Device) -> Result<(State, Progress)> {
    let (_, mut state) = networks(&stored.progress.cell, stored.progress.classes, device)?;
    let progress = stored.restore(&mut state)?;
    Ok((state, progress))
}

/// The evaluation asked for: the run's own, with what the arguments replace.
fn asked(args: &EvalArgs, of: &Progress) -> Result<Eval> {
    let own = &of.cell.eval;
    let mut metrics = args.metrics.clone();
    if !metrics.is_empty() && !metrics.contains(&Metric::FID) {
        metrics.insert(0, Metric::FID);
    }
    if metrics.is_empty() {
        metrics.clone_from(&own.metrics);
    }
    let weights = if args.generator.is_empty() { of.generators() } else { args.generator.clone() };
    of.require(&args.checkpoint, &weights.iter().map(|w| Part::of(*w)).collect::<Vec<_>>())?;
    let images = args.n.unwrap_or(own.images);
    let batch = args.batch.unwrap_or(own.batch);
    if images < 100 || batch < 2 {
        bail!("an evaluation needs at least 100 images (-n {images}) in batches of 2 or more (--batch {batch})");
    }
    Ok(Eval {
        every: own.every,
        images,
        reference: args.reference.unwrap_or(own.reference),
        batch_norm: args.batch_norm.unwrap_or(own.batch_norm),
        weights,
        batch,
        extractor: args.extractor.unwrap_or(own.extractor),
        resize: args.resize.unwrap_or(own.resize),
        metrics,
    })
}

pub(super) fn evaluate(args: &EvalArgs) -> Result<()> {
    let is_run = args.checkpoint.is_dir();
    if let Some(path) = &args.output {
        check_rows(path)?;
    } else if is_run {
        check_rows(&args.checkpoint.join(results::EVAL))?;
    }
    let stored = open(&args.checkpoint)?;
    let cell = Cell { eval: asked(args, &stored.progress)?, ..stored.progress.cell.clone() };
    setup::check(&cell, &args.weights, &args.transformers, false)?;
    let compute = args.place.open()?;
    let (state, progress) = restore(stored, &compute.device)?;
    let bench = bench(&cell, (&args.weights, &args.transformers), &compute)?;
    let origin = Origin::new(&progress, &cell, bench.instrument())?;
    let mut rows = Vec::new();
    for &weights in &cell.eval.weights {
        let progress = bar(&format!("{} ({})", cell.name(), weights.id()), cell.eval.images as u64, "images");
        let done = &mut |done| progress.set_position(done as u64);
        let scores = score(state.generator(weights), &cell, &bench, args.bootstrap, done)?;
        progress.finish_and_clear();
        rows.extend(origin.rows(weights, &scores)?);
    }
    let status = if progress.diverged.is_some() { "diverged" } else { results::EVALUATED };
    rows.iter_mut().for_each(|row| status.clone_into(&mut row.status));
    if let Some(path) = &args.output {
        results::write(path, &rows)?;
    } else if is_run {
        add_measured(&args.checkpoint, results::EVAL, rows.clone())?;
    }
    if args.json {
        for row in &rows {
            say(serde_json::to_string(row)?);
        }
    } else {
        show(shown(&rows));
        let over = |row: &Row| (row.extractor_sha256.clone(), row.resize.clone());
        for row in rows
            .iter()
            .enumerate()
            .filter(|(i, row)| rows[..*i].iter().all(|r| over(r) != over(row)))
            .map(|(_, row)| row)
        {
            say(format_args!(
                "{} at step {}, over {} ({}…), resize {}, batch norm: {}",
                cell.name(),
                row.step,
                row.extractor,
                short_weights(&row.extractor_sha256),
                row.resize,
                row.batch_norm
            ));
        }
    }
    Ok(())
}

pub(super) fn probe(args: &ProbeArgs) -> Result<()> {
    let is_run = args.checkpoint.is_dir();
    if is_run {
        check_rows(&args.checkpoint.join(results::PROBE))?;
    }
    let compute = args.place.open()?;
    let stored = open(&args.checkpoint)?;
    stored.progress.require(&args.checkpoint, &[Part::Critic, Part::Generator])?;
    let cell = stored.progress.cell.clone();
    let split = args.split.unwrap_or(cell.split);
    let images = setup::loaded(&cell, split)?;
    let (state, progress) = restore(stored, &compute.device)?;
    let choice = methods::require(&cell.method)?;
    let n = args.n.min(images.len());
    let samples = followed(&format!("critic of {}", cell.name()), "sets", |progress| {
        Ok(measure(&state, &choice, &cell, &images, n, progress)?)
    })?;
    let instrument = Instrument::new(None, &images, &compute);
    let eval = Eval { reference: split, batch_norm: Mode::Batch, ..cell.eval.clone() };
    let cell = Cell { eval, ..cell };
    let origin = Origin::new(&progress, &cell, &instrument)?;
    let mut rows = origin.probe_rows(&samples)?;
    rows.iter_mut().for_each(|row| results::EVALUATED.clone_into(&mut row.status));
    if is_run {
        add_measured(&args.checkpoint, results::PROBE, rows.clone())?;
    }
    if args.json {
        for row in &rows {
            say(serde_json::to_string(row)?);
        }
        return Ok(());
    }
    let head = ["quantity", "on", "n", "mean", "median", "99 %", "max"].map(str::to_owned);
    let lines = samples.iter().map(|s| {
        let numbers = [s.mean(), s.quantile(0.5), s.quantile(0.99), s.quantile(1.0)].map(|v| format!("{v:.4e}"));
        let names = [s.quantity.to_owned(), s.on.clone(), s.values.len().to_string()];
        names.into_iter().chain(numbers).collect()
    });
    show(aligned(&head, lines.collect()));
    say(format_args!(
        "{} at step {}, {} images of {}: norm of the gradient of f̂ (exact), and |f̂(a) − f̂(b)|/‖a − b‖ of pairs",
        cell.name(),
        progress.step,
        n,
        images.name
    ));
    Ok(())
}

fn shown(rows: &[Row]) -> String {
    let head = ["metric", "generator", "value", "std", "95 % interval", "warning"].map(str::to_owned);
    let lines = rows.iter().map(|row| {
        vec![
            row.metric.clone(),
            row.weights.clone(),
            format!("{:.6}", row.value),
            row.std.map_or_else(|| "–".to_owned(), |std| format!("{std:.6}")),
            row.low.zip(row.high).map_or_else(|| "–".to_owned(), |(low, high)| format!("{low:.6} to {high:.6}")),
            row.warning.clone(),
        ]
    });
    aligned(&head, lines.collect())
}

pub(super) fn neighbours(args: &NeighboursArgs) -> Result<()> {
    let in_run = || args.checkpoint.is_dir().then(|| args.checkpoint.join(NEIGHBOURS));
    let Some(output) = args.output.clone().or_else(in_run) else {
        bail!("name the picture as -o FILE.png, or give the run's folder");
    };
    check_output(&output, Some("png"))?;
    let compute = args.place.open()?;
    let (state, progress) = restore(open(&args.checkpoint)?, &compute.device)?;
    let generator = state.generator(progress.generators()[0]);
    let cell = progress.cell;
    let images = setup::loaded(&cell, cell.split)?;
    if args.n < 2 || args.k == 0 || args.k > images.len() {
        bail!("-n {} -k {}: at least two images, and one to {} neighbours", args.n, args.k, images.len());
    }
    let latents = generator.latents(cell.seed, "samples/latents", 0, args.n)?;
    let generated = to_bytes(&generator.images(&latents, Mode::Batch)?)?;
    let mut tiles = Vec::new();
    for image in generated.chunks_exact(generator.side * generator.side * 3) {
        tiles.extend_from_slice(image);
        for near in nearest(image, &images, args.k) {
            tiles.extend_from_slice(images.image(near));
        }
    }
    write_bytes(&output, &grid::tile(&tiles, generator.side, args.k + 1, grid::ZOOM)?)?;
    say(format_args!(
        "{}: in each row a generated image, then the {} nearest of {}",
        output.display(),
        args.k,
        images.name
    ));
    Ok(())
}

/// Least bound of a latent's numbers: of a hundred normal ones, one or so is within it.
const TIGHTEST: f32 = 0.01;

/// A bound of a latent's numbers.
fn truncation(text: &str) -> Result<f32, String> {
    let bound = text.parse().ok().filter(|&bound: &f32| bound >= TIGHTEST);
    bound.ok_or_else(|| format!("expected a number from {TIGHTEST}: latents are standard normal"))
}

/// What `sample` draws.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drawing {
    Grid,
    Tensors,
    Folder,
}

impl Drawing {
    /// What a name asks for.
    fn of(output: &Path) -> Result<Self> {
        let drawing = match output.extension() {
            _ if names_folder(output) => Self::Folder,
            _ if has_extension(output, "png") => Self::Grid,
            _ if has_extension(output, "safetensors") => Self::Tensors,
            // A number, as in `width-0.5`, is no type of file.
            Some(e) if e.as_encoded_bytes().iter().any(u8::is_ascii_alphabetic) => bail!(
                "{}: images go into a grid (.png), tensors (.safetensors) or a folder, whose name ends in / when it has a dot",
                output.display()
            ),
            _ => Self::Folder,
        };
        match drawing {
            Self::Folder => check_folder(output)?,
            Self::Grid | Self::Tensors => check_output(output, None)?,
        }
        Ok(drawing)
    }
}

pub(super) fn sample(args: &SampleArgs) -> Result<()> {
    let drawing = Drawing::of(&args.output)?;
    let compute = args.place.open()?;
    let (state, progress) = restore(open(&args.checkpoint)?, &compute.device)?;
    let weights = args.generator.unwrap_or(progress.generators()[0]);
    progress.require(&args.checkpoint, &[Part::of(weights)])?;
    let own = progress.cell;
    let generator = state.generator(weights);
    let mode = args.batch_norm.unwrap_or(own.eval.batch_norm);
    let seed = args.seed.unwrap_or(own.seed);
    if args.n < 2 || args.columns == 0 {
        bail!("-n {} --columns {}: at least two images and one column", args.n, args.columns);
    }
    match (args.class, generator.classes) {
        (Some(_), None) => bail!("--class: {} is unconditional, it knows no classes", own.arch),
        (Some(class), Some(classes)) if usize::from(class) >= classes => {
            bail!("--class {class}: {} knows the classes 0 to {}", own.name(), classes - 1)
        }
        _ => {}
    }
    let within = Restriction { class: args.class, truncation: args.truncation };
    if drawing == Drawing::Grid {
        let grid = grid::draw(generator, seed, [args.n.div_ceil(args.columns), args.columns], mode, within)?;
        return Ok(write_bytes(&args.output, &grid)?);
    }
    if drawing == Drawing::Tensors {
        let latents = generator.latents_within(seed, "samples/latents", (0, args.n), within)?;
        let images = channels_first(&generator.images(&latents, mode)?)?;
        let labels = latents.labels.map(|l| ("labels", l));
        let tensors = [("z", latents.z), ("images", images)].into_iter().chain(labels);
        return Ok(write_bytes(&args.output, &safetensors::serialize(tensors, None)?)?);
    }
    let cell = Cell { seed, eval: Eval { images: args.n, batch_norm: mode, ..own.eval.clone() }, ..own };
    let progress = bar("images", args.n as u64, "images");
    let stride = generator.side * generator.side * 3;
    write_folder(&args.output, |part| {
        generate(generator, &cell, within, |pixels| {
            for image in pixels.chunks_exact(stride) {
                let path = part.join(format!("{:06}.png", progress.position()));
                std::fs::write(&path, grid::encode(image, generator.side)?).at("write", &path)?;
                progress.inc(1);
            }
            Ok(())
        })
    })?;
    progress.finish_and_clear();
    say(format_args!("{} images of the {} generator in {}", args.n, weights.id(), args.output.display()));
    Ok(())
}
