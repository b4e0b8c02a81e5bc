//! Two-dimensional convolution and its two gradients, the only costly operators of the harness.
//!
//! Legend: N images, H×W pixels, I input and O output channels (in G groups, where there are more than one), K kernel side. Images are `[N, H, W, C]` (channels
//! last, so that a pixel's channels are one contiguous run); weights are `[O, I, Kh, Kw]` ([`Kernel`]).
//!
//! The transposed convolution is the input gradient of a convolution and needs no kernel of its own, and a linear layer
//! is a convolution of one pixel.

mod cpu;
mod device;
pub mod packed;
#[cfg(test)]
mod tests;
mod weight_grad;
mod winograd;

use candle_core::{Result, Shape, Tensor, bail};

use super::activation::{Gelu, add_assign};
use super::batch_norm::Coefficients;
use super::kernel::{Kernel, Next};
use super::op::{Made, Op, View, apply, either, elements};
use super::tally::{Tally, grad_sums, moments};
use crate::machine::call::Array;
pub use crate::machine::convolution::ConvSpec;
use crate::machine::convolution::Dims;
use crate::machine::cpu::real::{Real, vectorised};
use crate::machine::tape::Tape;

/// What is done to outputs while they are in cache.
#[derive(Clone, Copy)]
pub enum Then<'a> {
    /// Nothing.
    Nothing,
    /// [`leaky_relu`](crate::nn::activation::leaky_relu) with this α.
    Leaky(f64),
    /// [`leaky_relu_slope`](crate::nn::activation::leaky_relu_slope) where the activation's output was `y`.
    #[allow(missing_docs)]
    Slope { y: &'a Tensor, alpha: f64 },
    /// [`add_scaled_bias`](crate::nn::image::add_scaled_bias) of `bias` `[C]` times `c` `[N]`, then as [`Then::Slope`].
    #[allow(missing_docs)]
    ScaledBiasSlope { c: &'a Tensor, bias: &'a Tensor, y: &'a Tensor, alpha: f64 },
    /// [`Gelu`].
    Gelu(Gelu),
    /// `plus` is added, and the [`moments`] of each image of the sum are noted.
    #[allow(missing_docs)]
    Sum { plus: Option<&'a Tensor>, noted: Option<&'a Tally> },
    /// The [`grad_sums`] of each image are noted, the outputs being the gradient of a batch normalisation of `x`.
    #[allow(missing_docs)]
    GradSums { x: &'a Tensor, coefficients: &'a Coefficients, noted: &'a Tally },
}

/// Inlined by force: it has to be compiled for the vector unit that [`vectorised`] chose.
#[inline(always)]
fn scaled_bias_slope<T: Real>(image: &mut [T], y: &[T], c: T, bias: &[T], alpha: T) {
    for (pixel, y) in image.chunks_exact_mut(bias.len()).zip(y.chunks_exact(bias.len())) {
        for ((v, &y), &b) in pixel.iter_mut().zip(y).zip(bias) {
            let w = *v + c * b;
            *v = if y > T::ZERO { w } else { alpha * w };
        }
    }
}

impl Then<'_> {
    /// Runs a convolution of `len` outputs, given what finishes them.
    fn run<T: Real>(
        &self,
        name: &str,
        dims: [usize; 4],
        convolve: impl FnOnce(&(dyn Fn(usize, &mut [T]) + Sync)) -> Vec<T>,
    ) -> Result<Vec<T>> {
        let [images, _, _, channels] = dims;
        let len = dims.iter().product::<usize>();
        let image = (len / images.max(1)).max(1);
        let note_moments = |noted: Option<&Tally>, at: usize, out: &[T]| {
            if let Some(noted) = noted {
                out.chunks_exact(image).zip(at / image..).for_each(|(out, n)| noted.note(n, moments(out, channels)));
            }
        };
        match *self {
            Self::Nothing => Ok(convolve(&|_, _| {})),
            Self::Leaky(alpha) => {
                let alpha = T::from_f64(alpha);
                Ok(convolve(&|_, out| {
                    vectorised(|| out.iter_mut().for_each(|v| *v = if *v > T::ZERO { *v } else { alpha * *v }));
                }))
            }
            Self::Gelu(gelu) => Ok(convolve(&|_, out| gelu.apply(out))),
            Self::Slope { y, alpha } => elements(name, y, len, |y: &[T]| {
                let alpha = T::from_f64(alpha);
                Ok(convolve(&|at, out| {
                    vectorised(|| {
                        for (v, &y) in out.iter_mut().zip(&y[at..]) {
                            *v = if y > T::ZERO { *v } else { alpha * *v };
                        }
                    });
                }))
            }),
            Self::ScaledBiasSlope { c, bias, y, alpha } => elements(name, y, len, |y: &[T]| {
                elements(name, c, images, |c: &[T]| {
                    elements(name, bias, channels, |bias: &[T]| {
                        let alpha = T::from_f64(alpha);
                        Ok(convolve(&|at, out| {
                            let images = out.chunks_exact_mut(image).zip(y[at..].chunks_exact(image));
                            for ((out, y), &c) in images.zip(&c[at / image..]) {
                                vectorised(|| scaled_bias_slope(out, y, c, bias, alpha));
                            }
                        }))
                    })
                })
            }),
            Self::Sum { plus: None, noted } => Ok(convolve(&|at, out| note_moments(noted, at, out))),
            Self::Sum { plus: Some(plus), noted } => elements(name, plus, len, |plus: &[T]| {
                Ok(convolve(&|at, out| {
                    vectorised(|| out.iter_mut().zip(&plus[at..]).for_each(|(v, &plus)| *v += plus));
                    note_moments(noted, at, out);
                }))
            }),
            Self::GradSums { x, coefficients, noted } => elements(name, x, len, |x: &[T]| {
                coefficients.read(&dims, |of_image| {
                    Ok(convolve(&|at, out| {
                        let images = out.chunks_exact(image).zip(x[at..].chunks_exact(image));
                        for ((dy, x), n) in images.zip(at / image..) {
                            noted.note(n, grad_sums(dy, x, of_image(n)));
                        }
                    }))
                })
            }),
        }
    }
}

struct Forward<'a> {
    spec: ConvSpec,
    weight: [usize; 4],
    then: Then<'a>,
    next: Next,
}

