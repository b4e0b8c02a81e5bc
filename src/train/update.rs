//! Training updates of networks on random images: what is timed.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use clap::ValueEnum;

use super::cost::update_flops;
use super::feed::{Draw, Feed, STRETCH};
use super::recorded::Recorded;
use super::step::{CriticBatch, GeneratorBatch, State};
use crate::config::{Average, LrDecay, Train};
use crate::critic::{Critic, side};
use crate::data::loader::Plan;
use crate::data::place::resident;
use crate::data::{Images, Pixels};
use crate::error::Result;
use crate::generators::{Generator, Mode};
use crate::losses::Loss;
use crate::machine::compute::Compute;
use crate::machine::program::Program;
use crate::methods::{self, Choice};
use crate::nn::image::one_hot;
use crate::nn::op::numbers;
use crate::rng::Stream;

/// The part of a training step to run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// One critic update on a batch of real and one of generated images: given ones on the CPU, on a device generated in it.
    Critic,
    /// One generator update, on a device with the moving average.
    Generator,
    /// The critic updates of a step, each with its images generated, the generator update, and the moving average.
    Whole,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Critic => "critic",
            Self::Generator => "generator",
            Self::Whole => "whole",
        })
    }
}

const CLASSES: usize = 10;
/// Images of the random data set that a device's batches come from.
const IMAGES: usize = 1024;

/// What makes the updates.
enum Maker {
    /// On the CPU, of these images (real, generated, augmented) and classes.
    Cpu([Tensor; 3], Option<[Tensor; 2]>),
    /// On a device; how many steps are left of what was sent.
    Device(Box<Recorded>, usize),
}

/// Networks and a method, ready to be trained.
pub struct Update {
    state: State,
    choice: Choice,
    loss: Loss,
    train: Train,
    compute: Compute,
    maker: Maker,
    round: u64,
}

impl Update {
    /// `batch` real and as many generated images a critic update, twice that a generator update.
    ///
    /// # Errors
    /// When architecture or method is unknown, or the device has not the memory.
    pub fn new(arch: &str, method: &str, width: f64, batch: usize, compute: &Compute) -> Result<Self> {
        let (choice, device) = (methods::require(method)?, &compute.device);
        let loss = choice.method.loss().unwrap_or(Loss::Hinge);
        let mut stream = Stream::new(0, "bench", 0);
        let critic = Critic::new(arch, width, CLASSES, choice.method.spectral(), &mut stream, DType::F32, device)?;
        let generator = Generator::new(arch, width, CLASSES, &mut stream, DType::F32, device)?;
        let train = Train {
            steps: u64::MAX,
            critic_steps: match arch {
                "biggan32" => 4,
                _ if arch.starts_with("cnn") || arch.starts_with("r3gan") => 1,
                _ => 5,
            },
            critic_batch: batch,
            generator_batch: 2 * batch,
            critic_lr: 2e-4.into(),
            generator_lr: 2e-4.into(),
            beta1: 0.0,
            beta2: 0.9.into(),
            lr_decay: LrDecay::None,
            ema_decay: Average::Decay(0.9999),
            ema_start: 0,
            width,
            loss,
            gamma: Some(1.0.into()),
            augment: None,
        };
        let state = State::new(generator, critic, train.beta1)?;
        let maker = match compute.is_machine() {
            true => on_device(arch, &choice, &train, &state, compute)?,
            false => on_cpu(&state, batch, &mut stream)?,
        };
        Ok(Self { state, choice, loss, train, compute: compute.clone(), maker, round: 0 })
    }

    /// Operations of the convolutions and linear layers.
    ///
    /// # Errors
    /// Never for networks that fit each other.
    pub fn flops(&self, what: What) -> Result<u64> {
        let [critic, generator] =
            update_flops(&self.choice, self.loss, &self.state, [self.train.critic_batch, self.train.generator_batch])?;
        let fakes = self.state.generator.flops(self.train.critic_batch)?;
        let is_machine = self.compute.is_machine();
        Ok(match what {
            What::Critic => critic + if is_machine { fakes } else { 0 },
            What::Generator => generator,
            What::Whole => self.train.critic_steps * (critic + fakes) + generator,
        })
    }

    /// Critic updates of a step.
    pub fn critic_steps(&self) -> u64 {
        self.train.critic_steps
    }

    /// Waits for the device.
    ///
    /// # Errors
    /// When it fails.
    pub fn wait(&self) -> Result<()> {
        Ok(self.compute.device.synchronize()?)
    }

