//! What the updates of training steps on a device are given: rows of numbers, drawn ahead on a thread and sent some steps at a time in
//! one copy. They are the same numbers as on the CPU.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use candle_core::{Device, Tensor};

use super::step::GeneratorBatch;
use crate::config::Train;
use crate::data::loader::{Drawn, Plan};
use crate::data::place::{Place, as_numbers, place_images, placed};
use crate::error::{Error, Result};
use crate::generators::{Latents, drawn_latents};
use crate::machine::current;
use crate::nn::augment::{NUMBERS, drawn};
use crate::nn::image::ones_at;
use crate::nn::op::either;
use crate::optim::Adam;
use crate::rng::Stream;
use crate::words;

/// Steps of a copy, after which a device is asked what they measured: to ask is to wait for it.
pub const STRETCH: usize = 8;
/// Fields begin at multiples of this many numbers, and rows after as many.
const ALIGNMENT: usize = 64;
/// Numbers of an optimiser's schedule.
const SCHEDULE: usize = 4;
/// Steps that the thread may be ahead.
const AHEAD: usize = 2 * STRETCH;

/// A field of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Latents,
    /// Classes of the latents.
    Classes,
    Real,
    RealClasses,
    Augmented,
    /// Weights of the real images in interpolations.
    Mix,
    /// Schedule of the optimiser.
    Schedule,
    /// How images are augmented.
    Augmentation,
    /// γ of a zero-centred penalty.
    Gamma,
    /// Decay of the average and what it leaves.
    Decay,
}

/// Fields and their extents `[rows, columns]`.
struct Layout(Vec<(Field, [usize; 2])>);

impl Layout {
    fn numbers(&self) -> usize {
        self.0.iter().map(|(_, [rows, columns])| (rows * columns).next_multiple_of(ALIGNMENT)).sum()
    }

    /// A field of a row, `[rows, columns]`.
    fn view(&self, row: &Tensor, wanted: Field) -> candle_core::Result<Option<Tensor>> {
        let mut at = 0;
        for &(field, [rows, columns]) in &self.0 {
            if field == wanted {
                return row.narrow(0, at, rows * columns)?.reshape((rows, columns)).map(Some);
            }
            at += (rows * columns).next_multiple_of(ALIGNMENT);
        }
        Ok(None)
    }
}

/// What rows are drawn from.
#[derive(Clone)]
pub struct Draw {
    /// The data.
    pub plan: Plan,
    /// Training settings.
    pub train: Train,
    /// Width of a latent.
    pub latent: usize,
    /// Classes of conditional networks.
    pub classes: Option<usize>,
    /// Whether images are interpolated.
    pub mix: bool,
    /// Whether generated images are compared with real ones of their classes.
    pub pairs: bool,
    /// First step, and updates of critic and generator before it.
    pub first: [u64; 3],
    /// Whether the data set's bytes live on the device.
    pub resident: bool,
}

/// The weights of real images in interpolations of a critic update.
pub fn drawn_mix(seed: u64, number: u64, n: usize) -> Vec<f32> {
    let mut stream = Stream::new(seed, "critic/mix", number);
    (0..n).map(|_| stream.uniform() as f32).collect()
}

/// How the `n` images that a critic sees in an update of a kind are augmented, given their side, each operation with probability `p`.
pub fn drawn_augmentation(seed: u64, purpose: &str, number: u64, [n, side]: [usize; 2], p: f64) -> Vec<f32> {
    drawn(&mut Stream::new(seed, &format!("{purpose}/augmentation"), number), n, side, p)
}