impl Op<2> for Forward<'_> {
    const NAME: &'static str = "conv2d";
    fn cpu<T: Real>(&self, [x, w]: [View<T>; 2]) -> Made<T> {
        self.run(x, w, None)
    }
    fn device(&self, tape: &Tape, [x, w]: [Array; 2]) -> Result<Tensor> {
        device::forward(tape, &self.dims(x.dims)?, [x, w], None, (&self.then, self.next))
    }
}

impl Op<3> for Forward<'_> {
    const NAME: &'static str = "conv2d";
    fn cpu<T: Real>(&self, [x, w, b]: [View<T>; 3]) -> Made<T> {
        self.run(x, w, Some(b))
    }
    fn device(&self, tape: &Tape, [x, w, b]: [Array; 3]) -> Result<Tensor> {
        let d = self.dims(x.dims)?;
        check_bias("conv2d", b.dims, d.o)?;
        device::forward(tape, &d, [x, w], Some(b), (&self.then, self.next))
    }
}

impl Forward<'_> {
    fn dims(&self, x: &[usize]) -> Result<Dims> {
        let &[n, h, wd, _] = x else { bail!("conv2d: expected images [N, H, W, C], got {x:?}") };
        let d = Dims::new("conv2d", n, [h, wd], self.weight, self.spec)?;
        expect("conv2d", "input", x, d.input_dims())?;
        Ok(d)
    }

    fn run<T: Real>(&self, x: View<T>, w: View<T>, bias: Option<View<T>>) -> Made<T> {
        let d = self.dims(x.dims)?;
        bias.map(|b| check_bias("conv2d", b.dims, d.o)).transpose()?;
        let bias = bias.map(|b| b.data);
        let dims = d.output_dims();
        let convolve = |finish: &(dyn Fn(usize, &mut [T]) + Sync)| {
            if const { winograd::takes::<T>() } && winograd::applies(&d) {
                winograd::Plan::forward(&d).run(x.data, w.data, bias, d.n, finish)
            } else {
                cpu::Plan::forward(&d).run(x.data, w.data, bias, d.n, finish)
            }
        };
        Ok((self.then.run("conv2d", dims, convolve)?, Shape::from(dims.to_vec())))
    }
}

