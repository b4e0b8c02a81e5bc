//! One training step: the critic's gradients for any method, and the generator's. No method is named here.

use candle_core::{DType, Result, Tensor, bail};

use crate::config::Weights;
use crate::critic::{Critic, Forward, Linear};
use crate::generators::{Generator, Latents, Mode};
use crate::losses::Loss;
use crate::machine::program::stage;
use crate::methods::{CR_WEIGHT, Choice, Method, Normalised, cotangents};
use crate::nn::image::{clear, join, mix_images, norm, scale_images, squared_distance};
use crate::nn::op::{either, numbers};
use crate::nn::store::Store;
use crate::optim::{Adam, clip, moving_average};
use crate::words;

/// What one critic update reads.
pub struct CriticBatch {
    /// Real images `[N, H, W, 3]` in [−1, 1].
    pub real: Tensor,
    /// Generated images `[N, H, W, 3]`.
    pub fake: Tensor,
    /// Classes `[N, classes]` of the real and the generated images as ones among zeros, for a conditional critic.
    pub labels: Option<[Tensor; 2]>,
    /// Weight ε of the real image in each interpolation, `[N]`, for methods with a penalty.
    pub mix: Option<Tensor>,
    /// The real images augmented, for consistency regularisation.
    pub augmented: Option<Tensor>,
}

/// What a critic update reports, without dimensions (f64 on the CPU) where the networks are: reading a value waits for the device.
/// Losses are means over images.
#[derive(Clone, Debug)]
pub struct CriticReport {
    /// Adversarial loss.
    pub loss: Tensor,
    /// Weighted gradient penalty, where there is one.
    pub penalty: Option<Tensor>,
    /// Weighted consistency regularisation, where there is any.
    pub consistency: Option<Tensor>,
    /// Mean ‖∇ₓf‖ over the batch, where the method computes it.
    pub input_gradient_norm: Option<Tensor>,
}

/// One critic call with its normalised output.
pub struct Evaluated {
    pass: Forward,
    /// What a normalisation by the gradient adds; without it f̂ = f.
    normalised: Option<ByGradient>,
}

struct ByGradient {
    target: f64,
    linear: Linear,
    value: Normalised,
}

impl Evaluated {
    /// Calls the critic on `x` `[N, H, W, 3]`, of the classes `labels` if it is conditional, and normalises its output. In
    /// training mode, vectors of spectral normalisation move.
    ///
    /// # Errors
    /// When the images do not fit the critic.
    pub fn new(
        critic: &Critic,
        method: &dyn Method,
        x: &Tensor,
        labels: Option<&Tensor>,
        training: bool,
    ) -> Result<Self> {
        let pass = critic.forward(x, labels, training)?;
        let Some(normalisation) = method.normalisation() else { return Ok(Self { pass, normalised: None }) };
        let linear = critic.linearise(&pass)?;
        let squared = squared_distance(&linear.gradient, normalisation.target)?;
        let value = normalisation.apply(&pass.scalar()?, &squared)?;
        Ok(Self { pass, normalised: Some(ByGradient { target: normalisation.target, linear, value }) })
    }

    /// f per image, `[N]`.
    ///
    /// # Errors
    /// When the critic has more than one output.
    pub fn f(&self) -> Result<Tensor> {
        self.pass.scalar()
    }

    /// f̂ per image, `[N]`.
    ///
    /// # Errors
    /// As for [`Evaluated::f`].
    pub fn f_hat(&self) -> Result<Tensor> {
        match &self.normalised {
            Some(n) => Ok(n.value.f_hat.clone()),
            None => self.f(),
        }
    }

    /// g per image, where the method computes it.
    pub fn gradient(&self) -> Option<&Tensor> {
        self.normalised.as_ref().map(|n| &n.linear.gradient)
    }

    /// ∇ₓf̂ per image, `[N, H, W, C]`: (∂f̂/∂f)·g, since the critic's Hessian vanishes.
    ///
    /// # Errors
    /// As for [`Evaluated::f`].
    pub fn f_hat_gradient(&self, critic: &Critic) -> Result<Tensor> {
        match &self.normalised {
            Some(n) => scale_images(&n.linear.gradient, &n.value.by_f, 0.0),
            None => critic.input_gradient(&self.pass),
        }
    }

