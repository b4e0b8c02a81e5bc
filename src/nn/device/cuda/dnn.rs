//! One side of a convolution by cuDNN: its descriptors, the algorithm, the call.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use candle_core::cuda_backend::cudarc::cudnn::{result as dnn, sys};
use candle_core::{Result, bail};

use super::{DETERMINISTIC, Element, TF32};
use crate::nn::conv::Dims;
use crate::nn::device::Pass;

/// Most bytes that a convolution may use beside its operands.
const WORKSPACE: usize = 1 << 30;
/// Algorithms that cuDNN is asked about.
const ALGORITHMS: usize = 10;

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(sys::cudnnConvolutionFwdAlgo_t),
    InputGrad(sys::cudnnConvolutionBwdDataAlgo_t),
    WeightGrad(sys::cudnnConvolutionBwdFilterAlgo_t),
}

/// How cuDNN does a convolution.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    algorithm: Algorithm,
    math: sys::cudnnMathType_t,
    /// Bytes it uses beside the operands.
    pub(super) workspace: usize,
}

/// Descriptors of a convolution.
pub(super) struct Descriptors {
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    conv: sys::cudnnConvolutionDescriptor_t,
}

impl Descriptors {
    pub(super) fn new<T: Element>(d: &Dims, channels_last: bool) -> Result<Self> {
        let format = if channels_last {
            sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC
        } else {
            sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW
        };
        // cuDNN takes extents in the order N, C, H, W whatever the format.
        let [x, y] = [[d.n, d.i, d.input[0], d.input[1]], [d.n, d.o, d.output[0], d.output[1]]];
        let w = [d.o, d.i, d.kernel[0], d.kernel[1]];
        let new = Self {
            x: dnn::create_tensor_descriptor()?,
            w: dnn::create_filter_descriptor()?,
            y: dnn::create_tensor_descriptor()?,
            conv: dnn::create_convolution_descriptor()?,
        };
        let ([rows, columns], [stride, _]) = (ints(d.spec.padding)?, ints([d.spec.stride, 0])?);
        // SAFETY: the descriptors were just made. Sums are taken in the element type.
        unsafe {
            dnn::set_tensor4d_descriptor(new.x, format, T::DNN, ints(x)?)?;
            dnn::set_filter4d_descriptor(new.w, T::DNN, format, ints(w)?)?;
            dnn::set_tensor4d_descriptor(new.y, format, T::DNN, ints(y)?)?;
            let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
            dnn::set_convolution2d_descriptor(new.conv, rows, columns, stride, stride, 1, 1, mode, T::DNN)?;
        }
        Ok(new)
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: each was made by `new` and is not used again. There is nothing to do about a failure.
        unsafe {
            let _ = dnn::destroy_tensor_descriptor(self.x);
            let _ = dnn::destroy_filter_descriptor(self.w);
            let _ = dnn::destroy_tensor_descriptor(self.y);
            let _ = dnn::destroy_convolution_descriptor(self.conv);
        }
    }
}

/// Extents as the libraries count them.
pub(super) fn ints<const N: usize>(extents: [usize; N]) -> Result<[c_int; N]> {
    let mut out = [0; N];
    for (o, e) in out.iter_mut().zip(extents) {
        let Ok(e) = c_int::try_from(e) else { bail!("an extent of {e} is more than cuDNN and cuBLAS take") };
        *o = e;
    }
    Ok(out)
}

/// The first of cuDNN's algorithms, the fastest first, that may be used; none where it knows none.
macro_rules! best {
    ($query:path, $variant:path, $handle:expr, $($descriptor:expr),+) => {{
        let mut count = 0;
        // SAFETY: plain numbers and enums that have a variant 0.
        let mut found = [unsafe { std::mem::zeroed() }; ALGORITHMS];
        // SAFETY: handle and descriptors are alive, and there is room for what is asked for.
        let answer =
            unsafe { $query($handle, $($descriptor),+, ALGORITHMS as c_int, &mut count, found.as_mut_ptr()) };
        let count = if answer.is_ok() { usize::try_from(count).unwrap_or(0) } else { 0 };
        let deterministic = DETERMINISTIC.load(Ordering::Relaxed);
        let usable = found.iter().take(count).find(|p| {
            p.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                && p.memory <= WORKSPACE
                && (!deterministic || p.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC)
        });
        usable.map(|p| ($variant(p.algo), p.mathType))
    }};
}

