//! Two-dimensional convolution and its two gradients, the only costly operators of the harness.
//!
//! Legend: N images, H×W pixels, I input and O output channels, K kernel side. Images are `[N, H, W, C]` (channels
//! last, so that a pixel's channels are one contiguous run); weights are `[O, I, Kh, Kw]`, as in PyTorch's files.
//!
//! The transposed convolution is the input gradient of a convolution and needs no kernel of its own, and a linear layer
//! is a convolution of one pixel.

mod cpu;
mod device;
#[cfg(test)]
mod tests;

use candle_core::{Result, Shape, Storage, Tensor, bail};

use super::device::{Array, Machine, MadeOn};
use super::op::{Made, Op2, Op3, View, apply2, apply3};
use super::real::{Real, vectorised};

/// Geometry of a convolution of square kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConvSpec {
    /// Stride in both axes.
    pub stride: usize,
    /// Zero padding `[rows, columns]` on each side.
    pub padding: [usize; 2],
}

impl ConvSpec {
    /// The same padding in both axes.
    pub const fn new(stride: usize, padding: usize) -> Self {
        Self { stride, padding: [padding; 2] }
    }
}

/// Every extent of one convolution.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Images.
    pub n: usize,
    /// Input channels.
    pub i: usize,
    /// Output channels.
    pub o: usize,
    /// Input rows, columns.
    pub input: [usize; 2],
    /// Output rows, columns.
    pub output: [usize; 2],
    /// Kernel rows, columns.
    pub kernel: [usize; 2],
    /// Stride and padding.
    pub spec: ConvSpec,
}

impl Dims {
    fn new(name: &str, images: &[usize], input: [usize; 2], weight: &[usize], spec: ConvSpec) -> Result<Self> {
        let (&[n, _, _, _], &[o, i, kh, kw]) = (images, weight) else {
            bail!("{name}: expected images [N, H, W, C] and weight [O, I, Kh, Kw], got {images:?} and {weight:?}")
        };
        let kernel = [kh, kw];
        let mut output = [0; 2];
        for axis in 0..2 {
            let padded = input[axis] + 2 * spec.padding[axis];
            if padded < kernel[axis] {
                bail!(
                    "{name}: kernel {kernel:?} is larger than the padded input {input:?} (padding {:?})",
                    spec.padding
                )
            }
            output[axis] = (padded - kernel[axis]) / spec.stride + 1;
        }
        Ok(Self { n, i, o, input, output, kernel, spec })
    }

    fn expect(name: &str, what: &str, got: &[usize], want: [usize; 4]) -> Result<()> {
        if got != want {
            bail!("{name}: {what} has shape {got:?}, expected {want:?}")
        }
        Ok(())
    }

    fn input_dims(&self) -> [usize; 4] {
        [self.n, self.input[0], self.input[1], self.i]
    }

    fn output_dims(&self) -> [usize; 4] {
        [self.n, self.output[0], self.output[1], self.o]
    }

    fn weight_dims(&self) -> [usize; 4] {
        [self.o, self.i, self.kernel[0], self.kernel[1]]
    }
}

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
}

/// A tensor's elements, which live as long as the guard.
fn elements<T: Real, R>(name: &str, t: &Tensor, len: usize, read: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let (storage, layout) = t.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("{name}: expected a contiguous tensor on the CPU")
    };
    if end - start != len {
        bail!("{name}: {:?} has not the {len} elements of the output", t.dims())
    }
    read(&storage.as_slice::<T>()?[start..end])
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
        match *self {
            Self::Nothing => Ok(convolve(&|_, _| {})),
            Self::Leaky(alpha) => {
                let alpha = T::from_f64(alpha);
                Ok(convolve(&|_, out| {
                    vectorised(|| out.iter_mut().for_each(|v| *v = if *v > T::ZERO { *v } else { alpha * *v }));
                }))
            }
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
                        let (alpha, image) = (T::from_f64(alpha), (len / images).max(1));
                        Ok(convolve(&|at, out| {
                            let images = out.chunks_exact_mut(image).zip(y[at..].chunks_exact(image));
                            for ((out, y), &c) in images.zip(&c[at / image..]) {
                                vectorised(|| scaled_bias_slope(out, y, c, bias, alpha));
                            }
                        }))
                    })
                })
            }),
        }
    }
}

