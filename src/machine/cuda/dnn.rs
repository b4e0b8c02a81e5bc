//! One side of a convolution by cuDNN: its descriptors, the algorithm that measured fastest, the call.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use candle_core::cuda_backend::cudarc::cudnn::{result as dnn, sys};
use candle_core::{DType, Result, bail};

use super::DETERMINISTIC;
use crate::machine::convolution::{Dims, Pass};
use crate::machine::precision::Precision;

/// Most bytes that a convolution may use beside its operands.
pub(super) const WORKSPACE: usize = 1 << 30;
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

/// An element type, and what is summed in.
fn types(element: DType) -> [sys::cudnnDataType_t; 2] {
    use sys::cudnnDataType_t::{CUDNN_DATA_BFLOAT16, CUDNN_DATA_DOUBLE, CUDNN_DATA_FLOAT};
    match element {
        DType::F64 => [CUDNN_DATA_DOUBLE; 2],
        DType::BF16 => [CUDNN_DATA_BFLOAT16, CUDNN_DATA_FLOAT],
        _ => [CUDNN_DATA_FLOAT; 2],
    }
}

impl Descriptors {
    pub(super) fn new(d: &Dims, element: DType, channels_last: bool) -> Result<Self> {
        let format = if channels_last {
            sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC
        } else {
            sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW
        };
        // cuDNN takes extents in the order N, C, H, W whatever the format.
        let [x, y] = [[d.n, d.i, d.input[0], d.input[1]], [d.n, d.o, d.output[0], d.output[1]]];
        let w = d.weight_dims();
        let new = Self {
            x: dnn::create_tensor_descriptor()?,
            w: dnn::create_filter_descriptor()?,
            y: dnn::create_tensor_descriptor()?,
            conv: dnn::create_convolution_descriptor()?,
        };
        let ([rows, columns], [stride, groups]) = (ints(d.spec.padding)?, ints([d.spec.stride, d.spec.groups])?);
        let [data, sums] = types(element);
        // SAFETY: the descriptors were just made.
        unsafe {
            dnn::set_tensor4d_descriptor(new.x, format, data, ints(x)?)?;
            dnn::set_filter4d_descriptor(new.w, data, format, ints(w)?)?;
            dnn::set_tensor4d_descriptor(new.y, format, data, ints(y)?)?;
            let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
            dnn::set_convolution2d_descriptor(new.conv, rows, columns, stride, stride, 1, 1, mode, sums)?;
            dnn::set_convolution_group_count(new.conv, groups)?;
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

/// Algorithms that go through a transform (FFT, Winograd), which sums less exactly than a product does.
const fn transforms(pass: Pass) -> &'static [u32] {
    match pass {
        Pass::Forward => &[4, 5, 6, 7],
        Pass::InputGrad => &[2, 3, 4, 5],
        Pass::WeightGrad => &[2, 4, 5, 6],
    }
}

/// The fastest of the algorithms that cuDNN measures and that may be used; none where it has none.
macro_rules! fastest {
    ($find:path, $variant:path, $space:expr, $forbidden:expr, $($argument:expr),+) => {{
        let mut count = 0;
        // SAFETY: plain numbers and enums that have a variant 0.
        let mut found = [unsafe { std::mem::zeroed() }; ALGORITHMS];
        let space = $space as *mut c_void;
        // SAFETY: handle, descriptors and operands are alive, and there is room for what is asked for.
        let answer =
            unsafe { $find($($argument),+, ALGORITHMS as c_int, &mut count, found.as_mut_ptr(), space, WORKSPACE) };
        let is_fine = answer == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS;
        let count = if is_fine { usize::try_from(count).unwrap_or(0) } else { 0 };
        let deterministic = DETERMINISTIC.load(Ordering::Relaxed);
        let usable = found.iter().take(count).find(|p| {
            p.status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                && p.memory <= WORKSPACE
                && !$forbidden.contains(&(p.algo as u32))
                && (!deterministic || p.determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC)
        });
        usable.map(|p| ($variant(p.algo), p.mathType, p.memory))
    }};
}

impl Plan {
    /// The fastest way that cuDNN has for a pass, measured on operands at the addresses of x, w and y, if it has one. f64 takes none
    /// that goes through a transform: its proofs are of rounding errors.
    pub(super) fn measured(
        handle: sys::cudnnHandle_t,
        (pass, element): (Pass, DType),
        of: &Descriptors,
        [x, w, y]: [u64; 3],
        space: u64,
    ) -> Result<Option<Self>> {
        let exact = element != DType::BF16 && Precision::current() == Precision::F32;
        let allowed =
            if exact { sys::cudnnMathType_t::CUDNN_FMA_MATH } else { sys::cudnnMathType_t::CUDNN_DEFAULT_MATH };
        // SAFETY: the descriptor is alive.
        unsafe { dnn::set_convolution_math_type(of.conv, allowed)? };
        let forbidden: &[u32] = if element == DType::F64 { transforms(pass) } else { &[] };
        let [read_x, read_w, read_y] = [x, w, y].map(|at| at as *const c_void);
        let [x, w, y] = [x, w, y].map(|at| at as *mut c_void);
        let best = match pass {
            Pass::Forward => fastest!(
                sys::cudnnFindConvolutionForwardAlgorithmEx,
                Algorithm::Forward,
                space,
                forbidden,
                handle,
                of.x,
                read_x,
                of.w,
                read_w,
                of.conv,
                of.y,
                y
            ),
            Pass::InputGrad => fastest!(
                sys::cudnnFindConvolutionBackwardDataAlgorithmEx,
                Algorithm::InputGrad,
                space,
                forbidden,
                handle,
                of.w,
                read_w,
                of.y,
                read_y,
                of.conv,
                of.x,
                x
            ),
            Pass::WeightGrad => fastest!(
                sys::cudnnFindConvolutionBackwardFilterAlgorithmEx,
                Algorithm::WeightGrad,
                space,
                forbidden,
                handle,
                of.x,
                read_x,
                of.y,
                read_y,
                of.conv,
                of.w,
                w
            ),
        };
        let Some((algorithm, math, workspace)) = best else { return Ok(None) };
        // What an algorithm was found with counts; but never more than was allowed.
        // SAFETY: as above.
        unsafe { dnn::set_convolution_math_type(of.conv, if exact { allowed } else { math })? };
        Ok(Some(Self { algorithm, workspace }))
    }

    /// Computes the side of the plan's pass from the other two, plus what is there times the second scalar.
    ///
    /// # Safety
    /// `sides` are the addresses of x, w and y, which hold what the descriptors say, `space` that of as many bytes as the plan's
    /// workspace, and the scalars are of the type that is summed in.
    pub(super) unsafe fn run(
        &self,
        handle: sys::cudnnHandle_t,
        of: &Descriptors,
        sides: [u64; 3],
        space: u64,
        [one, other]: [*const c_void; 2],
    ) -> Result<()> {
        let [x, w, y] = sides.map(|at| at as *mut c_void);
        let (space, bytes) = (space as *mut c_void, self.workspace);
        // SAFETY: as the caller says.
        unsafe {
            match self.algorithm {
                Algorithm::Forward(a) => {
                    dnn::convolution_forward(handle, one, of.x, x, of.w, w, of.conv, a, space, bytes, other, of.y, y)?;
                }
                Algorithm::InputGrad(a) => {
                    dnn::convolution_backward_data(
                        handle, one, of.w, w, of.y, y, of.conv, a, space, bytes, other, of.x, x,
                    )?;
                }
                Algorithm::WeightGrad(a) => {
                    dnn::convolution_backward_filter(
                        handle, one, of.x, x, of.y, y, of.conv, a, space, bytes, other, of.w, w,
                    )?;
                }
            }
        }
        Ok(())
    }
}