    /// Adds the gradient of a loss with `derivative` ∂L/∂f̂ `[N]` to `gradients`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn backward(&self, critic: &Critic, derivative: &Tensor, gradients: &Store) -> Result<()> {
        let Some(n) = &self.normalised else {
            return critic.first_order(&self.pass, &derivative.unsqueeze(1)?, gradients);
        };
        let [c, scale] = cotangents(derivative, &n.value)?;
        critic.second_order(&self.pass, &n.linear, Some(&c), (&scale, n.target), gradients)
    }
}

fn mean(t: &Tensor) -> Result<Tensor> {
    t.mean_all()?.to_dtype(DType::F64)
}

/// Mean of the roots of squared norms `[N]`, without dimensions.
fn mean_norm(squared: &Tensor) -> Result<Tensor> {
    either(
        [squared],
        || mean(&squared.sqrt()?),
        |tape, [squared]| {
            let out = tape.alloc(&[])?;
            tape.blocks("mean_of_roots", 1, words![squared.len(), squared, tape.memory(&out)?])?;
            Ok(out)
        },
    )
}

/// λ·E(f̂(T(x)) − f̂(x))² of n augmented images and of all, the first of which they are: its value, its derivative by f̂(T(x)) `[n]`,
/// and `derivative` `[N]` of the loss with its derivative by f̂(x) added.
fn consistency(augmented: &Tensor, all: &Tensor, derivative: &Tensor) -> Result<[Tensor; 3]> {
    let (n, count) = (augmented.dim(0)?, all.dim(0)?);
    let cpu = || {
        let difference = (augmented - all.narrow(0, 0, n)?)?;
        let value = (mean(&difference.sqr()?)? * CR_WEIGHT)?;
        let pull = (difference * (2.0 * CR_WEIGHT / n as f64))?;
        let rest = Tensor::zeros(count - n, derivative.dtype(), derivative.device())?;
        let derivative = (derivative - Tensor::cat(&[&pull, &rest], 0)?)?;
        Ok([value, pull, derivative])
    };
    either([augmented, all, derivative], cpu, |tape, [augmented, all, derivative]| {
        let (value, pull, rest) = (tape.alloc(&[])?, tape.alloc(&[n])?, tape.alloc(&[count])?);
        let [to_value, to_pull, to_rest] = [tape.memory(&value)?, tape.memory(&pull)?, tape.memory(&rest)?];
        let words = words![n, augmented, all, derivative, count, CR_WEIGHT, to_pull, to_rest, to_value];
        tape.blocks("consistency", 1, words)?;
        Ok([value, pull, rest])
    })
}

/// Adds ∂(loss + penalty + consistency)/∂θ of one critic update to `gradients`.
///
/// # Errors
/// When the batch does not fit the critic, or lacks what the method needs.
pub fn critic_gradients(
    critic: &Critic,
    choice: &Choice,
    loss: Loss,
    batch: &CriticBatch,
    gradients: &Store,
) -> Result<CriticReport> {
    let method = choice.method.as_ref();
    let n = batch.real.dim(0)?;
    let labels = batch.labels.as_ref().map(|[real, fake]| join(real, fake)).transpose()?;
    // The augmented and the mixed images are of the real ones' classes.
    let real_labels = batch.labels.as_ref().map(|[real, _]| real);
    let on_batch = Evaluated::new(critic, method, &join(&batch.real, &batch.fake)?, labels.as_ref(), true)?;
    let graded = loss.critic(&on_batch.f_hat()?, n)?;
    let mut derivative = graded.derivative;
    let mut report = CriticReport { loss: graded.value, penalty: None, consistency: None, input_gradient_norm: None };
    if let Some(g) = on_batch.gradient() {
        report.input_gradient_norm = Some(mean_norm(&squared_distance(g, 0.0)?)?);
    }

    if choice.consistency {
        let Some(augmented) = &batch.augmented else { bail!("consistency regularisation needs the augmented images") };
        let on_augmented = Evaluated::new(critic, method, augmented, real_labels, true)?;
        let [value, pull, with_pull] = consistency(&on_augmented.f_hat()?, &on_batch.f_hat()?, &derivative)?;
        report.consistency = Some(value);
        on_augmented.backward(critic, &pull, gradients)?;
        derivative = with_pull;
    }
    on_batch.backward(critic, &derivative, gradients)?;
    drop(on_batch);

    if let Some(penalty) = method.penalty() {
        let Some(mix) = &batch.mix else { bail!("{} needs the weights of the interpolation", method.id()) };
        let mixed = mix_images([&batch.real, &batch.fake], mix)?;
        let pass = critic.forward(&mixed, real_labels, true)?;
        let linear = critic.linearise(&pass)?;
        let penalised = penalty.apply(&squared_distance(&linear.gradient, 0.0)?)?;
        report.penalty = Some(penalised.value);
        report.input_gradient_norm = Some(penalised.norm);
        critic.second_order(&pass, &linear, None, (&penalised.scale, 0.0), gradients)?;
    }
    Ok(report)
}