impl Plan {
    /// What cuDNN proposes for a pass, if it has anything for it.
    pub(super) fn new(handle: sys::cudnnHandle_t, pass: Pass, of: &Descriptors) -> Result<Option<Self>> {
        let tf32 = TF32.load(Ordering::Relaxed);
        let allowed =
            if tf32 { sys::cudnnMathType_t::CUDNN_DEFAULT_MATH } else { sys::cudnnMathType_t::CUDNN_FMA_MATH };
        // SAFETY: the descriptor is alive.
        unsafe { dnn::set_convolution_math_type(of.conv, allowed)? };
        let best = match pass {
            Pass::Forward => {
                best!(dnn::get_convolution_forward_algorithm, Algorithm::Forward, handle, of.x, of.w, of.conv, of.y)
            }
            Pass::InputGrad => best!(
                dnn::get_convolution_backward_data_algorithm,
                Algorithm::InputGrad,
                handle,
                of.w,
                of.y,
                of.conv,
                of.x
            ),
            Pass::WeightGrad => best!(
                dnn::get_convolution_backward_filter_algorithm,
                Algorithm::WeightGrad,
                handle,
                of.x,
                of.y,
                of.conv,
                of.w
            ),
        };
        let Some((algorithm, math)) = best else { return Ok(None) };
        // What an algorithm was found with counts; but never more than was allowed.
        let math = if tf32 { math } else { allowed };
        // SAFETY: as above.
        let workspace = unsafe {
            dnn::set_convolution_math_type(of.conv, math)?;
            match algorithm {
                Algorithm::Forward(a) => {
                    dnn::get_convolution_forward_workspace_size(handle, of.x, of.w, of.conv, of.y, a)?
                }
                Algorithm::InputGrad(a) => {
                    dnn::get_convolution_backward_data_workspace_size(handle, of.w, of.y, of.conv, of.x, a)?
                }
                Algorithm::WeightGrad(a) => {
                    dnn::get_convolution_backward_filter_workspace_size(handle, of.x, of.y, of.conv, of.w, a)?
                }
            }
        };
        Ok(Some(Self { algorithm, math, workspace }))
    }

    /// Computes the side of the plan's pass from the other two.
    ///
    /// # Safety
    /// `sides` are the addresses of x, w and y, which hold what the descriptors say, and `space` that of as many bytes as
    /// the plan's workspace.
    pub(super) unsafe fn run<T: Element>(
        &self,
        handle: sys::cudnnHandle_t,
        of: &Descriptors,
        sides: [u64; 3],
        space: u64,
    ) -> Result<()> {
        let (one, zero) = (T::ONE, T::ZERO);
        let [one, zero] = [&one, &zero].map(|v| (&raw const *v).cast::<c_void>());
        let [x, w, y] = sides.map(|at| at as *mut c_void);
        let (space, bytes) = (space as *mut c_void, self.workspace);
        // SAFETY: as the caller says; scalars are of the type of the sums.
        unsafe {
            dnn::set_convolution_math_type(of.conv, self.math)?;
            match self.algorithm {
                Algorithm::Forward(a) => {
                    dnn::convolution_forward(handle, one, of.x, x, of.w, w, of.conv, a, space, bytes, zero, of.y, y)?;
                }
                Algorithm::InputGrad(a) => {
                    dnn::convolution_backward_data(
                        handle, one, of.w, w, of.y, y, of.conv, a, space, bytes, zero, of.x, x,
                    )?;
                }
                Algorithm::WeightGrad(a) => {
                    dnn::convolution_backward_filter(
                        handle, one, of.x, x, of.y, y, of.conv, a, space, bytes, zero, of.w, w,
                    )?;
                }
            }
        }
        Ok(())
    }
}
