//! One training step: the critic's gradients for any method, and the generator's. No method is named here.

use candle_core::{DType, Result, Tensor, bail};

use crate::config::Weights;
use crate::critic::{Critic, Forward, Linear};
use crate::generators::{Generator, Latents, Mode};
use crate::losses::Loss;
use crate::machine::program::stage;
use crate::methods::{CR_WEIGHT, Choice, Method, Normalisation, Normalised, OnBatch, Penalised, ZeroCentred};
use crate::nn::image::{clear, join, mix_images, norm, scale_images, squared_distance};
use crate::nn::op::{either, numbers};
use crate::nn::store::Store;
use crate::optim::{Adam, Pace, clip, moving_average};
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
    /// How the real images and then the generated ones are augmented, `[2N, NUMBERS]` ([`crate::nn::augment`]).
    pub augmentation: Option<Tensor>,
    /// γ of a zero-centred penalty, `[1]` ([`numbers`]).
    pub gamma: Option<Tensor>,
}

/// What one generator update reads.
pub struct GeneratorBatch {
    /// Of its images.
    pub latents: Latents,
    /// Real images of the same classes, which a loss of pairs compares them with.
    pub real: Option<Tensor>,
    /// How the generated images and then these are augmented, a row each.
    pub augmentation: Option<Tensor>,
}

/// Images and how they are augmented.
pub type Seen<'a> = (&'a Tensor, Option<&'a Tensor>);

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
    /// The adjoint pass, where the method needs it.
    linear: Option<Linear>,
    /// What a normalisation made of both; without one f̂ = f.
    normalised: Option<(Normalisation, Normalised)>,
}

impl Evaluated {
    /// Calls the critic on `x` `[N, H, W, 3]`, augmented if that is said, of the classes `labels` if it is conditional, and normalises its output. In
    /// training mode, vectors of spectral normalisation move.
    ///
    /// # Errors
    /// When the images do not fit the critic.
    pub fn new(
        critic: &Critic,
        choice: &Choice,
        (x, augmentation): Seen,
        labels: Option<&Tensor>,
        training: bool,
    ) -> Result<Self> {
        let pass = critic.forward_augmented((x, augmentation), labels, training)?;
        let linear = choice.linearises().then(|| critic.linearise(&pass)).transpose()?;
        let normalised = match (choice.method.normalisation(), &linear) {
            (Some(of), Some(linear)) => {
                let squared = squared_distance(&linear.gradient, of.target)?;
                Some((of, of.apply(&pass.scalar()?, &squared)?))
            }
            _ => None,
        };
        Ok(Self { pass, linear, normalised })
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
            Some((_, value)) => Ok(value.f_hat.clone()),
            None => self.f(),
        }
    }

    /// ∂f̂/∂f per image, `[N]`, where there is a normalisation.
    pub fn by_f(&self) -> Option<&Tensor> {
        self.normalised.as_ref().map(|(_, value)| &value.by_f)
    }

    /// g per image, where the method computes it.
    pub fn gradient(&self) -> Option<&Tensor> {
        self.linear.as_ref().map(|linear| &linear.gradient)
    }

    /// ∇ₓf̂ per image, `[N, H, W, C]`: (∂f̂/∂f)·g, since the critic's Hessian vanishes.
    ///
    /// # Errors
    /// As for [`Evaluated::f`].
    pub fn f_hat_gradient(&self, critic: &Critic) -> Result<Tensor> {
        match (&self.normalised, &self.linear) {
            (Some((_, value)), Some(linear)) => scale_images(&linear.gradient, &value.by_f),
            _ => critic.input_gradient(&self.pass),
        }
    }

    /// Adds the gradient of a loss with `derivative` ∂L/∂f̂ `[N]` to `gradients`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn backward(&self, critic: &Critic, derivative: &Tensor, gradients: &Store) -> Result<()> {
        match (&self.normalised, &self.linear) {
            (Some((of, value)), Some(linear)) => {
                critic.second_order(&self.pass, linear, &of.cotangents(derivative, value)?, gradients)
            }
            _ => critic.first_order(&self.pass, &derivative.unsqueeze(1)?, gradients),
        }
    }

    /// The same of the loss with a penalty on the gradient at these images, of which the first `real` are real ones.
    ///
    /// # Errors
    /// As for [`Evaluated::backward`].
    fn penalised_backward(
        &self,
        critic: &Critic,
        (penalty, gamma): (ZeroCentred, &Tensor),
        derivative: &Tensor,
        real: usize,
        gradients: &Store,
    ) -> Result<Penalised> {
        let Some(linear) = &self.linear else { bail!("a penalty on the gradient needs the adjoint pass") };
        let at = OnBatch {
            f: &self.f()?,
            squared_norm: &squared_distance(&linear.gradient, 0.0)?,
            normalised: self.normalised.as_ref().map(|(of, value)| (*of, value)),
        };
        let penalised = penalty.apply(&at, derivative, real, gamma)?;
        critic.second_order(&self.pass, linear, &penalised.cotangents, gradients)?;
        Ok(penalised)
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
    let both = join(&batch.real, &batch.fake)?;
    let on_batch = Evaluated::new(critic, choice, (&both, batch.augmentation.as_ref()), labels.as_ref(), true)?;
    let graded = loss.critic(&on_batch.f_hat()?, n)?;
    let mut derivative = graded.derivative;
    let mut report = CriticReport { loss: graded.value, penalty: None, consistency: None, input_gradient_norm: None };
    if let (Some(g), None) = (on_batch.gradient(), choice.zero_centred) {
        report.input_gradient_norm = Some(mean_norm(&squared_distance(g, 0.0)?)?);
    }

    if choice.consistency {
        let Some(augmented) = &batch.augmented else { bail!("consistency regularisation needs the augmented images") };
        let on_augmented = Evaluated::new(critic, choice, (augmented, None), real_labels, true)?;
        let [value, pull, with_pull] = consistency(&on_augmented.f_hat()?, &on_batch.f_hat()?, &derivative)?;
        report.consistency = Some(value);
        on_augmented.backward(critic, &pull, gradients)?;
        derivative = with_pull;
    }
    match (choice.zero_centred, &batch.gamma) {
        (None, _) => on_batch.backward(critic, &derivative, gradients)?,
        (Some(penalty), Some(gamma)) => {
            let penalised = on_batch.penalised_backward(critic, (penalty, gamma), &derivative, n, gradients)?;
            (report.penalty, report.input_gradient_norm) = (Some(penalised.value), Some(penalised.norm));
        }
        (Some(_), None) => bail!("{} needs γ", method.id()),
    }
    drop(on_batch);

    if let Some(penalty) = method.penalty() {
        let Some(mix) = &batch.mix else { bail!("{} needs the weights of the interpolation", method.id()) };
        let mixed = mix_images([&batch.real, &batch.fake], mix)?;
        let pass = critic.forward(&mixed, real_labels, true)?;
        let linear = critic.linearise(&pass)?;
        let penalised = penalty.apply(&squared_distance(&linear.gradient, 0.0)?)?;
        report.penalty = Some(penalised.value);
        report.input_gradient_norm = Some(penalised.norm);
        critic.second_order(&pass, &linear, &penalised.cotangents, gradients)?;
    }
    Ok(report)
}