struct Forward<'a> {
    spec: ConvSpec,
    then: Then<'a>,
}

impl Op2 for Forward<'_> {
    const NAME: &'static str = "conv2d";
    fn cpu<T: Real>(&self, x: View<T>, w: View<T>) -> Made<T> {
        self.run(x, w, None)
    }
    fn device<M: Machine>(&self, m: &M, x: Array, w: Array) -> MadeOn<M> {
        device::forward(m, &self.dims(x.dims, w.dims)?, [x, w], None, &self.then)
    }
}

impl Op3 for Forward<'_> {
    const NAME: &'static str = "conv2d";
    fn cpu<T: Real>(&self, x: View<T>, w: View<T>, b: View<T>) -> Made<T> {
        self.run(x, w, Some(b))
    }
    fn device<M: Machine>(&self, m: &M, x: Array, w: Array, b: Array) -> MadeOn<M> {
        let d = self.dims(x.dims, w.dims)?;
        check_bias("conv2d", b.dims, d.o)?;
        device::forward(m, &d, [x, w], Some(b), &self.then)
    }
}

impl Forward<'_> {
    fn dims(&self, x: &[usize], w: &[usize]) -> Result<Dims> {
        let &[_, h, wd, _] = x else { bail!("conv2d: expected images [N, H, W, C], got {x:?}") };
        let d = Dims::new("conv2d", x, [h, wd], w, self.spec)?;
        Dims::expect("conv2d", "input", x, d.input_dims())?;
        Ok(d)
    }

    fn run<T: Real>(&self, x: View<T>, w: View<T>, bias: Option<View<T>>) -> Made<T> {
        let d = self.dims(x.dims, w.dims)?;
        bias.map(|b| check_bias("conv2d", b.dims, d.o)).transpose()?;
        let bias = bias.map(|b| b.data);
        let dims = d.output_dims();
        let convolve =
            |finish: &(dyn Fn(usize, &mut [T]) + Sync)| cpu::Plan::forward(&d).run(x.data, w.data, bias, d.n, finish);
        Ok((self.then.run("conv2d", dims, convolve)?, Shape::from(dims.to_vec())))
    }
}

fn check_bias(name: &str, bias: &[usize], channels: usize) -> Result<()> {
    if bias.iter().product::<usize>() != channels {
        bail!("{name}: bias has shape {bias:?}, expected [{channels}]")
    }
    Ok(())
}

struct InputGrad<'a> {
    spec: ConvSpec,
    input: [usize; 2],
    then: Then<'a>,
}

impl Op2 for InputGrad<'_> {
    const NAME: &'static str = "conv2d_input_grad";
    fn cpu<T: Real>(&self, dy: View<T>, w: View<T>) -> Made<T> {
        self.run(dy, w, None)
    }
    fn device<M: Machine>(&self, m: &M, dy: Array, w: Array) -> MadeOn<M> {
        device::input_grad(m, &self.dims(dy.dims, w.dims)?, [dy, w], None, &self.then)
    }
}

impl Op3 for InputGrad<'_> {
    const NAME: &'static str = "conv_transpose2d";
    fn cpu<T: Real>(&self, dy: View<T>, w: View<T>, b: View<T>) -> Made<T> {
        self.run(dy, w, Some(b))
    }
    fn device<M: Machine>(&self, m: &M, dy: Array, w: Array, b: Array) -> MadeOn<M> {
        let d = self.dims(dy.dims, w.dims)?;
        check_bias("conv_transpose2d", b.dims, d.i)?;
        device::input_grad(m, &d, [dy, w], Some(b), &self.then)
    }
}

