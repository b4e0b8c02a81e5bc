//! What an affine layer multiplies with: its stored weight, over its spectral norm, folded, as an operand; and the way back of its
//! gradient.

use candle_core::{DType, Result, Tensor};

use super::conv::{add_conv2d_weight_grad, conv2d_weight_grad};
use super::fold::Fold;
use super::kernel::{Kernel, operand};
use super::spectral::{Member, Normalised, Power, Spectra, Spectral};
use super::store::{Id, Store};
use crate::machine::convolution::ConvSpec;
use crate::machine::current::is_machine;

/// The weight of one affine layer.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The parameter; under spectral normalisation the one before it is divided by σ.
    pub id: Id,
    /// Its shape as a convolution's weight `[O, I, Kh, Kw]`.
    pub shape: [usize; 4],
    /// Spectral normalisation.
    pub spectral: Option<Spectral>,
    /// Resampling that is part of the convolution.
    pub fold: Option<Fold>,
}

/// The weight of one affine layer as a pass uses it.
pub struct Weight {
    /// As convolutions take it.
    pub kernel: Kernel,
    normalised: Option<Normalised>,
}

/// The spectrally normalised ones of some weights, for a device.
///
/// # Errors
/// As for [`Spectra::new`].
pub fn spectra<'a>(of: impl Iterator<Item = &'a Stored>, params: &Store, buffers: &Store) -> Result<Option<Spectra>> {
    let member = |stored: &'a Stored| {
        let [rows, i, kh, kw] = stored.shape;
        let member = |spectral| Member { weight: stored.id, rows, columns: i * kh * kw, spectral };
        stored.spectral.as_ref().map(member)
    };
    Spectra::new(params, buffers, of.filter_map(member))
}

/// Every weight of a network for one pass, in the order of `of`.
///
/// # Errors
/// When the device fails.
pub fn weights<'a>(
    of: impl Iterator<Item = &'a Stored>,
    spectra: Option<&Spectra>,
    [params, buffers]: [&Store; 2],
    power: Power,
) -> Result<Vec<Weight>> {
    let mut together =
        spectra.map(|s| s.normalise(params, buffers, power)).transpose()?.unwrap_or_default().into_iter();
    // On a device those that nothing is done to are cast together.
    let halves = if is_machine(params.flat().device())? { Some(operand(params.flat())?) } else { None };
    let halves = halves.filter(|h| h.dtype() == DType::BF16);
    of.map(|stored| {
        let normalised = match &stored.spectral {
            None => None,
            Some(spectral) => match together.next() {
                Some(normalised) => Some(normalised),
                None => Some(Normalised::of(&params.get(stored.id)?, spectral, buffers, power)?),
            },
        };
        let plain = match &normalised {
            Some(n) => Kernel::of(&n.w, stored.shape)?,
            None => params.kernel(stored.id, stored.shape)?,
        };
        let kernel = match (stored.fold, &normalised, &halves) {
            (Some(fold), _, _) => as_operand(&fold.of(&plain)?)?,
            (None, None, Some(halves)) => {
                let n = stored.shape.iter().product();
                Kernel::of(&halves.narrow(0, params.offset(stored.id), n)?, stored.shape)?
            }
            (None, _, _) => as_operand(&plain)?,
        };
        Ok(Weight { kernel, normalised })
    })
    .collect()
}

fn as_operand(kernel: &Kernel) -> Result<Kernel> {
    Kernel::of(&operand(kernel.data())?, kernel.shape())
}

