//! Training updates of full-size networks on random images: what the benches and `examples/step.rs` time.

use std::fmt;

use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use pgn_bench::critic::Critic;
use pgn_bench::error::{Error, Result};
use pgn_bench::generators::{Generator, Mode};
use pgn_bench::losses::Loss;
use pgn_bench::methods::{self, Choice};
use pgn_bench::nn::image::one_hot;
use pgn_bench::rng::Stream;
use pgn_bench::train::cost::update_flops;
use pgn_bench::train::step::{CriticBatch, State};

/// The part of a training step to run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// One critic update on real and given generated images, a batch of each.
    Critic,
    /// One generator update.
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
const LR: f64 = 2e-4;

/// A network and a method, ready to be trained.
pub struct Update {
    state: State,
    choice: Choice,
    loss: Loss,
    batch: usize,
    critic_steps: usize,
    images: [Tensor; 3],
    labels: Option<[Tensor; 2]>,
    round: u64,
}

impl Update {
    /// `batch` real and as many generated images a critic update, twice that a generator update.
    pub fn new(arch: &str, method: &str, width: f64, batch: usize, device: &Device) -> Result<Self> {
        let choice = methods::find(method).ok_or_else(|| Error::invalid(format!("unknown method {method}")))?;
        let loss = choice.method.loss().unwrap_or(Loss::Hinge);
        let mut stream = Stream::new(0, "bench", 0);
        let critic = Critic::new(arch, width, CLASSES, choice.method.spectral(), &mut stream, DType::F32, device)?;
        let generator = Generator::new(arch, width, CLASSES, &mut stream, DType::F32, device)?;
        let side = generator.side;
        let mut images = || -> Result<Tensor> {
            let values: Vec<f32> = (0..batch * side * side * 3).map(|_| 2.0 * stream.uniform() as f32 - 1.0).collect();
            Ok(Tensor::from_vec(values, (batch, side, side, 3), device)?)
        };
        let images = [images()?, images()?, images()?];
        let labels: Vec<u8> = (0..batch).map(|i| (i % CLASSES) as u8).collect();
        let labels = one_hot(&labels, CLASSES, DType::F32, device)?;
        let labels = generator.classes.map(|_| [labels.clone(), labels]);
        let critic_steps = if arch.starts_with("cnn") { 1 } else { 5 };
        let state = State::new(generator, critic, [0.0, 0.9])?;
        Ok(Self { state, choice, loss, batch, critic_steps, images, labels, round: 0 })
    }

    /// Operations of the convolutions and linear layers.
    pub fn flops(&self, what: What) -> Result<u64> {
        let [critic, generator] = update_flops(&self.choice, &self.state, [self.batch, 2 * self.batch])?;
        Ok(match what {
            What::Critic => critic,
            What::Generator => generator,
            What::Whole => self.critic_steps as u64 * (critic + self.state.generator.flops(self.batch)?) + generator,
        })
    }

    /// Waits for the device.
    #[allow(dead_code)]
    pub fn wait(&self) -> Result<()> {
        Ok(self.images[0].device().synchronize()?)
    }

    /// Runs it once; a GPU may not have done it yet.
    pub fn run(&mut self, what: What) -> Result<()> {
        self.round += 1;
        match what {
            What::Critic => self.critic(self.images[1].clone()),
            What::Generator => self.generator(),
            What::Whole => {
                for _ in 0..self.critic_steps {
                    let latents = self.state.generator.latents(0, "bench", self.round, self.batch)?;
                    let fake = self.state.generator.images(&latents, Mode::Train)?;
                    self.critic(fake)?;
                }
                self.generator()?;
                Ok(self.state.update_average(0.9999)?)
            }
        }
    }

    fn critic(&mut self, fake: Tensor) -> Result<()> {
        let [real, _, augmented] = self.images.clone();
        let mix = Tensor::full(0.5f32, self.batch, self.images[0].device())?;
        let labels = self.labels.clone();
        let batch = CriticBatch { real, fake, labels, mix: Some(mix), augmented: Some(augmented) };
        self.state.critic_update(&self.choice, self.loss, &batch, LR)?;
        Ok(())
    }

    fn generator(&mut self) -> Result<()> {
        let latents = self.state.generator.latents(0, "bench", self.round, 2 * self.batch)?;
        self.state.generator_update(&self.choice, self.loss, &latents, LR)?;
        Ok(())
    }
}
