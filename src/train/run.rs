//! One cell from its first step to its last: train, evaluate, checkpoint, go on after a crash, stop when it diverges.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device};

use super::checkpoint::{self, Progress, Stored};
use super::direct::Direct;
use super::evaluate::{Bench, Measured, evaluate};
use super::existing::{
    CONFIG, Existing, SAMPLES, add_measured, adopt, differences, empty_folder, folder, refuse_without_checkpoint,
    settle,
};
use super::feed::{Draw, Feed, STRETCH};
use super::grid;
use super::lock::Lock;
use super::log::{self, Line, Log};
use super::probe::{OUTLOOK, outlook};
use super::recorded::Recorded;
use super::rows::{self, Origin};
use super::step::State;
use super::tensorboard;
use crate::config::{Cell, Weights};
use crate::critic::Critic;
use crate::data;
use crate::data::loader::Plan;
use crate::data::place::resident;
use crate::error::{Error, Result};
use crate::files::{remove_temporaries, write_bytes};
use crate::generators::{Generator, Mode, Restriction, is_conditional};
use crate::interrupt;
use crate::losses::Loss;
use crate::machine::memory;
use crate::machine::precision::Precision;
use crate::methods::{self, Choice};
use crate::results::{self, COST, PEAK, Row};
use crate::rng::Stream;

/// Name of a run's picture of generated images and the training images nearest to them.
pub const NEIGHBOURS: &str = "neighbours.png";
/// Longest time between checkpoints.
const CHECKPOINT_S: f64 = 300.0;

/// What a run tells whoever watches.
pub trait Watch {
    /// A step was made.
    fn step(&mut self, line: &Line);
    /// So many images of an evaluation are done.
    fn evaluating(&mut self, done: usize, of: usize);
    /// An evaluation ended.
    fn scores(&mut self, step: u64, weights: Weights, scores: &[Measured]);
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All steps were made.
    Finished,
    /// It stopped for this reason; the last good checkpoint is kept.
    Diverged(String),
    /// A signal asked for the end; it goes on from its checkpoint.
    Interrupted,
}

/// What makes a run's steps.
enum Maker {
    /// The CPU.
    Cpu(Box<Direct>),
    /// A device.
    Device(Box<Recorded>),
}

struct Run<'a> {
    cell: &'a Cell,
    bench: &'a Bench,
    choice: Choice,
    loss: Loss,
    folder: PathBuf,
    state: State,
    progress: Progress,
    rows: Vec<Row>,
    /// The log since the last evaluation.
    recent: Vec<Line>,
}

/// Trains a cell in its folder below `results`.
///
/// # Errors
/// When the folder cannot be used, or a device or file fails. A run that diverges is not an error.
pub fn run(results: &Path, cell: &Cell, bench: &Bench, existing: Existing, watch: &mut dyn Watch) -> Result<Outcome> {
    settle(results, cell, existing, &[])?;
    let folder = folder(results, cell);
    let _lock = Lock::acquire(&folder)?;
    remove_temporaries(&folder)?;
    let mut run = Run::open(folder, cell, bench, existing)?;
    if let Some(reason) = &run.progress.diverged {
        return Ok(Outcome::Diverged(reason.clone()));
    }
    // A fresh run, or one that began elsewhere.
    if run.rows.is_empty() {
        match run.evaluate(watch) {
            // Nothing is trained yet that a checkpoint could keep.
            Err(Error::Interrupted) => return Ok(Outcome::Interrupted),
            evaluated => evaluated?,
        };
        run.checkpoint(if run.progress.step < cell.train.steps { "running" } else { "finished" })?;
    }
    run.train(watch)
}

/// Number of classes that a cell's networks know, where no image need be decoded; those of unconditional networks are of no
/// consequence.
///
/// # Errors
/// When a cell's data cannot be opened, or a conditional one's has no classes.
pub fn classes(cell: &Cell) -> Result<usize> {
    data::classes(&cell.dataset, cell.split, is_conditional(&cell.arch))
}

/// The untrained networks of a cell over a data set of `classes` classes, with their optimisers.
///
/// # Errors
/// When the method or architecture is unknown, or makes images of another size.
pub fn networks(cell: &Cell, classes: usize, device: &Device) -> Result<(Choice, State)> {
    let choice = methods::require(&cell.method)?;
    let t = &cell.train;
    let stream = |purpose: &str| Stream::new(cell.seed, purpose, 0);
    let (spectral, dtype) = (choice.method.spectral(), DType::F32);
    let critic = Critic::new(&cell.arch, t.width, classes, spectral, &mut stream("critic/init"), dtype, device)?;
    let generator = Generator::new(&cell.arch, t.width, classes, &mut stream("generator/init"), dtype, device)?;
    if generator.side != cell.image_size {
        return Err(Error::invalid(format!(
            "{} makes {}×{} images, but the experiment asks for image_size {}",
            cell.arch, generator.side, generator.side, cell.image_size
        )));
    }
    Ok((choice, State::new(generator, critic, t.beta1)?))
}

