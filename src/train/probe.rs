//! How steep a critic is: the norm of the gradient of f̂, the slope between images, and both under input noise. The evidence
//! for what the paper's Table 1 says of each method. And, at each evaluation of a run, what methods differ in: where f̂ lies, how
//! steep f and f̂ are, and how much of a change of f reaches the loss.
//!
//! The gradient is exact: f̂ᵢ depends on the image through fᵢ and ‖gᵢ − t‖, the critic's Hessian vanishes, and so
//! ∇f̂ᵢ = (∂f̂ᵢ/∂fᵢ)·gᵢ.

use candle_core::{DType, Device, Tensor};

use super::step::{Evaluated, State};
use crate::config::{Cell, Weights};
use crate::data::{Images, to_tensor};
use crate::error::{Error, Result};
use crate::generators::{Mode, is_conditional};
use crate::losses::Loss;
use crate::methods::Choice;
use crate::nn::image::{one_hot, scale_images, squared_distance};
use crate::results::CRITIC;
use crate::rng::Stream;

/// Images in the critic at a time.
const BATCH: usize = 64;
/// Standard deviations of the noise, of images in [−1, 1].
pub const NOISE: [f64; 2] = [0.05, 0.25];

/// A sample of measured values.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What was measured: `gradient` or `slope`.
    pub quantity: &'static str,
    /// On what: `real`, `generated`, `mixed`, `real+noise0.05`, …
    pub on: String,
    /// Values in increasing order.
    pub values: Vec<f64>,
}

impl Sample {
    fn new(quantity: &'static str, on: impl Into<String>, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { quantity, on: on.into(), values }
    }

    /// The value below which a share `q` of the sample lies.
    pub fn quantile(&self, q: f64) -> f64 {
        let at = (q * (self.values.len().max(1) - 1) as f64).round() as usize;
        self.values.get(at).copied().unwrap_or(f64::NAN)
    }

    /// Mean.
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }
}

/// A set of images with their classes.
struct Set {
    x: Tensor,
    labels: Option<Tensor>,
}

/// f and f̂ with the norms of their gradients, and ∂f̂/∂f, per image.
#[derive(Default)]
struct Steepness {
    f: Vec<f64>,
    f_hat: Vec<f64>,
    by_f: Vec<f64>,
    f_gradient: Vec<f64>,
    gradient: Vec<f64>,
}

fn steepness(state: &State, choice: &Choice, set: &Set) -> Result<Steepness> {
    let mut out = Steepness::default();
    let n = set.x.dim(0)?;
    for first in (0..n).step_by(BATCH) {
        let len = BATCH.min(n - first);
        let x = set.x.narrow(0, first, len)?.contiguous()?;
        let labels = set.labels.as_ref().map(|l| l.narrow(0, first, len)).transpose()?;
        let at = Evaluated::new(&state.critic, choice, (&x, None), labels.as_ref(), false)?;
        let gradient = at.f_hat_gradient(&state.critic)?;
        let norms = |of: &Tensor| values(&squared_distance(of, 0.0)?.sqrt()?);
        out.f_gradient.extend(norms(at.gradient().unwrap_or(&gradient))?);
        out.gradient.extend(norms(&gradient)?);
        out.f.extend(values(&at.f()?)?);
        out.f_hat.extend(values(&at.f_hat()?)?);
        out.by_f.extend(match at.by_f() {
            Some(by_f) => values(by_f)?,
            None => vec![1.0; len],
        });
    }
    Ok(out)
}

fn values(t: &Tensor) -> Result<Vec<f64>> {
    Ok(t.to_dtype(DType::F64)?.to_vec1()?)
}

/// |f̂(a) − f̂(b)| / ‖a − b‖ of pairs; pairs of equal images have no slope.
fn slopes(a: (&Set, &[f64]), b: (&Set, &[f64])) -> Result<Vec<f64>> {
    let distance = values(&squared_distance(&(&a.0.x - &b.0.x)?, 0.0)?.sqrt()?)?;
    let pairs = distance.iter().zip(a.1.iter().zip(b.1)).filter(|(d, _)| **d > 0.0);
    Ok(pairs.map(|(d, (a, b))| (a - b).abs() / d).collect())
}