impl Draw {
    fn layouts(&self) -> [Layout; 2] {
        let (t, side) = (&self.train, self.plan.images.side);
        let image = if self.resident { 4 } else { side * side * 3 };
        let critic = [
            Some((Field::Latents, [t.critic_batch, self.latent])),
            self.classes.map(|k| (Field::Classes, [t.critic_batch, k])),
            Some((Field::Real, [t.critic_batch, image])),
            self.classes.map(|k| (Field::RealClasses, [t.critic_batch, k])),
            self.plan.augment.then_some((Field::Augmented, [t.critic_batch, image])),
            self.mix.then_some((Field::Mix, [1, t.critic_batch])),
            Some((Field::Schedule, [1, SCHEDULE])),
            t.augment.map(|_| (Field::Augmentation, [2 * t.critic_batch, NUMBERS])),
            Some((Field::Gamma, [1, 1])),
        ];
        let generator = [
            Some((Field::Latents, [t.generator_batch, self.latent])),
            self.classes.map(|k| (Field::Classes, [t.generator_batch, k])),
            self.pairs.then_some((Field::Real, [t.generator_batch, image])),
            Some((Field::Schedule, [1, SCHEDULE])),
            t.augment.map(|_| (Field::Augmentation, [self.seen(), NUMBERS])),
            Some((Field::Decay, [1, 2])),
        ];
        [critic.to_vec(), generator.to_vec()].map(|fields| Layout(fields.into_iter().flatten().collect()))
    }

    /// Images that the critic sees in a generator update.
    fn seen(&self) -> usize {
        self.train.generator_batch * if self.pairs { 2 } else { 1 }
    }

    fn images(&self, places: &[Place]) -> Vec<f32> {
        let images = &self.plan.images;
        if self.resident { as_numbers(places) } else { placed(&images.pixels, images.side, places) }
    }

    /// The rows of a step: those of its critic updates one after the other, and the generator's.
    fn step(&self, step: u64) -> Result<[Vec<f32>; 2]> {
        let (t, seed) = (&self.train, self.plan.seed);
        let [critic, generator] = self.layouts();
        let augmentation = |purpose: &str, number: u64, n: usize| {
            let p = t.augment(step).unwrap_or(0.0);
            drawn_augmentation(seed, purpose, number, [n, self.plan.images.side], p)
        };
        let mut rows = Vec::with_capacity(critic.numbers() * t.critic_steps as usize);
        let since = step - self.first[0];
        for k in 0..t.critic_steps {
            let number = step * t.critic_steps + k;
            let drawn = self.plan.draw(number);
            let latents = drawn_latents(seed, "critic/latents", number, [t.critic_batch, self.latent], self.classes);
            let update = self.first[1] + since * t.critic_steps + k + 1;
            let schedule = Adam::schedule(t.beta1, update, t.critic_pace(step));
            for &(field, _) in &critic.0 {
                let numbers = match field {
                    Field::Augmented => drawn.augmented.as_ref().map(|p| self.images(p)).unwrap_or_default(),
                    Field::Mix => drawn_mix(seed, number, t.critic_batch),
                    Field::Schedule => floats(&schedule),
                    Field::Augmentation => augmentation("critic", number, 2 * t.critic_batch),
                    Field::Gamma => floats(&[t.gamma(step)]),
                    field => self.field(field, &latents, Some(&drawn))?,
                };
                append(&mut rows, numbers);
            }
        }
        let mut row = Vec::with_capacity(generator.numbers());
        let latents = drawn_latents(seed, "generator/latents", step, [t.generator_batch, self.latent], self.classes);
        let drawn = self.pairs.then(|| self.plan.of_generator(t.generator_batch).draw(step));
        let schedule = Adam::schedule(t.beta1, self.first[2] + since + 1, t.generator_pace(step));
        let decay = t.average_decay(step);
        for &(field, _) in &generator.0 {
            let numbers = match field {
                Field::Schedule => floats(&schedule),
                Field::Augmentation => augmentation("generator", step, self.seen()),
                Field::Decay => floats(&[decay, 1.0 - decay]),
                field => self.field(field, &latents, drawn.as_ref())?,
            };
            append(&mut row, numbers);
        }
        Ok([rows, row])
    }