fn expect(name: &str, what: &str, got: &[usize], want: [usize; 4]) -> Result<()> {
    if got != want {
        bail!("{name}: {what} has shape {got:?}, expected {want:?}")
    }
    Ok(())
}

fn check_bias(name: &str, bias: &[usize], channels: usize) -> Result<()> {
    if bias.iter().product::<usize>() != channels {
        bail!("{name}: bias has shape {bias:?}, expected [{channels}]")
    }
    Ok(())
}

struct InputGrad<'a> {
    spec: ConvSpec,
    weight: [usize; 4],
    input: [usize; 2],
    then: Then<'a>,
    next: Next,
}

impl Op<2> for InputGrad<'_> {
    const NAME: &'static str = "conv2d_input_grad";
    fn cpu<T: Real>(&self, [dy, w]: [View<T>; 2]) -> Made<T> {
        self.run(dy, w, None)
    }
    fn device(&self, tape: &Tape, [dy, w]: [Array; 2]) -> Result<Tensor> {
        device::input_grad(tape, &self.dims(dy.dims)?, [dy, w], None, (&self.then, self.next))
    }
}

impl Op<3> for InputGrad<'_> {
    const NAME: &'static str = "conv_transpose2d";
    fn cpu<T: Real>(&self, [dy, w, b]: [View<T>; 3]) -> Made<T> {
        self.run(dy, w, Some(b))
    }
    fn device(&self, tape: &Tape, [dy, w, b]: [Array; 3]) -> Result<Tensor> {
        let d = self.dims(dy.dims)?;
        check_bias("conv_transpose2d", b.dims, d.i)?;
        device::input_grad(tape, &d, [dy, w], Some(b), (&self.then, self.next))
    }
}

impl InputGrad<'_> {
    fn dims(&self, dy: &[usize]) -> Result<Dims> {
        let &[n, ..] = dy else { bail!("conv2d_input_grad: expected images [N, H, W, C], got {dy:?}") };
        let d = Dims::new("conv2d_input_grad", n, self.input, self.weight, self.spec)?;
        expect("conv2d_input_grad", "output gradient", dy, d.output_dims())?;
        Ok(d)
    }

    fn run<T: Real>(&self, dy: View<T>, w: View<T>, bias: Option<View<T>>) -> Made<T> {
        let d = self.dims(dy.dims)?;
        bias.map(|b| check_bias("conv_transpose2d", b.dims, d.i)).transpose()?;
        let bias = bias.map(|b| b.data);
        let dims = d.input_dims();
        let convolve = |finish: &(dyn Fn(usize, &mut [T]) + Sync)| {
            if const { winograd::takes::<T>() } && winograd::applies(&d) {
                winograd::Plan::input_grad(&d).run(dy.data, w.data, bias, d.n, finish)
            } else {
                cpu::Plan::input_grad(&d).run(dy.data, w.data, bias, d.n, finish)
            }
        };
        Ok((self.then.run("conv2d_input_grad", dims, convolve)?, Shape::from(dims.to_vec())))
    }
}

struct WeightGrad {
    spec: ConvSpec,
    kernel: [usize; 2],
}

impl Op<2> for WeightGrad {
    const NAME: &'static str = "conv2d_weight_grad";
    fn cpu<T: Real>(&self, [x, dy]: [View<T>; 2]) -> Made<T> {
        let d = self.dims(x.dims, dy.dims)?;
        let sums = if const { winograd::takes::<T>() } && winograd::applies(&d) {
            winograd::weight_grad(&d, x.data, dy.data)
        } else {
            weight_grad::weight_grad(&d, x.data, dy.data)
        };
        Ok((sums, Shape::from(d.weight_dims().to_vec())))
    }
    fn device(&self, tape: &Tape, [x, dy]: [Array; 2]) -> Result<Tensor> {
        let d = self.dims(x.dims, dy.dims)?;
        let out = tape.alloc(&d.weight_dims())?;
        device::weight_grad(tape, &d, [x, dy], tape.array(&out)?, false)?;
        Ok(out)
    }
}