impl InputGrad<'_> {
    fn dims(&self, dy: &[usize], w: &[usize]) -> Result<Dims> {
        let d = Dims::new("conv2d_input_grad", dy, self.input, w, self.spec)?;
        Dims::expect("conv2d_input_grad", "output gradient", dy, d.output_dims())?;
        Ok(d)
    }

    fn run<T: Real>(&self, dy: View<T>, w: View<T>, bias: Option<View<T>>) -> Made<T> {
        let d = self.dims(dy.dims, w.dims)?;
        bias.map(|b| check_bias("conv_transpose2d", b.dims, d.i)).transpose()?;
        let bias = bias.map(|b| b.data);
        let dims = d.input_dims();
        let convolve = |finish: &(dyn Fn(usize, &mut [T]) + Sync)| {
            cpu::Plan::input_grad(&d).run(dy.data, w.data, bias, d.n, finish)
        };
        Ok((self.then.run("conv2d_input_grad", dims, convolve)?, Shape::from(dims.to_vec())))
    }
}

struct WeightGrad {
    spec: ConvSpec,
    kernel: [usize; 2],
}

impl Op2 for WeightGrad {
    const NAME: &'static str = "conv2d_weight_grad";
    fn cpu<T: Real>(&self, x: View<T>, dy: View<T>) -> Made<T> {
        let d = self.dims(x.dims, dy.dims)?;
        Ok((cpu::weight_grad(&d, x.data, dy.data), Shape::from(d.weight_dims().to_vec())))
    }
    fn device<M: Machine>(&self, m: &M, x: Array, dy: Array) -> MadeOn<M> {
        device::weight_grad(m, &self.dims(x.dims, dy.dims)?, [x, dy])
    }
}

impl WeightGrad {
    fn dims(&self, x: &[usize], dy: &[usize]) -> Result<Dims> {
        let (&[_, h, wd, i], &[_, _, _, o]) = (x, dy) else {
            bail!("{}: expected images [N, H, W, C], got {x:?} and {dy:?}", Self::NAME)
        };
        let d = Dims::new(Self::NAME, x, [h, wd], &[o, i, self.kernel[0], self.kernel[1]], self.spec)?;
        Dims::expect(Self::NAME, "output gradient", dy, d.output_dims())?;
        Ok(d)
    }
}

/// Convolution: `x` `[N, H, W, I]`, `w` `[O, I, Kh, Kw]`, `bias` `[O]` → `[N, H', W', O]`.
///
/// # Errors
/// On shapes that do not fit, non-contiguous tensors, or a dtype other than F32 and F64.
pub fn conv2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, spec: ConvSpec) -> Result<Tensor> {
    conv2d_then(x, w, bias, spec, Then::Nothing)
}

/// [`conv2d`], then something done to its output.
///
/// # Errors
/// As for [`conv2d`], and when what `then` reads has another size than the output.
pub fn conv2d_then(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, spec: ConvSpec, then: Then<'_>) -> Result<Tensor> {
    let op = Forward { spec, then };
    match bias {
        Some(b) => apply3(&op, x, w, b),
        None => apply2(&op, x, w),
    }
}

/// Gradient of [`conv2d`] in its input of `input` rows × columns: `dy` `[N, H', W', O]`, `w` → `[N, H, W, I]`.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv2d_input_grad(dy: &Tensor, w: &Tensor, spec: ConvSpec, input: [usize; 2]) -> Result<Tensor> {
    conv2d_input_grad_then(dy, w, spec, input, Then::Nothing)
}

/// [`conv2d_input_grad`], then something done to its output.
///
/// # Errors
/// As for [`conv2d_then`].
pub fn conv2d_input_grad_then(
    dy: &Tensor,
    w: &Tensor,
    spec: ConvSpec,
    input: [usize; 2],
    then: Then<'_>,
) -> Result<Tensor> {
    apply2(&InputGrad { spec, input, then }, dy, w)
}