    /// Numbers of a field of images: `latents` of generated ones with their classes, `drawn` of real ones.
    fn field(
        &self,
        field: Field,
        (z, labels): &(Vec<f32>, Option<Vec<u16>>),
        drawn: Option<&Drawn>,
    ) -> Result<Vec<f32>> {
        let classes = |labels: Option<&Vec<u16>>| match (labels, self.classes) {
            (Some(labels), Some(k)) => ones_at(labels, k),
            _ => Ok(Vec::new()),
        };
        let of_real = drawn.map(|drawn| &drawn.labels);
        match field {
            Field::Latents => Ok(z.clone()),
            Field::Classes if self.pairs => Ok(classes(of_real)?),
            Field::Classes => Ok(classes(labels.as_ref())?),
            Field::RealClasses => Ok(classes(of_real)?),
            _ => Ok(drawn.map(|drawn| self.images(&drawn.real)).unwrap_or_default()),
        }
    }
}

fn floats(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn append(row: &mut Vec<f32>, numbers: Vec<f32>) {
    row.extend(numbers);
    row.resize(row.len().next_multiple_of(ALIGNMENT), 0.0);
}

/// The thread that draws, and where its numbers go on the device.
pub struct Feed {
    steps: Option<Receiver<Result<[Vec<f32>; 2]>>>,
    thread: Option<JoinHandle<()>>,
    layouts: [Layout; 2],
    /// Tables of critic and generator rows, one after the other, each after a header.
    tables: Tensor,
    /// Where the second begins.
    second: usize,
    /// The row that an update reads: the critic's, the generator's.
    rows: [Tensor; 2],
    /// The data set's bytes, where they live on the device.
    bytes: Option<Tensor>,
    side: usize,
}

/// What a critic update is given, where the networks are.
pub struct CriticInputs {
    /// Of its generated images.
    pub latents: Latents,
    /// Real images.
    pub real: Tensor,
    /// Their classes, of conditional networks.
    pub labels: Option<Tensor>,
    /// Augmented, for consistency regularisation.
    pub augmented: Option<Tensor>,
    /// Weights of the interpolation, `[N]`.
    pub mix: Option<Tensor>,
    /// Schedule of the optimiser.
    pub schedule: Tensor,
    /// How real and generated images are augmented.
    pub augmentation: Option<Tensor>,
    /// γ of a zero-centred penalty, `[1]`.
    pub gamma: Tensor,
}

/// What a generator update is given, where the networks are.
pub struct GeneratorInputs {
    /// Latents, and real images where a loss compares pairs.
    pub batch: GeneratorBatch,
    /// Schedule of the optimiser.
    pub schedule: Tensor,
    /// Decay of the average and what it leaves.
    pub decay: Tensor,
}

impl Feed {
    /// Starts drawing. `like` is a tensor of the networks; `bytes` the data set, where it lives on the device.
    ///
    /// # Errors
    /// When the device has not the memory.
    pub fn start(draw: Draw, like: &Tensor, bytes: Option<Tensor>) -> Result<Self> {
        let layouts = draw.layouts();
        let [critic, generator] = [&layouts[0], &layouts[1]].map(Layout::numbers);
        let second = ALIGNMENT + critic * STRETCH * draw.train.critic_steps as usize;
        let zeros = |n: usize| Tensor::zeros(n, like.dtype(), like.device());
        let tables = zeros(second + ALIGNMENT + generator * STRETCH)?;
        let rows = [zeros(critic)?, zeros(generator)?];
        let side = draw.plan.images.side;
        let (send, receive) = sync_channel(AHEAD);
        let draw = Arc::new(draw);
        let thread = std::thread::spawn(move || {
            for step in draw.first[0].. {
                if send.send(draw.step(step)).is_err() {
                    return;
                }
            }
        });
        Ok(Self { steps: Some(receive), thread: Some(thread), layouts, tables, second, rows, bytes, side })
    }

    /// Sends the rows of the next steps, [`STRETCH`] at most.
    ///
    /// # Errors
    /// When drawing failed, or the device does.
    pub fn send(&self, steps: usize) -> Result<()> {
        let mut tables = vec![0.0; ALIGNMENT];
        let mut generator = vec![0.0; ALIGNMENT];
        for _ in 0..steps.min(STRETCH) {
            let [rows, row] = match self.steps.as_ref().map(Receiver::recv) {
                Some(Ok(rows)) => rows?,
                _ => return Err(Error::invalid("the thread that draws has ended")),
            };
            tables.extend(rows);
            generator.extend(row);
        }
        tables.resize(self.second, 0.0);
        tables.extend(generator);
        match current::of(self.tables.device())? {
            Some(machine) => Ok(machine.send(&tables, &self.tables)?),
            None => Err(Error::invalid("rows are sent to devices only")),
        }
    }

    /// The memory that updates read.
    pub fn memory(&self) -> Vec<Tensor> {
        self.rows.iter().chain([&self.tables]).chain(&self.bytes).cloned().collect()
    }

    /// Takes the next row of critic or generator.
    fn take(&self, which: usize) -> candle_core::Result<()> {
        let (at, end) = if which == 0 { (0, self.second) } else { (self.second, self.tables.elem_count()) };
        let (row, table) = (&self.rows[which], self.tables.narrow(0, at, end - at)?);
        let cpu = || candle_core::bail!("rows are taken on devices only");
        either([row, &table], cpu, |tape, [row, table]| {
            let blocks = row.len().div_ceil(crate::machine::kernels::THREADS);
            let words = words![row.len(), row, table, crate::machine::call::Word::Counters, ALIGNMENT];
            tape.launch("take_row", [blocks, 1, 1], [crate::machine::kernels::THREADS, 1], words)
        })
    }

    fn images(&self, field: Tensor) -> candle_core::Result<Tensor> {
        match &self.bytes {
            Some(bytes) => place_images(bytes, &field),
            None => field.reshape(((), self.side, self.side, 3)),
        }
    }

    /// What the next critic update is given.
    ///
    /// # Errors
    /// When the device fails.
    pub fn critic(&self) -> candle_core::Result<CriticInputs> {
        self.take(0)?;
        let field = |field| self.layouts[0].view(&self.rows[0], field);
        Ok(CriticInputs {
            latents: Latents { z: required(field(Field::Latents)?)?, labels: field(Field::Classes)? },
            real: self.images(required(field(Field::Real)?)?)?,
            labels: field(Field::RealClasses)?,
            augmented: field(Field::Augmented)?.map(|f| self.images(f)).transpose()?,
            mix: field(Field::Mix)?.map(|m| m.squeeze(0)).transpose()?,
            schedule: required(field(Field::Schedule)?)?.squeeze(0)?,
            augmentation: field(Field::Augmentation)?,
            gamma: required(field(Field::Gamma)?)?.squeeze(0)?,
        })
    }

    /// What the next generator update is given.
    ///
    /// # Errors
    /// When the device fails.
    pub fn generator(&self) -> candle_core::Result<GeneratorInputs> {
        self.take(1)?;
        let field = |field| self.layouts[1].view(&self.rows[1], field);
        Ok(GeneratorInputs {
            batch: GeneratorBatch {
                latents: Latents { z: required(field(Field::Latents)?)?, labels: field(Field::Classes)? },
                real: field(Field::Real)?.map(|f| self.images(f)).transpose()?,
                augmentation: field(Field::Augmentation)?,
            },
            schedule: required(field(Field::Schedule)?)?.squeeze(0)?,
            decay: required(field(Field::Decay)?)?.squeeze(0)?,
        })
    }

    /// The table of the generator's rows, whose header tells which one was taken last.
    ///
    /// # Errors
    /// Never for its own extents.
    pub fn generator_table(&self) -> candle_core::Result<Tensor> {
        self.tables.narrow(0, self.second, self.tables.elem_count() - self.second)
    }

    /// The device.
    pub fn device(&self) -> &Device {
        self.tables.device()
    }
}

fn required(field: Option<Tensor>) -> candle_core::Result<Tensor> {
    match field {
        Some(field) => Ok(field),
        None => candle_core::bail!("a row lacks a field"),
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Closing the channel ends the thread.
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