/// The generator's loss of `images` (of the classes `labels`, for a conditional critic), without dimensions, and its
/// gradient in them: ∂L/∂xᵢ = cᵢ·gᵢ, since the critic's Hessian vanishes.
///
/// # Errors
/// When the images do not fit the critic.
pub fn generator_loss(
    critic: &Critic,
    method: &dyn Method,
    loss: Loss,
    images: &Tensor,
    labels: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let pass = critic.forward(images, labels, true)?;
    let g = critic.input_gradient(&pass)?;
    let f = pass.scalar()?;
    let Some(normalisation) = method.normalisation() else {
        let graded = loss.generator(&f)?;
        return Ok((graded.value, scale_images(&g, &graded.derivative, 0.0)?));
    };
    let value = normalisation.apply(&f, &squared_distance(&g, normalisation.target)?)?;
    let graded = loss.generator(&value.f_hat)?;
    let [c, _] = cotangents(&graded.derivative, &value)?;
    Ok((graded.value, scale_images(&g, &c, 0.0)?))
}

/// Both networks, their optimisers and the moving average: all that a training step changes.
pub struct State {
    /// Generator.
    pub generator: Generator,
    /// Moving average of the generator's parameters and buffers.
    pub average: Generator,
    /// Critic.
    pub critic: Critic,
    /// Optimiser of the generator.
    pub generator_adam: Adam,
    /// Optimiser of the critic.
    pub critic_adam: Adam,
    generator_gradients: Store,
    critic_gradients: Store,
}

impl State {
    /// A fresh state around two networks.
    ///
    /// # Errors
    /// When the device refuses the memory.
    pub fn new(generator: Generator, critic: Critic, beta: [f64; 2]) -> Result<Self> {
        Ok(Self {
            average: generator.deep_clone()?,
            generator_adam: Adam::new(generator.params.flat(), beta)?,
            critic_adam: Adam::new(critic.params.flat(), beta)?,
            generator_gradients: generator.params.zeros_like()?,
            critic_gradients: critic.params.zeros_like()?,
            generator,
            critic,
        })
    }

    /// The trained generator or its moving average.
    pub fn generator(&self, weights: Weights) -> &Generator {
        match weights {
            Weights::Raw => &self.generator,
            Weights::Ema => &self.average,
        }
    }

    /// One critic update.
    ///
    /// # Errors
    /// As for [`critic_gradients`].
    pub fn critic_update(
        &mut self,
        choice: &Choice,
        loss: Loss,
        batch: &CriticBatch,
        rate: f64,
    ) -> Result<CriticReport> {
        let schedule = self.critic_schedule(self.critic_adam.updates, rate);
        self.scheduled_critic_update(choice, loss, batch, &numbers(&schedule, self.critic.params.flat())?)
    }

    /// One critic update of a schedule that is where the networks are.
    ///
    /// # Errors
    /// As for [`critic_gradients`].
    pub fn scheduled_critic_update(
        &mut self,
        choice: &Choice,
        loss: Loss,
        batch: &CriticBatch,
        schedule: &Tensor,
    ) -> Result<CriticReport> {
        clear(self.critic_gradients.flat())?;
        let report = critic_gradients(&self.critic, choice, loss, batch, &self.critic_gradients)?;
        let (params, gradients) = (self.critic.params.flat(), self.critic_gradients.flat());
        stage("optimiser", || self.critic_adam.step(params, gradients, schedule))?;
        if let Some(bound) = choice.method.clip() {
            clip(self.critic.params.flat(), bound)?;
        }
        Ok(report)
    }