impl WeightGrad {
    fn dims(&self, x: &[usize], dy: &[usize]) -> Result<Dims> {
        let (&[n, h, wd, i], &[_, _, _, o]) = (x, dy) else {
            bail!("{}: expected images [N, H, W, C], got {x:?} and {dy:?}", Self::NAME)
        };
        let of_group = i / self.spec.groups.max(1);
        let d = Dims::new(Self::NAME, n, [h, wd], [o, of_group, self.kernel[0], self.kernel[1]], self.spec)?;
        expect(Self::NAME, "input", x, d.input_dims())?;
        expect(Self::NAME, "output gradient", dy, d.output_dims())?;
        Ok(d)
    }
}

/// Convolution: `x` `[N, H, W, I]`, `w` `[O, I/G, Kh, Kw]`, `bias` `[O]` → `[N, H', W', O]`.
///
/// # Errors
/// On shapes that do not fit, non-contiguous tensors, or a dtype other than F32 and F64.
pub fn conv2d(x: &Tensor, w: &Kernel, bias: Option<&Tensor>, spec: ConvSpec) -> Result<Tensor> {
    conv2d_then(x, w, bias, spec, (Then::Nothing, Next::Any))
}

/// [`conv2d`], then something done to its output, which is made for what takes it next.
///
/// # Errors
/// As for [`conv2d`], and when what `then` reads has another size than the output.
pub fn conv2d_then(
    x: &Tensor,
    w: &Kernel,
    bias: Option<&Tensor>,
    spec: ConvSpec,
    (then, next): (Then<'_>, Next),
) -> Result<Tensor> {
    let op = Forward { spec, weight: w.shape(), then, next };
    match bias {
        Some(b) => apply(&op, [x, w.data(), b]),
        None => apply(&op, [x, w.data()]),
    }
}

/// Gradient of [`conv2d`] in its input of `input` rows × columns: `dy` `[N, H', W', O]`, `w` → `[N, H, W, I]`.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv2d_input_grad(dy: &Tensor, w: &Kernel, spec: ConvSpec, input: [usize; 2]) -> Result<Tensor> {
    conv2d_input_grad_then(dy, w, spec, input, (Then::Nothing, Next::Any))
}

/// [`conv2d_input_grad`], then something done to its output, which is made for what takes it next.
///
/// # Errors
/// As for [`conv2d_then`].
pub fn conv2d_input_grad_then(
    dy: &Tensor,
    w: &Kernel,
    spec: ConvSpec,
    input: [usize; 2],
    (then, next): (Then<'_>, Next),
) -> Result<Tensor> {
    apply(&InputGrad { spec, weight: w.shape(), input, then, next }, [dy, w.data()])
}

/// Gradient of [`conv2d`] in its weight of `kernel` rows × columns: `x` `[N, H, W, I]`, `dy` `[N, H', W', O]` →
/// `[O, I/G, Kh, Kw]`.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv2d_weight_grad(x: &Tensor, dy: &Tensor, spec: ConvSpec, kernel: [usize; 2]) -> Result<Kernel> {
    let data = apply(&WeightGrad { spec, kernel }, [x, dy])?;
    let shape = data.dims4()?;
    Kernel::of(&data, shape.into())
}

/// Adds [`conv2d_weight_grad`] to `into`, whose elements are in the order of a [`Kernel`]'s.
///
/// # Errors
/// As for [`conv2d_weight_grad`], and when `into` has another size.
pub fn add_conv2d_weight_grad(
    x: &Tensor,
    dy: &Tensor,
    spec: ConvSpec,
    kernel: [usize; 2],
    into: &Tensor,
) -> Result<()> {
    let op = WeightGrad { spec, kernel };
    let cpu = || add_assign(into, &apply(&op, [x, dy])?);
    either([x, dy, into], cpu, |tape, [x, dy, into]| {
        let d = op.dims(x.dims, dy.dims)?;
        if into.len() != d.weight_dims().iter().product::<usize>() {
            bail!("{}: {:?} into {:?}", WeightGrad::NAME, d.weight_dims(), into.dims)
        }
        device::weight_grad(tape, &d, [x, dy], into, true)
    })
}

