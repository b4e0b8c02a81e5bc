//! Training steps on a device, proven on the emulated one: the second and later updates are replays of what the first one recorded, and
//! must be what direct updates and the CPU's are, for every method; and what a step asks of a device, counted at the paper's sizes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::rc::Rc;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use pgn_bench::config::{Average, LrDecay, Schedule, Train};
use pgn_bench::critic::Critic;
use pgn_bench::data::loader::Plan;
use pgn_bench::data::place::resident;
use pgn_bench::data::{Images, Pixels};
use pgn_bench::generators::{Generator, Latents, Mode};
use pgn_bench::losses::Loss;
use pgn_bench::machine::counting::Counting;
use pgn_bench::machine::current;
use pgn_bench::machine::emulated::Emulated;
use pgn_bench::machine::interface::Machine;
use pgn_bench::machine::precision::Precision;
use pgn_bench::machine::program::Program;
use pgn_bench::methods::{self, Choice};
use pgn_bench::nn::augment::NUMBERS;
use pgn_bench::nn::image::one_hot;
use pgn_bench::nn::op::numbers;
use pgn_bench::optim::Adam;
use pgn_bench::rng::Stream;
use pgn_bench::train::feed::{Draw, Feed, drawn_augmentation, drawn_mix};
use pgn_bench::train::recorded::Recorded;
use pgn_bench::train::step::{CriticBatch, GeneratorBatch, State};

const CLASSES: usize = 10;
const IMAGES: usize = 12;
const SIDE: usize = 32;
const STEPS: usize = 3;

fn train(critic_steps: u64, batches: [usize; 2], width: f64) -> Train {
    Train {
        steps: 10,
        critic_steps,
        critic_batch: batches[0],
        generator_batch: batches[1],
        critic_lr: Schedule::Cosine { from: 2e-4, to: 1e-4, images: 20.0 },
        generator_lr: 1e-4.into(),
        beta1: 0.5,
        beta2: Schedule::Cosine { from: 0.9, to: 0.99, images: 20.0 },
        lr_decay: LrDecay::Linear,
        ema_decay: Average::Decay(0.9),
        ema_start: 2,
        width,
        loss: Loss::Hinge,
        gamma: Some(Schedule::Cosine { from: 1.0, to: 0.1, images: 20.0 }),
        augment: None,
    }
}

fn plan(size: usize, augment: bool) -> Plan {
    let mut stream = Stream::new(0, "images", 0);
    let pixels = (0..IMAGES * SIDE * SIDE * 3).map(|_| stream.below(256) as u8).collect();
    let labels = (0..IMAGES).map(|i| (i % CLASSES) as u16).collect();
    let images = Arc::new(Images::new("test", SIDE, Pixels::Memory(pixels), labels, CLASSES));
    Plan::new(images, size, 1, augment)
}

/// A run of a method: networks, and what they are given.
struct Run {
    choice: Choice,
    loss: Loss,
    train: Train,
    state: State,
}

impl Run {
    fn new(arch: &str, method: &str, train: Train, dtype: DType) -> Self {
        let choice = methods::require(method).unwrap();
        let (width, spectral) = (train.width, choice.method.spectral());
        let stream = &mut Stream::new(0, "networks", 0);
        let critic = Critic::new(arch, width, CLASSES, spectral, stream, dtype, &Device::Cpu).unwrap();
        let generator = Generator::new(arch, width, CLASSES, stream, dtype, &Device::Cpu).unwrap();
        let state = State::new(generator, critic, train.beta1).unwrap();
        let loss = choice.method.loss().unwrap_or(train.loss);
        Self { choice, loss, train, state }
    }

    fn recorded(&self, graph: bool, is_resident: bool) -> Recorded {
        let plan = plan(self.train.critic_batch, self.choice.consistency);
        let bytes = resident(&plan.images.pixels, SIDE, &Device::Cpu).unwrap().filter(|_| is_resident);
        let draw = Draw {
            plan,
            train: self.train.clone(),
            latent: self.state.generator.latent,
            classes: self.state.generator.classes,
            mix: self.choice.method.penalty().is_some(),
            pairs: self.loss.pairs(),
            first: [0, 0, 0],
            resident: bytes.is_some(),
        };
        let feed = Feed::start(draw, self.state.critic.params.flat(), bytes).unwrap();
        Recorded::new(feed, &self.state, graph).unwrap()
    }