/// f̂ of images that no gradient goes back to, `[N]`.
fn f_hat(critic: &Critic, method: &dyn Method, images: Seen, labels: Option<&Tensor>) -> Result<Tensor> {
    let pass = critic.forward_augmented(images, labels, true)?;
    let Some(of) = method.normalisation() else { return pass.scalar() };
    let squared = squared_distance(&critic.input_gradient(&pass)?, of.target)?;
    Ok(of.apply(&pass.scalar()?, &squared)?.f_hat)
}

/// The generator's loss of `images`, made of the batch's latents, without dimensions, and its gradient in them: ∂L/∂xᵢ = cᵢ·gᵢ, since the
/// critic's Hessian vanishes.
///
/// # Errors
/// When the images do not fit the critic, or a loss of pairs has nothing to compare with.
pub fn generator_loss(
    critic: &Critic,
    method: &dyn Method,
    loss: Loss,
    images: &Tensor,
    batch: &GeneratorBatch,
) -> Result<(Tensor, Tensor)> {
    let (n, labels) = (images.dim(0)?, batch.latents.labels.as_ref());
    let rows = |first: usize| batch.augmentation.as_ref().map(|by| by.narrow(0, first, n)).transpose();
    let pass = critic.forward_augmented((images, rows(0)?.as_ref()), labels, true)?;
    let g = critic.input_gradient(&pass)?;
    let real = match &batch.real {
        Some(real) if loss.pairs() => Some(f_hat(critic, method, (real, rows(n)?.as_ref()), labels)?),
        _ => None,
    };
    let f = pass.scalar()?;
    let Some(of) = method.normalisation() else {
        let graded = loss.generator(&f, real.as_ref())?;
        return Ok((graded.value, scale_images(&g, &graded.derivative)?));
    };
    let value = of.apply(&f, &squared_distance(&g, of.target)?)?;
    let graded = loss.generator(&value.f_hat, real.as_ref())?;
    let Some([c, _]) = of.cotangents(&graded.derivative, &value)?.others else { bail!("f̂ does not depend on f") };
    Ok((graded.value, scale_images(&g, &c)?))
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
    pub fn new(generator: Generator, critic: Critic, beta1: f64) -> Result<Self> {
        Ok(Self {
            average: generator.deep_clone()?,
            generator_adam: Adam::new(generator.params.flat(), beta1)?,
            critic_adam: Adam::new(critic.params.flat(), beta1)?,
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
        pace: Pace,
    ) -> Result<CriticReport> {
        let schedule = Adam::schedule(self.critic_adam.beta1(), self.critic_adam.updates + 1, pace);
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
    /// When the latents do not fit the generator, or there is no real image for each.
    pub fn generator_update(
        &mut self,
        choice: &Choice,
        loss: Loss,
        batch: &GeneratorBatch,
        pace: Pace,
    ) -> Result<Tensor> {
        let schedule = Adam::schedule(self.generator_adam.beta1(), self.generator_adam.updates + 1, pace);
        let schedule = numbers(&schedule, self.generator.params.flat())?;
        self.scheduled_generator_update(choice, loss, batch, &schedule)
    }

    /// One generator update of a schedule that is where the networks are.
    ///
    /// # Errors
    /// As for [`State::generator_update`].
    pub fn scheduled_generator_update(
        &mut self,
        choice: &Choice,
        loss: Loss,
        batch: &GeneratorBatch,
        schedule: &Tensor,
    ) -> Result<Tensor> {
        clear(self.generator_gradients.flat())?;
        let pass = self.generator.forward(&batch.latents, Mode::Train)?;
        let (value, cotangent) = generator_loss(&self.critic, choice.method.as_ref(), loss, &pass.images, batch)?;
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
        self.scheduled_average(&numbers(&[decay, 1.0 - decay], self.generator.params.flat())?)
    }

    /// The same by a decay, and what it leaves, that are where the networks are.
    ///
    /// # Errors
    /// When the device fails.
    pub fn scheduled_average(&self, decay: &Tensor) -> Result<()> {
        stage("average", || {
            moving_average(self.average.params.flat(), self.generator.params.flat(), decay)?;
            moving_average(self.average.buffers.flat(), self.generator.buffers.flat(), decay)
        })
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