impl<'a> Run<'a> {
    fn open(folder: PathBuf, cell: &'a Cell, bench: &'a Bench, existing: Existing) -> Result<Self> {
        let train = &bench.train;
        let classes = if is_conditional(&cell.arch) { train.labelled()? } else { train.classes };
        let (choice, mut state) = networks(cell, classes, &bench.compute.device)?;
        let checkpoint = folder.join(checkpoint::FILE);
        let images_sha256 = train.fingerprint().to_owned();
        let mut progress = Progress { images_sha256, ..Progress::untrained(cell, classes)? };
        let hash = progress.config_hash.clone();
        let mut rows = Vec::new();
        if existing == Existing::Resume && checkpoint.is_file() {
            progress = Stored::open(&checkpoint)?.restore(&mut state)?;
            progress.refuse_partial(&checkpoint)?;
            let of = |cell: &Cell| {
                serde_json::to_value(cell).map_err(|e| Error::content(&checkpoint, format!("cannot compare: {e}")))
            };
            let differing = differences(&of(&progress.cell)?, &of(cell)?);
            if differing.iter().any(|d| cell.changes.iter().all(|c| c.key != d.key)) {
                return Err(Error::content(&checkpoint, "belongs to another configuration than config.json beside it"));
            }
            if progress.config_hash != hash {
                let mut later = results::MEASURED.to_vec();
                later.retain(|name| folder.join(name).is_file());
                later.iter().try_for_each(|name| results::read(&folder.join(name)).map(drop))?;
                write_bytes(&folder.join(CONFIG), cell.json()?.as_bytes())?;
                later.iter().try_for_each(|name| add_measured(&folder, name, Vec::new()).map(drop))?;
                progress.cell = cell.clone();
                progress.config_hash = hash;
            }
            let now = train.fingerprint();
            // Earlier versions did not say what images were made from.
            let same = now
                .strip_prefix(progress.images_sha256.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
            if !progress.images_sha256.is_empty() && !same {
                let was = &progress.images_sha256;
                let what = format!("trained on other images of {} (SHA-256 {was}, now {now})", train.name);
                return Err(Error::content(&checkpoint, format!("{what}: give it back its data, or use --overwrite")));
            }
            now.clone_into(&mut progress.images_sha256);
            let path = folder.join(results::FILE);
            if path.is_file() {
                rows = results::read(&path)?;
                rows.retain(|r| r.step <= progress.step);
                adopt(&mut rows, cell)?;
                let ours = bench.first().extractor.weights_sha256();
                let device = &bench.instrument().device;
                if let Some(row) = rows.iter().find(|r| Precision::of(&r.device) != Precision::of(device)) {
                    return Err(Error::content(
                        &path,
                        format!("trained on {}, now on {}: go on with the same --precision", row.device, device),
                    ));
                }
                if let Some(row) = rows.iter().find(|r| !bench.measures_with(&r.extractor_sha256)) {
                    return Err(Error::content(
                        &path,
                        format!(
                            "measured with other weights of {} ({}, now {ours}); go on with the same --weights",
                            row.extractor, row.extractor_sha256
                        ),
                    ));
                }
            }
        } else {
            if existing == Existing::Resume {
                refuse_without_checkpoint(&folder)?;
            }
            empty_folder(&folder, cell)?;
        }
        let loss = rows::loss(cell)?;
        Ok(Self { cell, bench, choice, loss, folder, state, progress, rows, recent: Vec::new() })
    }

    fn train(&mut self, watch: &mut dyn Watch) -> Result<Outcome> {
        let t = &self.cell.train;
        let plan = Plan::new(self.bench.train.clone(), t.critic_batch, self.cell.seed, self.choice.consistency);
        let mut maker = self.maker(plan)?;
        let at_checkpoints = [COST, PEAK];
        let evaluations = self.rows.iter().filter(|r| !at_checkpoints.contains(&r.metric.as_str()));
        let evaluated = evaluations.map(|r| r.step).max().unwrap_or(0);
        let (mut log, recent) = Log::open(&self.folder.join(log::FILE), self.progress.step, evaluated)?;
        self.recent = recent;
        let (mut saved, mut flushed) = (Instant::now(), Instant::now());
        memory::reset_peak(&self.bench.compute.device)?;
        // A run that was interrupted in an evaluation makes it now.
        if self.is_due()
            && evaluated < self.progress.step
            && let Some(outcome) = self.evaluation(&mut log, watch)?
        {
            return Ok(outcome);
        }
        while self.progress.step < t.steps {
            if interrupt::requested().is_some() {
                log.flush()?;
                self.note_peak()?;
                self.checkpoint("running")?;
                return Ok(Outcome::Interrupted);
            }
            for line in self.stretch(&mut maker)? {
                log.write(&line)?;
                if let Some(fault) = line.fault() {
                    log.flush()?;
                    self.progress.step = line.step - 1;
                    return self.diverge(fault);
                }
                watch.step(&line);
                self.recent.push(line);
            }
            // For those who watch.
            if flushed.elapsed().as_secs_f64() > 1.0 {
                log.flush()?;
                flushed = Instant::now();
            }
            if self.is_due() {
                if let Some(outcome) = self.evaluation(&mut log, watch)? {
                    return Ok(outcome);
                }
                saved = Instant::now();
            } else if saved.elapsed().as_secs_f64() > CHECKPOINT_S {
                log.flush()?;
                self.note_peak()?;
                self.checkpoint("running")?;
                saved = Instant::now();
            }
        }
        // Its number of steps was lowered to those it had made.
        if !results::ended(&self.rows) {
            self.checkpoint("finished")?;
        }
        Ok(Outcome::Finished)
    }

    fn maker(&self, plan: Plan) -> Result<Maker> {
        let (t, step) = (&self.cell.train, self.progress.step);
        if !self.bench.compute.is_machine() {
            return Ok(Maker::Cpu(Box::new(Direct::start(self.cell, self.loss, plan, step))));
        }
        let bytes = resident(&plan.images.pixels, plan.images.side, &self.bench.compute.device)?;
        let draw = Draw {
            plan,
            train: t.clone(),
            latent: self.state.generator.latent,
            classes: self.state.generator.classes,
            mix: self.choice.method.penalty().is_some(),
            pairs: self.loss.pairs(),
            first: [step, self.state.critic_adam.updates, self.state.generator_adam.updates],
            resident: bytes.is_some(),
        };
        let feed = Feed::start(draw, self.state.critic.params.flat(), bytes)?;
        Ok(Maker::Device(Box::new(Recorded::new(feed, &self.state, self.bench.compute.graph)?)))
    }

    fn note_peak(&mut self) -> Result<()> {
        let peak = memory::peak_bytes(&self.bench.compute.device)?;
        self.progress.peak_bytes = self.progress.peak_bytes.max(peak.unwrap_or(0));
        Ok(())
    }

    /// Whether the step that was made last is one that is evaluated.
    fn is_due(&self) -> bool {
        let step = self.progress.step;
        step > 0 && (step == self.cell.train.steps || step.is_multiple_of(self.cell.eval.every))
    }

    /// Evaluates and saves; says how the run ends, if it does.
    fn evaluation(&mut self, log: &mut Log, watch: &mut dyn Watch) -> Result<Option<Outcome>> {
        log.flush()?;
        let step = self.progress.step;
        self.note_peak()?;
        match self.evaluate(watch) {
            Ok(()) => {}
            Err(fault @ Error::NotFinite(_)) => return self.diverge(format!("step {step}: {fault}")).map(Some),
            Err(Error::Interrupted) => {
                // It has left nothing, and is made again when the run goes on.
                self.checkpoint("running")?;
                return Ok(Some(Outcome::Interrupted));
            }
            Err(error) => return Err(error),
        }
        self.checkpoint(if step == self.cell.train.steps { "finished" } else { "running" })?;
        memory::reset_peak(&self.bench.compute.device)?;
        Ok(None)
    }

    /// Steps until what they measured is read: one, or on a device some, but never past an evaluation.
    fn stretch(&mut self, maker: &mut Maker) -> Result<Vec<Line>> {
        let (start, first) = (Instant::now(), self.progress.step);
        let measured = match maker {
            Maker::Cpu(direct) => {
                let measured = vec![direct.step(&mut self.state, &self.choice, first)?];
                self.progress.step += 1;
                measured
            }
            Maker::Device(recorded) => self.recorded(recorded)?,
        };
        let seconds = start.elapsed().as_secs_f64();
        self.progress.train_s += seconds;
        let step_s = seconds / measured.len() as f64;
        let with_norm = self.choice.linearises() || self.choice.method.penalty().is_some();
        let line = |(step, values): (u64, Vec<f64>)| Line {
            step,
            critic_loss: values[0],
            generator_loss: values[1],
            penalty: values[2],
            consistency: values[3],
            critic_gradient_norm: values[4],
            generator_gradient_norm: values[5],
            input_gradient_norm: values.get(6).copied().filter(|_| with_norm),
            step_s,
        };
        Ok((first + 1..).zip(measured).map(line).collect())
    }

    /// A stretch of steps on a device.
    fn recorded(&mut self, recorded: &mut Recorded) -> Result<Vec<Vec<f64>>> {
        let t = &self.cell.train;
        let until = [t.steps, (self.progress.step / self.cell.eval.every + 1).saturating_mul(self.cell.eval.every)];
        let most = until.map(|end| end.saturating_sub(self.progress.step)).into_iter().min().unwrap_or(0);
        let most = (most as usize).clamp(1, STRETCH);
        recorded.send(most)?;
        let mut made = 0;
        while made < most && (made == 0 || interrupt::requested().is_none()) {
            for _ in 0..t.critic_steps {
                recorded.critic_update(&mut self.state, &self.choice, self.loss)?;
            }
            recorded.generator_update(&mut self.state, &self.choice, self.loss)?;
            self.progress.step += 1;
            made += 1;
        }
        Ok(recorded.measured(made)?)
    }

    /// Scores the generators, adds their rows, and draws a sample grid. What fails or is interrupted leaves no row.
    fn evaluate(&mut self, watch: &mut dyn Watch) -> Result<()> {
        let mut rows = self.origin()?.traces(&self.recent)?;
        // Vectors of spectral normalisation mean nothing before the first update.
        if self.progress.step > 0 {
            let train = &self.bench.train;
            let n = OUTLOOK.min(train.len());
            let outlook = outlook(&self.state, &self.choice, self.loss, self.cell, train, n)?;
            rows.extend(self.origin()?.outlook_rows(&outlook, n)?);
        }
        let mut grid = Vec::new();
        for (rank, &weights) in self.cell.eval.weights.iter().enumerate() {
            let generator = self.state.generator(weights);
            let of = self.cell.eval.images;
            let scores = evaluate(generator, self.cell, self.bench, 0, &mut |done| watch.evaluating(done, of))?;
            rows.extend(self.origin()?.rows(weights, &scores)?);
            if rank == 0 {
                let path = self.folder.join(SAMPLES).join(format!("step-{:07}.png", self.progress.step));
                grid = grid::draw(generator, self.cell.seed, grid::OF_A_RUN, Mode::Batch, Restriction::default())?;
                write_bytes(&path, &grid)?;
            }
            watch.scores(self.progress.step, weights, &scores);
        }
        tensorboard::write(&self.folder, self.progress.step, &rows, &grid)?;
        self.rows.extend(rows);
        self.recent.clear();
        Ok(())
    }

    fn origin(&self) -> Result<Origin<'_>> {
        Origin::new(&self.progress, self.cell, self.bench.instrument())
    }