/// Rows × columns that a transposed convolution makes of `input` rows × columns.
pub fn transposed_size(input: [usize; 2], kernel: [usize; 2], spec: ConvSpec) -> [usize; 2] {
    std::array::from_fn(|a| (input[a] - 1) * spec.stride + kernel[a] - 2 * spec.padding[a])
}

/// Transposed convolution: `x` `[N, H, W, I]`, `w` `[I, O/G, Kh, Kw]`, `bias` `[O]` → `[N, H', W', O]`, sizes as
/// PyTorch's `ConvTranspose2d` without output padding.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv_transpose2d(x: &Tensor, w: &Kernel, bias: Option<&Tensor>, spec: ConvSpec) -> Result<Tensor> {
    conv_transpose2d_then(x, w, bias, spec, Then::Nothing)
}

/// [`conv_transpose2d`], then something done to its output.
///
/// # Errors
/// As for [`conv2d_then`].
pub fn conv_transpose2d_then(
    x: &Tensor,
    w: &Kernel,
    bias: Option<&Tensor>,
    spec: ConvSpec,
    then: Then<'_>,
) -> Result<Tensor> {
    let (_, h, wd, _) = x.dims4()?;
    let [_, _, kh, kw] = w.shape();
    let input = transposed_size([h, wd], [kh, kw], spec);
    let op = InputGrad { spec, weight: w.shape(), input, then, next: Next::Any };
    match bias {
        Some(b) => apply(&op, [x, w.data(), b]),
        None => apply(&op, [x, w.data()]),
    }
}

/// Gradient of [`conv_transpose2d`] in its input.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv_transpose2d_input_grad(dy: &Tensor, w: &Kernel, spec: ConvSpec) -> Result<Tensor> {
    conv_transpose2d_input_grad_then(dy, w, spec, Then::Nothing)
}

/// [`conv_transpose2d_input_grad`], then something done to its output.
///
/// # Errors
/// As for [`conv2d_then`].
pub fn conv_transpose2d_input_grad_then(dy: &Tensor, w: &Kernel, spec: ConvSpec, then: Then<'_>) -> Result<Tensor> {
    conv2d_then(dy, w, None, spec, (then, Next::Any))
}

/// Gradient of [`conv_transpose2d`] in its weight: `x` `[N, H, W, I]`, `dy` `[N, H', W', O]` → `[I, O, Kh, Kw]`.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv_transpose2d_weight_grad(x: &Tensor, dy: &Tensor, spec: ConvSpec, kernel: [usize; 2]) -> Result<Kernel> {
    conv2d_weight_grad(dy, x, spec, kernel)
}

/// Linear layer: `x` `[N, I]`, `w` `[O, I, 1, 1]`, `bias` `[O]` → `[N, O]`.
///
/// # Errors
/// As for [`conv2d`].
pub fn linear(x: &Tensor, w: &Kernel, bias: Option<&Tensor>) -> Result<Tensor> {
    conv2d(&pixel(x)?, w, bias, ConvSpec::new(1, 0))?.flatten_from(1)
}

/// Gradient of [`linear`] in its weight: `[O, I, 1, 1]`.
///
/// # Errors
/// As for [`conv2d`].
pub fn linear_weight_grad(x: &Tensor, dy: &Tensor) -> Result<Kernel> {
    conv2d_weight_grad(&pixel(x)?, &pixel(dy)?, ConvSpec::new(1, 0), [1, 1])
}

/// Vectors `[N, C]` as images of one pixel.
///
/// # Errors
/// On another rank.
pub fn pixel(x: &Tensor) -> Result<Tensor> {
    let (n, c) = x.dims2()?;
    x.reshape((n, 1, 1, c))
}

/// Multiplications and additions of one pass over `images` images: the same for the forward pass and both gradients.
///
/// # Errors
/// On shapes that do not fit.
pub fn conv2d_flops(images: &[usize], weight: [usize; 4], spec: ConvSpec) -> Result<u64> {
    let &[n, h, w, _] = images else { bail!("conv2d_flops: expected images [N, H, W, C], got {images:?}") };
    Ok(Dims::new("conv2d_flops", n, [h, w], weight, spec)?.flops())
}