    fn step(&mut self, recorded: &mut Recorded) {
        for _ in 0..self.train.critic_steps {
            recorded.critic_update(&mut self.state, &self.choice, self.loss).unwrap();
        }
        recorded.generator_update(&mut self.state, &self.choice, self.loss).unwrap();
    }

    /// The same step on the CPU.
    fn on_cpu(&mut self, step: u64) {
        let t = self.train.clone();
        let plan = plan(t.critic_batch, self.choice.consistency);
        let dtype = self.state.critic.params.flat().dtype();
        let augmentation = |purpose: &str, number: u64, n: usize| {
            let drawn = drawn_augmentation(1, purpose, number, [n, SIDE], t.augment(step)?);
            Some(Tensor::from_vec(drawn, (n, NUMBERS), &Device::Cpu).unwrap().to_dtype(dtype).unwrap())
        };
        for k in 0..t.critic_steps {
            let number = step * t.critic_steps + k;
            let generator = &self.state.generator;
            let Latents { z, labels } = generator.latents(1, "critic/latents", number, t.critic_batch).unwrap();
            let batch = plan.batch(number).unwrap();
            let real_labels = generator.classes.map(|k| one_hot(&batch.labels, k, dtype, &Device::Cpu).unwrap());
            let mix = drawn_mix(1, number, t.critic_batch);
            let labels = if self.loss.pairs() { real_labels.clone() } else { labels };
            let latents = Latents { z, labels };
            let batch = CriticBatch {
                real: batch.real.to_dtype(dtype).unwrap(),
                fake: generator.images(&latents, Mode::Train).unwrap(),
                labels: real_labels.zip(latents.labels).map(|(real, fake)| [real, fake]),
                mix: Some(Tensor::new(mix, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()),
                augmented: batch.augmented.map(|a| a.to_dtype(dtype).unwrap()),
                augmentation: augmentation("critic", number, 2 * t.critic_batch),
                gamma: Some(rounded(&[t.gamma(step)], self.state.critic.params.flat())),
            };
            let schedule = Adam::schedule(t.beta1, number + 1, t.critic_pace(step));
            let schedule = rounded(&schedule, &batch.real);
            self.state.scheduled_critic_update(&self.choice, self.loss, &batch, &schedule).unwrap();
        }
        let mut latents = self.state.generator.latents(1, "generator/latents", step, t.generator_batch).unwrap();
        let real = self.loss.pairs().then(|| {
            let batch = plan.of_generator(t.generator_batch).batch(step).unwrap();
            latents.labels =
                latents.labels.take().map(|_| one_hot(&batch.labels, CLASSES, dtype, &Device::Cpu).unwrap());
            batch.real.to_dtype(dtype).unwrap()
        });
        let seen = t.generator_batch * if real.is_some() { 2 } else { 1 };
        let z = latents.z.clone();
        let batch = GeneratorBatch { latents, real, augmentation: augmentation("generator", step, seen) };
        let schedule = rounded(&Adam::schedule(t.beta1, step + 1, t.generator_pace(step)), &z);
        self.state.scheduled_generator_update(&self.choice, self.loss, &batch, &schedule).unwrap();
        let decay = t.average_decay(step);
        self.state.scheduled_average(&rounded(&[decay, 1.0 - decay], &z)).unwrap();
    }

    /// Every number of the state, in the files' order.
    fn numbers(&self) -> Vec<Named> {
        let s = &self.state;
        let stores = [
            ("critic", &s.critic.params),
            ("vectors", &s.critic.buffers),
            ("generator", &s.generator.params),
            ("statistics", &s.generator.buffers),
            ("average", &s.average.params),
            ("average statistics", &s.average.buffers),
        ];
        let mut all = Vec::new();
        for (name, store) in stores {
            for (tensor, t) in store.named().unwrap() {
                all.push((format!("{name} {tensor}"), values(&t)));
            }
        }
        for (name, moments, store) in [
            ("critic", &s.critic_adam.moments, &s.critic.params),
            ("generator", &s.generator_adam.moments, &s.generator.params),
        ] {
            for (k, moment) in moments.iter().enumerate() {
                all.push((format!("{name} moment {k}"), values(&store.to_file(moment).unwrap())));
            }
        }
        all
    }
}

/// Numbers of a schedule as they reach a device.
fn rounded(of: &[f64], like: &Tensor) -> Tensor {
    numbers(&of.iter().map(|&v| f64::from(v as f32)).collect::<Vec<_>>(), like).unwrap()
}

/// A tensor's name and numbers.
type Named = (String, Vec<f64>);

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

/// Largest difference of two states' tensors, each relative to its norm, or to `least`: biases before batch norm have gradients that are
/// zero but for rounding, which Adam makes steps of the learning rate.
fn differ(a: &[Named], b: &[Named], least: f64) -> (f64, String) {
    let zero = |v: &[f64]| vec![0.0; v.len()];
    let relative =
        |((name, a), (_, b)): (&Named, &Named)| (distance(a, b) / distance(b, &zero(b)).max(least), name.clone());
    a.iter().zip(b).map(relative).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

/// Steps of recorded, direct and (in f64) the CPU's updates; how far the last two are apart.
fn compare(arch: &str, (method, loss): (&str, Loss), dtype: DType, is_resident: bool) -> (f64, String) {
    let machine = Rc::new(Emulated::new(true));
    current::stand_in(Some(machine.clone() as Rc<dyn Machine>));
    let width = if arch == "r3gan32" { 0.005 } else { 0.04 };
    let augment = (loss == Loss::Relativistic).then_some(0.5.into());
    let settings = || Train { loss, augment, ..train(if arch == "cnn32" { 2 } else { 1 }, [2, 3], width) };
    let (mut graph, mut direct) =
        (Run::new(arch, method, settings(), dtype), Run::new(arch, method, settings(), dtype));
    let (mut replayed, mut made) = (graph.recorded(true, is_resident), direct.recorded(false, is_resident));
    let mut rows = Vec::new();
    // Two stretches, so that rows are sent again.
    for steps in [2, STEPS - 2] {
        replayed.send(steps).unwrap();
        made.send(steps).unwrap();
        for _ in 0..steps {
            let before = machine.allocations.get();
            graph.step(&mut replayed);
            if !rows.is_empty() {
                assert_eq!(machine.allocations.get(), before, "{arch} {method}: a replay allocates");
            }
            rows.push(());
            direct.step(&mut made);
        }
        // NaN is not equal to itself.
        assert_eq!(replayed.measured(steps).unwrap(), made.measured(steps).unwrap(), "{arch} {method}");
    }
    let (a, b) = (graph.numbers(), direct.numbers());
    assert!(a == b, "{arch} {method}: a replay is not the direct step, {:?}", differ(&a, &b, 1e-3));
    current::stand_in(None);
    let mut cpu = Run::new(arch, method, settings(), dtype);
    (0..STEPS as u64).for_each(|step| cpu.on_cpu(step));
    differ(&a, &cpu.numbers(), if dtype == DType::F64 { 1e-3 } else { 1.0 })
}

/// Whether kernels can be compiled for the emulated device.
fn emulated() -> bool {
    let is_there = std::process::Command::new("g++").arg("--version").output().is_ok();
    if !is_there {
        println!("skipped: the emulated device needs g++");
    }
    is_there
}

fn of_architecture(arch: &str) {
    if !emulated() {
        return;
    }
    let pairs = ["none", "pgn", "r1r2"].map(|id| (id.to_owned(), Loss::Relativistic));
    for (id, loss) in methods::ids().into_iter().map(|id| (id, Loss::Hinge)).chain(pairs) {
        // Weights that are clipped to one number cancel, and of an activation whose input is zero rounding decides the slope.
        if (arch, &*id) == ("r3gan32", "wgan") {
            continue;
        }
        let (difference, what) = compare(arch, (&id, loss), DType::F64, id != "sn");
        println!("{arch} {id} {}: {difference:.1e} from the cpu in f64, {what}", loss.id());
        assert!(difference < 1e-6, "{arch} {id} {}: {difference:.1e} from the cpu, {what}", loss.id());
    }
}

#[test]
fn replays_are_direct_steps_and_the_cpus_cnn() {
    of_architecture("cnn32");
}

#[test]
fn replays_are_direct_steps_and_the_cpus_resnet() {
    of_architecture("resnet32");
}

#[test]
fn replays_are_direct_steps_and_the_cpus_biggan() {
    of_architecture("biggan32");
}

#[test]
fn replays_are_direct_steps_and_the_cpus_r3gan() {
    of_architecture("r3gan32");
}

#[test]
fn replays_are_direct_steps_in_every_precision() {
    if !emulated() {
        return;
    }
    for (precision, tolerance) in [(Precision::F32, 2e-3), (Precision::Tf32, 5e-2), (Precision::Bf16, 5e-1)] {
        precision.during(|| {
            for (arch, method) in [("cnn32", "pgn"), ("resnet32", "sn+cr"), ("biggan32", "gn"), ("r3gan32", "pgn")] {
                let (difference, what) = compare(arch, (method, Loss::Hinge), DType::F32, true);
                println!("{arch} {method} {}: {difference:.1e} from the cpu in f32, {what}", precision.id());
                assert!(difference < tolerance, "{arch} {method} {}: {difference:.1e}, {what}", precision.id());
            }
        });
    }
}

/// What a program asks for: launches, bytes, buffers, bytes of its arena.
fn asked(program: &Program) -> [u64; 4] {
    [program.calls().len() as u64, program.bytes(), program.buffers as u64, program.arena_bytes]
}

/// Launches of a step before updates were recorded, counted by the same rules on commit 968143b: own kernels, convolutions, products
/// and candle's operators, each copy and each fill among them; and the megabytes that they read and wrote.
const BEFORE: [(&str, &str, u64, u64, u64); 7] = [
    ("cnn32", "pgn", 1, 558, 4962),
    ("cnn32", "none", 1, 499, 4382),
    ("cnn32", "sn", 1, 987, 4678),
    ("cnn32", "gp1", 1, 607, 5481),
    ("cnn32", "pgn+cr", 1, 707, 6109),
    ("resnet32", "pgn", 5, 2703, 33038),
    ("biggan32", "pgn", 4, 4012, 42814),
];

#[test]
fn launches_and_bytes_of_a_step_are_counted() {
    let machine = Counting::new();
    current::stand_in(Some(machine.clone() as Rc<dyn Machine>));
    println!("| | | launches | before | MB | before | arena MB (critic, generator) | buffers |");
    for precision in [Precision::Tf32, Precision::Bf16] {
        for (arch, method, critic_steps, launches_before, mb_before) in BEFORE {
            precision.during(|| {
                let mut run = Run::new(arch, method, train(critic_steps, [64, 128], 1.0), DType::F32);
                let recorded = run.recorded(true, true);
                machine.calls.take();
                let critic = asked(&recorded.record_critic(&mut run.state, &run.choice, run.loss).unwrap());
                let generator = asked(&recorded.record_generator(&mut run.state, &run.choice, run.loss).unwrap());
                let [launches, bytes] = [0, 1].map(|k| critic_steps * critic[k] + generator[k]);
                let mb = |bytes: u64| bytes / 1_000_000;
                println!(
                    "| {arch} {method} | {} | {launches} ({} a critic update, {} a generator update) | {launches_before} | {} | \
                     {mb_before} | {}, {} | {}, {} |",
                    precision.id(),
                    critic[0],
                    generator[0],
                    mb(bytes),
                    mb(critic[3]),
                    mb(generator[3]),
                    critic[2],
                    generator[2]
                );
                if precision == Precision::Tf32 {
                    assert!(launches * 10 <= launches_before * 4, "{arch} {method}: {launches} of {launches_before}");
                }
                // Whatever is asked for is in a recording.
                assert_eq!(machine.calls.take() as u64, critic[0] + generator[0]);
            });
        }
    }
}