impl Weight {
    /// Adds the gradient in the stored weight to its place in `into`, where `x` and `dy` are input and output gradient of the
    /// convolution by the kernel (of a transposed one the other way round).
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn add_gradient(&self, stored: &Stored, [x, dy]: [&Tensor; 2], spec: ConvSpec, into: &Store) -> Result<()> {
        let [_, _, kh, kw] = self.kernel.shape();
        let target = into.get(stored.id)?;
        match (&self.normalised, stored.fold) {
            (None, None) => add_conv2d_weight_grad(x, dy, spec, [kh, kw], &target),
            (None, Some(fold)) => fold.add_gradient(&conv2d_weight_grad(x, dy, spec, [kh, kw])?, &target),
            (Some(normalised), fold) => {
                let gradient = conv2d_weight_grad(x, dy, spec, [kh, kw])?;
                let gradient = fold.map(|fold| fold.gradient(&gradient)).transpose()?.unwrap_or(gradient);
                normalised.add_pull_back(gradient.data(), &target)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv::conv2d;
    use crate::nn::init::Init;
    use crate::nn::order::Order;
    use crate::nn::store::Builder;
    use crate::nn::testing::{central_difference, device, dot, random, tensors_close, values};
    use crate::rng::Stream;

    const SHAPES: [[usize; 4]; 3] = [[5, 4, 3, 3], [2, 6, 1, 1], [7, 3, 3, 3]];

    fn network(spectral: bool, fold: Option<Fold>) -> ([Store; 2], Vec<Stored>) {
        let (mut params, mut buffers) = (Builder::default(), Builder::default());
        let stored = SHAPES.iter().enumerate().map(|(k, &shape)| {
            let name = format!("layer{k}");
            let id = params.add_ordered(format!("{name}.weight"), &shape, Init::Normal(1.0), Order::kernel(shape));
            params.add(format!("{name}.bias"), &shape[..1], Init::Normal(1.0));
            let [o, i, kh, kw] = shape;
            let orders = [Order::plain(o), Order::kernel([1, i, kh, kw])];
            let spectral = spectral.then(|| Spectral::declare(&mut buffers, &name, &shape, 1e-12, orders));
            Stored { id, shape, spectral, fold: fold.filter(|_| kh == 3) }
        });
        let stored = stored.collect();
        let mut stream = Stream::new(0, "weights", 0);
        let stores = [params, buffers].map(|b| b.build(&mut stream, DType::F64, device()).unwrap());
        (stores, stored)
    }

    /// σ after one power iteration, and the vectors it leaves.
    fn power(w: &[f64], columns: usize, u: &[f64], iterate: bool, v: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        let unit = |x: Vec<f64>| {
            let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            x.into_iter().map(|x| x / norm).collect::<Vec<_>>()
        };
        let column = |c: usize| u.iter().zip(w.chunks(columns)).map(|(u, row)| u * row[c]).sum();
        let v = if iterate { unit((0..columns).map(column).collect()) } else { v.to_vec() };
        let wv: Vec<f64> = w.chunks(columns).map(|row| row.iter().zip(&v).map(|(a, b)| a * b).sum()).collect();
        let u = if iterate { unit(wv.clone()) } else { u.to_vec() };
        (u.iter().zip(&wv).map(|(a, b)| a * b).sum(), u, v)
    }

    #[test]
    fn weights_are_over_their_spectral_norms() {
        for of in [Power::Still, Power::Once, Power::Moving] {
            let ([params, buffers], stored) = network(true, None);
            let before = buffers.named().unwrap();
            let together = spectra(stored.iter(), &params, &buffers).unwrap();
            let made = weights(stored.iter(), together.as_ref(), [&params, &buffers], of).unwrap();
            let after = buffers.named().unwrap();
            let named = params.named().unwrap();
            for (k, (weight, stored)) in made.iter().zip(&stored).enumerate() {
                let read = |from: &std::collections::BTreeMap<String, Tensor>, name: &str| {
                    values(&from[&format!("layer{k}.{name}")])
                };
                let columns = stored.shape[1..].iter().product();
                let w = read(&named, "weight");
                // The stores' own tensors are views on the CPU: only where vectors stay are these the ones before.
                let (u, v) = match of {
                    Power::Moving => {
                        let ([_, fresh], _) = network(true, None);
                        let fresh = fresh.named().unwrap();
                        (read(&fresh, "weight_u"), read(&fresh, "weight_v"))
                    }
                    _ => (read(&before, "weight_u"), read(&before, "weight_v")),
                };
                let (sigma, new_u, new_v) = power(&w, columns, &u, of != Power::Still, &v);
                let want: Vec<f64> = w.iter().map(|w| w / sigma).collect();
                let want = Tensor::from_vec(want, &stored.shape[..], device()).unwrap();
                tensors_close(&weight.kernel.tensor().unwrap(), &want, 1e-13);
                if of == Power::Moving {
                    for (name, want) in [("weight_u", new_u), ("weight_v", new_v)] {
                        let got = &after[&format!("layer{k}.{name}")];
                        tensors_close(got, &Tensor::from_vec(want, got.dims(), device()).unwrap(), 1e-13);
                    }
                } else {
                    assert_eq!(read(&after, "weight_u"), u);
                }
            }
        }
    }

    #[test]
    fn gradients_are_central_differences_through_norm_and_fold() {
        for (spectral, fold) in [(false, None), (false, Some(Fold::Pool)), (true, None), (true, Some(Fold::Pool))] {
            let ([params, buffers], stored) = network(spectral, fold);
            let spec = if fold.is_some() { ConvSpec::new(2, 1) } else { ConvSpec::new(1, 1) };
            let (x, stored) = (random("x", &[2, 6, 6, 4]), &stored[..1]);
            let together = spectra(stored.iter(), &params, &buffers).unwrap();
            let weight = || {
                let mut all = weights(stored.iter(), together.as_ref(), [&params, &buffers], Power::Still).unwrap();
                all.remove(0)
            };
            let y = conv2d(&x, &weight().kernel, None, spec).unwrap();
            let dy = random("dy", y.dims());
            let gradients = params.zeros_like().unwrap();
            weight().add_gradient(&stored[0], [&x, &dy], spec, &gradients).unwrap();
            let w = params.get(stored[0].id).unwrap();
            let loss = |at: &Tensor| {
                params.set(stored[0].id, at)?;
                Ok(dot(&conv2d(&x, &weight().kernel, None, spec)?, &dy))
            };
            let gradient = gradients.get(stored[0].id).unwrap();
            central_difference(loss, &w.copy().unwrap(), &random("v", w.dims()), &gradient);
        }
    }
}