    /// One generator update; the loss, without dimensions.
    ///
    /// # Errors
    /// When the latents do not fit the generator.
    pub fn generator_update(&mut self, choice: &Choice, loss: Loss, latents: &Latents, rate: f64) -> Result<Tensor> {
        let schedule = self.generator_schedule(self.generator_adam.updates, rate, 0.0);
        self.scheduled_generator_update(choice, loss, latents, &numbers(&schedule, self.generator.params.flat())?)
    }

    /// One generator update of a schedule that is where the networks are.
    ///
    /// # Errors
    /// When the latents do not fit the generator.
    pub fn scheduled_generator_update(
        &mut self,
        choice: &Choice,
        loss: Loss,
        latents: &Latents,
        schedule: &Tensor,
    ) -> Result<Tensor> {
        clear(self.generator_gradients.flat())?;
        let pass = self.generator.forward(latents, Mode::Train)?;
        let labels = latents.labels.as_ref();
        let (value, cotangent) = generator_loss(&self.critic, choice.method.as_ref(), loss, &pass.images, labels)?;
        self.generator.backward(pass, &cotangent, &self.generator_gradients)?;
        let (params, gradients) = (self.generator.params.flat(), self.generator_gradients.flat());
        stage("optimiser", || self.generator_adam.step(params, gradients, schedule))?;
        Ok(value)
    }

    /// Moves the average towards the generator; a decay of zero copies it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn update_average(&self, decay: f64) -> Result<()> {
        self.scheduled_average(&numbers(&self.generator_schedule(0, 0.0, decay), self.generator.params.flat())?)
    }

    /// The same by the decay of a generator's schedule that is where the networks are.
    ///
    /// # Errors
    /// When the device fails.
    pub fn scheduled_average(&self, schedule: &Tensor) -> Result<()> {
        let decay = (schedule, 2);
        stage("average", || {
            moving_average(self.average.params.flat(), self.generator.params.flat(), decay)?;
            moving_average(self.average.buffers.flat(), self.generator.buffers.flat(), decay)
        })
    }

    /// What changes from one critic update to the next, after so many.
    pub fn critic_schedule(&self, updates: u64, rate: f64) -> [f64; 2] {
        Adam::schedule(self.critic_adam.beta(), updates + 1, rate)
    }

    /// What changes from one generator update to the next, after so many: its optimiser's schedule, and the decay of the average with
    /// what it leaves.
    pub fn generator_schedule(&self, updates: u64, rate: f64, decay: f64) -> [f64; 4] {
        let [rate, correction] = Adam::schedule(self.generator_adam.beta(), updates + 1, rate);
        [rate, correction, decay, 1.0 - decay]
    }

    /// The last gradients: critic, generator.
    pub fn gradients(&self) -> [&Tensor; 2] {
        [self.critic_gradients.flat(), self.generator_gradients.flat()]
    }

    /// Norms of the last gradients: critic, generator; each without dimensions.
    ///
    /// # Errors
    /// When the device fails.
    pub fn gradient_norms(&self) -> Result<[Tensor; 2]> {
        let [critic, generator] = self.gradients();
        Ok([norm(critic)?, norm(generator)?])
    }

    /// All memory that updates read and write beside what they are given and what they allocate.
    pub fn memory(&self) -> Vec<Tensor> {
        let stores = [
            &self.generator.params,
            &self.generator.buffers,
            &self.average.params,
            &self.average.buffers,
            &self.critic.params,
            &self.critic.buffers,
            &self.generator_gradients,
            &self.critic_gradients,
        ];
        let flat = stores.into_iter().map(|store| store.flat().clone());
        let moments = self.generator_adam.moments.iter().chain(&self.critic_adam.moments).cloned();
        let tables = [self.generator.table(), self.critic.table()].into_iter().flatten().cloned();
        flat.chain(moments).chain(tables).collect()
    }
}