    /// Runs it once; a GPU may not have done it yet.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run(&mut self, what: What) -> Result<()> {
        self.round += 1;
        let Self { state, choice, loss, train, maker, .. } = self;
        let (images, labels) = match maker {
            Maker::Cpu(images, labels) => (images.clone(), labels.clone()),
            Maker::Device(recorded, left) => {
                if *left == 0 {
                    recorded.send(STRETCH)?;
                    *left = STRETCH;
                }
                *left -= 1;
                let critic_updates = match what {
                    What::Critic => 1,
                    What::Generator => 0,
                    What::Whole => train.critic_steps,
                };
                for _ in 0..critic_updates {
                    recorded.critic_update(state, choice, *loss)?;
                }
                if what != What::Critic {
                    recorded.generator_update(state, choice, *loss)?;
                }
                return Ok(());
            }
        };
        let critic = |state: &mut State, fake: Tensor| -> Result<()> {
            let [real, _, augmented] = images.clone();
            let mix = Tensor::full(0.5f32, train.critic_batch, images[0].device())?;
            let gamma = Some(numbers(&[train.gamma(0)], &images[0])?);
            let labels = labels.clone();
            let (mix, augmented) = (Some(mix), Some(augmented));
            let batch = CriticBatch { real, fake, labels, mix, augmented, augmentation: None, gamma };
            state.critic_update(choice, *loss, &batch, train.critic_pace(0))?;
            Ok(())
        };
        if what == What::Critic {
            return critic(state, images[1].clone());
        }
        if what == What::Whole {
            for _ in 0..train.critic_steps {
                let latents = state.generator.latents(0, "bench", self.round, train.critic_batch)?;
                let fake = state.generator.images(&latents, Mode::Train)?;
                critic(state, fake)?;
            }
        }
        let latents = state.generator.latents(0, "bench", self.round, train.generator_batch)?;
        let batch = GeneratorBatch { latents, real: None, augmentation: None };
        state.generator_update(choice, *loss, &batch, train.generator_pace(0))?;
        if what == What::Whole {
            state.update_average(train.average_decay(0))?;
        }
        Ok(())
    }

    /// One critic update and one generator update as programs, on a device.
    ///
    /// # Errors
    /// On the CPU, and when the device fails.
    pub fn programs(&mut self) -> Result<[Program; 2]> {
        let Maker::Device(recorded, left) = &mut self.maker else {
            return Err(crate::error::Error::invalid("updates are recorded on devices only"));
        };
        recorded.send(STRETCH)?;
        *left = 0;
        let critic = recorded.record_critic(&mut self.state, &self.choice, self.loss)?;
        Ok([critic, recorded.record_generator(&mut self.state, &self.choice, self.loss)?])
    }
}

fn on_cpu(state: &State, batch: usize, stream: &mut Stream) -> Result<Maker> {
    let (side, device) = (state.generator.side, state.critic.params.flat().device());
    let mut images = || -> Result<Tensor> {
        let values: Vec<f32> = (0..batch * side * side * 3).map(|_| 2.0 * stream.uniform() as f32 - 1.0).collect();
        Ok(Tensor::from_vec(values, (batch, side, side, 3), device)?)
    };
    let images = [images()?, images()?, images()?];
    let labels: Vec<u16> = (0..batch).map(|i| (i % CLASSES) as u16).collect();
    let labels = one_hot(&labels, CLASSES, DType::F32, device)?;
    Ok(Maker::Cpu(images, state.generator.classes.map(|_| [labels.clone(), labels])))
}

fn on_device(arch: &str, choice: &Choice, train: &Train, state: &State, compute: &Compute) -> Result<Maker> {
    let side = side(arch);
    let mut stream = Stream::new(0, "bench/images", 0);
    let pixels = (0..IMAGES * side * side * 3).map(|_| stream.below(256) as u8).collect();
    let labels = (0..IMAGES).map(|i| (i % CLASSES) as u16).collect();
    let images = Arc::new(Images::new("random", side, Pixels::Memory(pixels), labels, CLASSES));
    let bytes = resident(&images.pixels, side, &compute.device)?;
    let draw = Draw {
        plan: Plan::new(images, train.critic_batch, 0, choice.consistency),
        train: train.clone(),
        latent: state.generator.latent,
        classes: state.generator.classes,
        mix: choice.method.penalty().is_some(),
        pairs: false,
        first: [0; 3],
        resident: bytes.is_some(),
    };
    let feed = Feed::start(draw, state.critic.params.flat(), bytes)?;
    Ok(Maker::Device(Box::new(Recorded::new(feed, state, compute.graph)?), 0))
}