    /// Rows first, then the checkpoint: rows later than the checkpoint are dropped when the run goes on.
    fn checkpoint(&mut self, status: &str) -> Result<()> {
        self.write_rows(status)?;
        self.progress.updates = [self.state.critic_adam.updates, self.state.generator_adam.updates];
        checkpoint::save(&self.folder.join(checkpoint::FILE), &self.state, &self.progress)
    }

    fn write_rows(&mut self, status: &str) -> Result<()> {
        self.rows.retain(|r| r.metric != COST && r.metric != PEAK);
        if self.progress.step > 0 {
            let cost = self.origin()?.cost()?;
            self.rows.extend(cost);
        }
        for row in &mut self.rows {
            status.clone_into(&mut row.status);
        }
        results::write(&self.folder.join(results::FILE), &self.rows)
    }

    /// Records the end in the rows and in the last good checkpoint, whose networks stay as they were.
    fn diverge(&mut self, reason: String) -> Result<Outcome> {
        self.write_rows("diverged")?;
        let path = self.folder.join(checkpoint::FILE);
        let mut progress = Stored::open(&path)?.restore(&mut self.state)?;
        progress.diverged = Some(reason.clone());
        checkpoint::save(&path, &self.state, &progress)?;
        Ok(Outcome::Diverged(reason))
    }
}