/// Gradient of [`conv2d`] in its weight of `kernel` rows × columns: `x` `[N, H, W, I]`, `dy` `[N, H', W', O]` →
/// `[O, I, Kh, Kw]`.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv2d_weight_grad(x: &Tensor, dy: &Tensor, spec: ConvSpec, kernel: [usize; 2]) -> Result<Tensor> {
    apply2(&WeightGrad { spec, kernel }, x, dy)
}

/// Rows × columns that a transposed convolution makes of `input` rows × columns.
pub fn transposed_size(input: [usize; 2], kernel: [usize; 2], spec: ConvSpec) -> [usize; 2] {
    std::array::from_fn(|a| (input[a] - 1) * spec.stride + kernel[a] - 2 * spec.padding[a])
}

/// Transposed convolution: `x` `[N, H, W, I]`, `w` `[I, O, Kh, Kw]`, `bias` `[O]` → `[N, H', W', O]`, sizes as
/// PyTorch's `ConvTranspose2d` without output padding.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv_transpose2d(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, spec: ConvSpec) -> Result<Tensor> {
    let (_, h, wd, _) = x.dims4()?;
    let (_, _, kh, kw) = w.dims4()?;
    let op = InputGrad { spec, input: transposed_size([h, wd], [kh, kw], spec), then: Then::Nothing };
    match bias {
        Some(b) => apply3(&op, x, w, b),
        None => apply2(&op, x, w),
    }
}

/// Gradient of [`conv_transpose2d`] in its input.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv_transpose2d_input_grad(dy: &Tensor, w: &Tensor, spec: ConvSpec) -> Result<Tensor> {
    conv2d(dy, w, None, spec)
}

/// Gradient of [`conv_transpose2d`] in its weight: `x` `[N, H, W, I]`, `dy` `[N, H', W', O]` → `[I, O, Kh, Kw]`.
///
/// # Errors
/// As for [`conv2d`].
pub fn conv_transpose2d_weight_grad(x: &Tensor, dy: &Tensor, spec: ConvSpec, kernel: [usize; 2]) -> Result<Tensor> {
    conv2d_weight_grad(dy, x, spec, kernel)
}

/// Linear layer: `x` `[N, I]`, `w` `[O, I]`, `bias` `[O]` → `[N, O]`.
///
/// # Errors
/// As for [`conv2d`].
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    conv2d(&pixel(x)?, &pixel_weight(w)?, bias, ConvSpec::new(1, 0))?.flatten_from(1)
}

/// Gradient of [`linear`] in its weight: `[O, I]`.
///
/// # Errors
/// As for [`conv2d`].
pub fn linear_weight_grad(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    conv2d_weight_grad(&pixel(x)?, &pixel(dy)?, ConvSpec::new(1, 0), [1, 1])?.flatten_from(1)
}

fn pixel(x: &Tensor) -> Result<Tensor> {
    let (n, c) = x.dims2()?;
    x.reshape((n, 1, 1, c))
}

fn pixel_weight(w: &Tensor) -> Result<Tensor> {
    let (o, i) = w.dims2()?;
    w.reshape((o, i, 1, 1))
}

/// Multiplications and additions of one pass over `images` images: the same for the forward pass and both gradients.
///
/// # Errors
/// On shapes that do not fit.
pub fn conv2d_flops(images: &[usize], weight: &[usize], spec: ConvSpec) -> Result<u64> {
    let &[_, h, w, _] = images else { bail!("conv2d_flops: expected images [N, H, W, C], got {images:?}") };
    let d = Dims::new("conv2d_flops", images, [h, w], weight, spec)?;
    let product: usize = [d.n, d.output[0], d.output[1], d.o, d.i, d.kernel[0], d.kernel[1]].iter().product();
    Ok(2 * product as u64)
}