/// `n` real images that the stream picks and as many generated ones, raw and by statistics of the batch.
fn sets(state: &State, cell: &Cell, images: &Images, n: usize, stream: &mut Stream) -> Result<[Set; 2]> {
    let device = state.critic.params.flat().device().clone();
    let generator = state.generator(Weights::Raw);
    let picks = &stream.permutation(images.len())[..n];
    let pixels: Vec<u8> = picks.iter().flat_map(|&i| images.image(i as usize).iter().copied()).collect();
    let labels: Vec<u16> = picks.iter().map(|&i| images.labels[i as usize]).collect();
    let labels = generator.classes.map(|k| one_hot(&labels, k, DType::F32, &device)).transpose()?;
    let real = Set { x: to_tensor(&pixels, images.side, &device)?, labels };
    let (mut x, mut labels) = (Vec::new(), Vec::new());
    for (batch, _) in (0..n).step_by(cell.eval.batch).enumerate() {
        let latents = generator.latents(cell.seed, "probe/latents", batch as u64, cell.eval.batch)?;
        x.push(generator.images(&latents, Mode::Batch)?);
        labels.extend(latents.labels);
    }
    let first = |parts: &[Tensor]| Tensor::cat(parts, 0)?.narrow(0, 0, n)?.contiguous();
    let labels = if labels.is_empty() { None } else { Some(first(&labels)?) };
    Ok([real, Set { x: first(&x)?, labels }])
}

/// Images of each set that [`outlook`] sees.
pub const OUTLOOK: usize = 256;

/// What the critic makes of `n` real and as many generated images, the same at every call: [`CRITIC`], each as a mean over the real and
/// one over the generated images.
///
/// # Errors
/// When the networks fail.
pub fn outlook(
    state: &State,
    choice: &Choice,
    loss: Loss,
    cell: &Cell,
    images: &Images,
    n: usize,
) -> Result<Vec<(&'static str, [f64; 2])>> {
    let sets = sets(state, cell, images, n, &mut Stream::new(cell.seed, "probe", 0))?;
    let of = [steepness(state, choice, &sets[0])?, steepness(state, choice, &sets[1])?];
    let f_hat = Tensor::new([of[0].f_hat.clone(), of[1].f_hat.clone()].concat(), &Device::Cpu)?;
    let slopes = loss.critic(&f_hat, n)?.derivative.to_vec1::<f64>()?;
    let is_normalised = choice.method.normalisation().is_some();
    // Of an image of a side, and the slope of the loss in its f̂.
    let each = |value: &dyn Fn(&Steepness, usize, f64) -> f64| {
        [0, 1].map(|side| (0..n).map(|i| value(&of[side], i, slopes[side * n + i])).sum::<f64>() / n as f64)
    };
    let values = [
        Some(each(&|of, i, _| of.f[i])),
        Some(each(&|of, i, _| of.f_hat[i])),
        Some(each(&|of, i, _| of.f_gradient[i])),
        Some(each(&|of, i, _| of.gradient[i])),
        is_normalised.then(|| each(&|of, i, _| f64::from(of.f_hat[i].abs() > 0.5))),
        Some(each(&|_, _, slope| f64::from(slope == 0.0))),
        Some(each(&|of, i, slope| (slope * of.by_f[i]).abs() * n as f64)),
    ];
    Ok(CRITIC.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect())
}

