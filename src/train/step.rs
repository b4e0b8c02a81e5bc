//! One training step: the critic's gradients for any method, and the generator's. No method is named here.

use candle_core::{DType, Result, Tensor, bail};

use crate::config::Weights;
use crate::critic::{Critic, Forward, Linear};
use crate::generators::{Generator, Latents, Mode};
use crate::losses::Loss;
use crate::methods::{CR_WEIGHT, Choice, Method, Normalised, PENALTY_WEIGHT};
use crate::nn::image::{norm, scale_images, squared_distance};
use crate::nn::store::Store;
use crate::optim::{Adam, clip, moving_average};

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

/// What a critic update reports, in f64 without dimensions where the networks are: reading a value waits for the device.
/// Losses are means over images.
#[derive(Clone, Debug)]
pub struct CriticReport {
    /// Adversarial loss.
    pub loss: Tensor,
    /// Weighted gradient penalty.
    pub penalty: Tensor,
    /// Weighted consistency regularisation.
    pub consistency: Tensor,
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
    /// ‖g − t‖ per image.
    norm: Tensor,
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
        let norm = squared_distance(&linear.gradient, normalisation.target)?.sqrt()?;
        let value = (normalisation.apply)(&pass.scalar()?, &norm)?;
        Ok(Self { pass, normalised: Some(ByGradient { target: normalisation.target, linear, norm, value }) })
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
        let c = (derivative * &n.value.by_f)?;
        let v = norm_cotangent(&n.linear.gradient, &n.norm, &(derivative * &n.value.by_norm)?, n.target)?;
        critic.second_order(&self.pass, &n.linear, Some(&c), &v, gradients)
    }
}

/// ∂L/∂g from ∂L/∂n for n = ‖g − t‖; zero where n is.
fn norm_cotangent(g: &Tensor, norm: &Tensor, by_norm: &Tensor, target: f64) -> Result<Tensor> {
    let floor = (norm.zeros_like()? + f64::from(f32::MIN_POSITIVE))?;
    scale_images(g, &(by_norm / norm.maximum(&floor)?)?, target)
}

fn mean(t: &Tensor) -> Result<Tensor> {
    t.mean_all()?.to_dtype(DType::F64)
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
    let labels = batch.labels.as_ref().map(|[real, fake]| Tensor::cat(&[real, fake], 0)).transpose()?;
    // The augmented and the mixed images are of the real ones' classes.
    let real_labels = batch.labels.as_ref().map(|[real, _]| real);
    let on_batch =
        Evaluated::new(critic, method, &Tensor::cat(&[&batch.real, &batch.fake], 0)?, labels.as_ref(), true)?;
    let graded = loss.critic(&on_batch.f_hat()?, n)?;
    let mut derivative = graded.derivative;
    let none = graded.value.zeros_like()?;
    let mut report =
        CriticReport { loss: graded.value, penalty: none.clone(), consistency: none, input_gradient_norm: None };
    if let Some(g) = on_batch.gradient() {
        report.input_gradient_norm = Some(mean(&squared_distance(g, 0.0)?.sqrt()?)?);
    }

    if choice.consistency {
        let Some(augmented) = &batch.augmented else { bail!("consistency regularisation needs the augmented images") };
        let on_augmented = Evaluated::new(critic, method, augmented, real_labels, true)?;
        let difference = (on_augmented.f_hat()? - on_batch.f_hat()?.narrow(0, 0, n)?)?;
        report.consistency = (mean(&difference.sqr()?)? * CR_WEIGHT)?;
        let pull = (difference * (2.0 * CR_WEIGHT / n as f64))?;
        on_augmented.backward(critic, &pull, gradients)?;
        let rest = Tensor::zeros(derivative.dim(0)? - n, derivative.dtype(), derivative.device())?;
        derivative = (derivative - Tensor::cat(&[&pull, &rest], 0)?)?;
    }
    on_batch.backward(critic, &derivative, gradients)?;
    drop(on_batch);

    if let Some(penalty) = method.penalty() {
        let Some(mix) = &batch.mix else { bail!("{} needs the weights of the interpolation", method.id()) };
        let mixed = (scale_images(&batch.real, mix, 0.0)? + scale_images(&batch.fake, &(1.0 - mix)?, 0.0)?)?;
        let pass = critic.forward(&mixed, real_labels, true)?;
        let linear = critic.linearise(&pass)?;
        let norm = squared_distance(&linear.gradient, 0.0)?.sqrt()?;
        let [value, by_norm] = penalty(&norm)?;
        report.penalty = (mean(&value)? * PENALTY_WEIGHT)?;
        report.input_gradient_norm = Some(mean(&norm)?);
        let v = norm_cotangent(&linear.gradient, &norm, &(by_norm * (PENALTY_WEIGHT / n as f64))?, 0.0)?;
        critic.second_order(&pass, &linear, None, &v, gradients)?;
    }
    Ok(report)
}

/// The generator's loss of `images` (of the classes `labels`, for a conditional critic), an f64 without dimensions, and its
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
    let (f_hat, by_f) = match method.normalisation() {
        Some(n) => {
            let value = (n.apply)(&f, &squared_distance(&g, n.target)?.sqrt()?)?;
            (value.f_hat, value.by_f)
        }
        None => (f.clone(), f.ones_like()?),
    };
    let graded = loss.generator(&f_hat)?;
    Ok((graded.value, scale_images(&g, &(graded.derivative * by_f)?, 0.0)?))
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
        self.critic_gradients = self.critic.params.zeros_like()?;
        let report = critic_gradients(&self.critic, choice, loss, batch, &self.critic_gradients)?;
        self.critic_adam.step(self.critic.params.flat(), self.critic_gradients.flat(), rate)?;
        if let Some(bound) = choice.method.clip() {
            clip(self.critic.params.flat(), bound)?;
        }
        Ok(report)
    }

    /// One generator update; the loss, an f64 without dimensions.
    ///
    /// # Errors
    /// When the latents do not fit the generator.
    pub fn generator_update(&mut self, choice: &Choice, loss: Loss, latents: &Latents, rate: f64) -> Result<Tensor> {
        self.generator_gradients = self.generator.params.zeros_like()?;
        let pass = self.generator.forward(latents, Mode::Train)?;
        let labels = latents.labels.as_ref();
        let (value, cotangent) = generator_loss(&self.critic, choice.method.as_ref(), loss, &pass.images, labels)?;
        self.generator.backward(pass, &cotangent, &self.generator_gradients)?;
        self.generator_adam.step(self.generator.params.flat(), self.generator_gradients.flat(), rate)?;
        Ok(value)
    }

    /// Moves the average towards the generator; a decay of zero copies it.
    ///
    /// # Errors
    /// When the device fails.
    pub fn update_average(&self, decay: f64) -> Result<()> {
        moving_average(self.average.params.flat(), self.generator.params.flat(), decay)?;
        moving_average(self.average.buffers.flat(), self.generator.buffers.flat(), decay)
    }

    /// Norms of the last gradients: critic, generator; each an f64 without dimensions.
    ///
    /// # Errors
    /// When the device fails.
    pub fn gradient_norms(&self) -> Result<[Tensor; 2]> {
        Ok([norm(self.critic_gradients.flat())?, norm(self.generator_gradients.flat())?])
    }
}