/// Measures a trained state on `n` real, generated and mixed images.
///
/// # Errors
/// When there are not `n` real images, or the networks fail.
pub fn measure(
    state: &State,
    choice: &Choice,
    cell: &Cell,
    images: &Images,
    n: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Sample>> {
    if n < 2 || n > images.len() {
        return Err(Error::invalid(format!("{n} images: {} has {}, and a slope needs two", images.name, images.len())));
    }
    if is_conditional(&cell.arch) {
        images.labelled()?;
    }
    let device = state.critic.params.flat().device().clone();
    let mut stream = Stream::new(cell.seed, "probe", 0);
    let [real, generated] = sets(state, cell, images, n, &mut stream)?;
    let share: Vec<f32> = (0..n).map(|_| stream.uniform() as f32).collect();
    let share = Tensor::from_vec(share, n, &device)?;
    let mixed = (scale_images(&real.x, &share)? + scale_images(&generated.x, &(1.0 - &share)?)?)?;
    let mixed = Set { x: mixed, labels: real.labels.clone() };

    let total = 3 + 2 * NOISE.len();
    let mut done = 0;
    let mut measured = |set: &Set| {
        let of = steepness(state, choice, set);
        done += 1;
        progress(done, total);
        of
    };
    let mut samples = Vec::new();
    let (on_real, on_generated) = (measured(&real)?, measured(&generated)?);
    samples.push(Sample::new("gradient", "mixed", measured(&mixed)?.gradient));
    for (name, set, of) in [("real", &real, &on_real), ("generated", &generated, &on_generated)] {
        samples.push(Sample::new("gradient", name, of.gradient.clone()));
        // Each image with the next one.
        let turned = |t: &Tensor| Tensor::cat(&[t.narrow(0, 1, n - 1)?, t.narrow(0, 0, 1)?], 0);
        let next = Set { x: turned(&set.x)?, labels: None };
        let next_f: Vec<f64> = of.f_hat.iter().cycle().skip(1).take(n).copied().collect();
        samples.push(Sample::new("slope", name, slopes((set, &of.f_hat), (&next, &next_f))?));
        for sigma in NOISE {
            let noise: Vec<f32> = stream.normals(set.x.elem_count()).iter().map(|v| v * sigma as f32).collect();
            let noise = Tensor::from_vec(noise, set.x.dims(), &Device::Cpu)?.to_device(&device)?;
            let noisy = Set { x: (&set.x + noise)?, labels: set.labels.clone() };
            let of_noisy = measured(&noisy)?;
            let on = format!("{name}+noise{sigma}");
            samples.push(Sample::new("slope", on.clone(), slopes((set, &of.f_hat), (&noisy, &of_noisy.f_hat))?));
            samples.push(Sample::new("gradient", on, of_noisy.gradient));
        }
    }
    samples.push(Sample::new(
        "slope",
        "real-generated",
        slopes((&real, &on_real.f_hat), (&generated, &on_generated.f_hat))?,
    ));
    samples.sort_by(|a, b| (a.quantity, &a.on).cmp(&(b.quantity, &b.on)));
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::critic::Critic;
    use crate::methods;
    use crate::nn::testing::{central_difference, random};

    #[test]
    fn the_gradient_of_f_hat_is_a_central_difference_and_gn_bounds_it_by_one() {
        for method in ["none", "sn", "gn", "pgn", "pgn-theory"] {
            let choice = methods::find(method).unwrap();
            let method = choice.method.as_ref();
            let mut stream = Stream::new(0, "probe/test", 0);
            let critic =
                Critic::new("resnet32", 0.03, 1, method.spectral(), &mut stream, DType::F64, &Device::Cpu).unwrap();
            let x = random("x", &[3, 32, 32, 3]);
            let at = |x: &Tensor| Evaluated::new(&critic, &choice, (x, None), None, false);
            let gradient = at(&x).unwrap().f_hat_gradient(&critic).unwrap();
            let sum = |x: &Tensor| at(x)?.f_hat()?.sum_all()?.to_scalar::<f64>();
            central_difference(sum, &x, &random("v", x.dims()), &gradient);
            if method.id() == "gn" {
                let norms = values(&squared_distance(&gradient, 0.0).unwrap().sqrt().unwrap()).unwrap();
                assert!(norms.iter().all(|n| *n <= 1.0), "{norms:?}");
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_sample() {
        let s = Sample::new("slope", "real", vec![3.0, 1.0, 2.0, 5.0, 4.0]);
        assert_eq!((s.quantile(0.0), s.quantile(0.5), s.quantile(1.0), s.mean()), (1.0, 3.0, 5.0, 3.0));
    }
}
