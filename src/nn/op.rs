//! The bridge between the kernels and candle: an operator states its CPU loop once, over any [`Real`], and its launches once,
//! over any [`Machine`], and gets the contiguity and dtype checks, and candle's custom-op interface, from here.

#[cfg(feature = "cuda")]
use candle_core::DType;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Result, Shape, Tensor,
    bail,
};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, backend::BackendStorage};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use super::device::cuda::Gpu;
#[cfg(test)]
use super::device::emulated;
use super::device::{Array, Machine, MadeOn};
#[cfg(any(feature = "cuda", test))]
use super::device::{each, value};
use super::real::{Real, vectorised};

/// A contiguous operand: its elements in row-major order and its dimensions.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    /// Elements.
    pub data: &'a [T],
    /// Dimensions.
    pub dims: &'a [usize],
}

/// A fresh tensor of one operator.
pub type Made<T> = Result<(Vec<T>, Shape)>;

/// An operator of one tensor.
pub trait Op1: Send + Sync {
    /// Name used in errors.
    const NAME: &'static str;
    /// The CPU loop.
    ///
    /// # Errors
    /// On shapes the operator does not take.
    fn cpu<T: Real>(&self, a: View<T>) -> Made<T>;
    /// Its launches on a device.
    ///
    /// # Errors
    /// As for `cpu`, and when the device fails.
    fn device<M: Machine>(&self, m: &M, a: Array) -> MadeOn<M>;
}

/// An operator of two tensors of one dtype.
pub trait Op2: Send + Sync {
    /// Name used in errors.
    const NAME: &'static str;
    /// The CPU loop.
    ///
    /// # Errors
    /// On shapes the operator does not take.
    fn cpu<T: Real>(&self, a: View<T>, b: View<T>) -> Made<T>;
    /// Its launches on a device.
    ///
    /// # Errors
    /// As for `cpu`, and when the device fails.
    fn device<M: Machine>(&self, m: &M, a: Array, b: Array) -> MadeOn<M>;
}

/// An operator of three tensors of one dtype.
pub trait Op3: Send + Sync {
    /// Name used in errors.
    const NAME: &'static str;
    /// The CPU loop.
    ///
    /// # Errors
    /// On shapes the operator does not take.
    fn cpu<T: Real>(&self, a: View<T>, b: View<T>, c: View<T>) -> Made<T>;
    /// Its launches on a device.
    ///
    /// # Errors
    /// As for `cpu`, and when the device fails.
    fn device<M: Machine>(&self, m: &M, a: Array, b: Array, c: Array) -> MadeOn<M>;
}

/// An operator that changes its first tensor, reading `N` others of the same size.
pub trait InPlace<const N: usize>: Send + Sync {
    /// Name used in errors.
    const NAME: &'static str;
    /// The new value of one element.
    fn element<T: Real>(&self, dst: T, sources: [T; N]) -> T;
    /// The values p, q, r of the pointwise kernel of this name.
    fn values(&self) -> [f64; 3] {
        [0.0; 3]
    }
}

struct Adapter<'a, O>(&'a O);

fn view<'a, T: Real>(name: &str, storage: &'a CpuStorage, layout: &'a Layout) -> Result<View<'a, T>> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("{name}: operand of shape {:?} is not contiguous", layout.dims())
    };
    Ok(View { data: &storage.as_slice::<T>()?[start..end], dims: layout.dims() })
}

/// Runs `$body` with `$T` bound to the element type of `$storage`.
macro_rules! dispatch {
    ($name:expr, $storage:expr, $T:ident => $body:expr) => {
        match $storage {
            CpuStorage::F32(_) => {
                type $T = f32;
                $body
            }
            CpuStorage::F64(_) => {
                type $T = f64;
                $body
            }
            other => {
                use candle_core::backend::BackendStorage;
                bail!("{}: dtype {:?} is not supported, only F32 and F64", $name, other.dtype())
            }
        }
    };
}

/// Runs `$body` with `$m` bound to the GPU that computes in the element type of `$storage`; what it made is a storage.
#[cfg(feature = "cuda")]
macro_rules! on_gpu {
    ($name:expr, $storage:expr, $m:ident => $body:expr) => {
        match $storage.dtype() {
            DType::F32 => {
                let $m = Gpu::<f32>::new($storage.device())?;
                $body
            }
            DType::F64 => {
                let $m = Gpu::<f64>::new($storage.device())?;
                $body
            }
            other => bail!("{}: dtype {other:?} is not supported, only F32 and F64", $name),
        }
    };
}

fn stored<T: Real>((data, shape): (Vec<T>, Shape)) -> (CpuStorage, Shape) {
    (T::to_cpu_storage_owned(data), shape)
}

impl<O: Op1> CustomOp1 for Adapter<'_, O> {
    fn name(&self) -> &'static str {
        O::NAME
    }
    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(O::NAME, s, T => self.0.cpu::<T>(view(O::NAME, s, l)?).map(stored))
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s: &CudaStorage, l: &Layout) -> Result<(CudaStorage, Shape)> {
        on_gpu!(O::NAME, s, m => {
            let (made, shape) = self.0.device(&m, m.array(O::NAME, s, l)?)?;
            Ok((m.store(made), shape))
        })
    }
}

impl<O: Op2> CustomOp2 for Adapter<'_, O> {
    fn name(&self) -> &'static str {
        O::NAME
    }
    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        dispatch!(O::NAME, s1, T => self.0.cpu::<T>(view(O::NAME, s1, l1)?, view(O::NAME, s2, l2)?).map(stored))
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        on_gpu!(O::NAME, s1, m => {
            let (made, shape) = self.0.device(&m, m.array(O::NAME, s1, l1)?, m.array(O::NAME, s2, l2)?)?;
            Ok((m.store(made), shape))
        })
    }
}

impl<O: Op3> CustomOp3 for Adapter<'_, O> {
    fn name(&self) -> &'static str {
        O::NAME
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        dispatch!(O::NAME, s1, T => self
            .0
            .cpu::<T>(view(O::NAME, s1, l1)?, view(O::NAME, s2, l2)?, view(O::NAME, s3, l3)?)
            .map(stored))
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        on_gpu!(O::NAME, s1, m => {
            let [a, b] = [m.array(O::NAME, s1, l1)?, m.array(O::NAME, s2, l2)?];
            let (made, shape) = self.0.device(&m, a, b, m.array(O::NAME, s3, l3)?)?;
            Ok((m.store(made), shape))
        })
    }
}

/// Elements a parallel task takes at a time: small enough to balance, large enough not to notice the scheduling.
pub const GRAIN: usize = 1 << 15;

fn in_place<T: Real, const N: usize, O: InPlace<N>>(
    op: &O,
    dst: &mut CpuStorage,
    layout: &Layout,
    sources: [(&CpuStorage, &Layout); N],
) -> Result<()> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("{}: destination of shape {:?} is not contiguous", O::NAME, layout.dims())
    };
    let mut views = [[].as_slice(); N];
    for (slot, (storage, l)) in views.iter_mut().zip(sources) {
        *slot = view::<T>(O::NAME, storage, l)?.data;
        if slot.len() != end - start {
            bail!("{}: destination has {} elements, source {}", O::NAME, end - start, slot.len())
        }
    }
    T::slice_mut(dst)?[start..end].par_chunks_mut(GRAIN).enumerate().for_each(|(i, chunk)| {
        let from = i * GRAIN;
        let parts = views.map(|v| &v[from..from + chunk.len()]);
        vectorised(|| {
            for (j, x) in chunk.iter_mut().enumerate() {
                *x = op.element(*x, parts.map(|p| p[j]));
            }
        });
    });
    Ok(())
}

/// [`InPlace`] on a machine.
#[cfg(any(feature = "cuda", test))]
pub(super) fn in_place_on<M: Machine, const N: usize, O: InPlace<N>>(
    op: &O,
    m: &M,
    dst: Array,
    sources: [Array; N],
) -> Result<()> {
    if let Some(other) = sources.iter().find(|s| s.len() != dst.len()) {
        bail!("{}: destination has {} elements, source {}", O::NAME, dst.len(), other.len())
    }
    let at = |k: usize| sources.get(k).map_or(0, |s| s.at);
    let [p, q, r] = op.values().map(value);
    each(m, O::NAME, dst.len(), dst.at, [dst.at, at(0), at(1), p, q, r])
}

impl<O: InPlace<0>> InplaceOp1 for Adapter<'_, O> {
    fn name(&self) -> &'static str {
        O::NAME
    }
    fn cpu_fwd(&self, s: &mut CpuStorage, l: &Layout) -> Result<()> {
        dispatch!(O::NAME, s, T => in_place::<T, 0, O>(self.0, s, l, []))
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s: &mut CudaStorage, l: &Layout) -> Result<()> {
        on_gpu!(O::NAME, s, m => in_place_on(self.0, &m, m.array(O::NAME, s, l)?, []))
    }
}

impl<O: InPlace<1>> InplaceOp2 for Adapter<'_, O> {
    fn name(&self) -> &'static str {
        O::NAME
    }
    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        dispatch!(O::NAME, s1, T => in_place::<T, 1, O>(self.0, s1, l1, [(s2, l2)]))
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s1: &mut CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<()> {
        on_gpu!(O::NAME, s1, m => {
            in_place_on(self.0, &m, m.array(O::NAME, s1, l1)?, [m.array(O::NAME, s2, l2)?])
        })
    }
}

impl<O: InPlace<2>> InplaceOp3 for Adapter<'_, O> {
    fn name(&self) -> &'static str {
        O::NAME
    }
    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<()> {
        dispatch!(O::NAME, s1, T => in_place::<T, 2, O>(self.0, s1, l1, [(s2, l2), (s3, l3)]))
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &mut CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<()> {
        on_gpu!(O::NAME, s1, m => {
            let sources = [m.array(O::NAME, s2, l2)?, m.array(O::NAME, s3, l3)?];
            in_place_on(self.0, &m, m.array(O::NAME, s1, l1)?, sources)
        })
    }
}

/// Runs an operator of one tensor.
///
/// # Errors
/// On a non-contiguous operand, a dtype other than F32 and F64, or a shape the operator does not take.
pub fn apply1<O: Op1>(op: &O, a: &Tensor) -> Result<Tensor> {
    let out = a.apply_op1_no_bwd(&Adapter(op))?;
    #[cfg(test)]
    emulated::check1(op, a, &out);
    Ok(out)
}

/// Runs an operator of two tensors.
///
/// # Errors
/// As for [`apply1`].
pub fn apply2<O: Op2>(op: &O, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let out = a.apply_op2_no_bwd(b, &Adapter(op))?;
    #[cfg(test)]
    emulated::check2(op, [a, b], &out);
    Ok(out)
}

/// Runs an operator of three tensors.
///
/// # Errors
/// As for [`apply1`].
pub fn apply3<O: Op3>(op: &O, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor> {
    let out = a.apply_op3_no_bwd(b, c, &Adapter(op))?;
    #[cfg(test)]
    emulated::check3(op, [a, b, c], &out);
    Ok(out)
}

/// Changes `dst` element by element.
///
/// # Errors
/// On non-contiguous tensors, other dtypes than F32 and F64, or sizes that differ.
pub fn update1<O: InPlace<0>>(op: &O, dst: &Tensor) -> Result<()> {
    #[cfg(test)]
    let check = emulated::watch(op, dst, []);
    dst.inplace_op1(&Adapter(op))?;
    #[cfg(test)]
    check();
    Ok(())
}

/// Changes `dst` element by element, reading `a`.
///
/// # Errors
/// As for [`update1`].
pub fn update2<O: InPlace<1>>(op: &O, dst: &Tensor, a: &Tensor) -> Result<()> {
    #[cfg(test)]
    let check = emulated::watch(op, dst, [a]);
    dst.inplace_op2(a, &Adapter(op))?;
    #[cfg(test)]
    check();
    Ok(())
}

/// Changes `dst` element by element, reading `a` and `b`.
///
/// # Errors
/// As for [`update1`].
pub fn update3<O: InPlace<2>>(op: &O, dst: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    #[cfg(test)]
    let check = emulated::watch(op, dst, [a, b]);
    dst.inplace_op3(a, b, &Adapter(op))?;
    #[cfg(test)]
    check();
    Ok(())
}

/// A new buffer of `len` elements, each written by `write(index of the chunk's first element, chunk)`, in parallel.
///
/// The chunks are not initialised: `write` must set every element before it reads it.
pub fn fill<T: Real>(len: usize, chunk: usize, write: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
    let mut out: Vec<T> = Vec::with_capacity(len);
    out.spare_capacity_mut()[..len].par_chunks_mut(chunk.max(1)).enumerate().for_each(|(i, c)| {
        // SAFETY: the same layout; any bits are a valid float, and `write` sets them all.
        let c = unsafe { std::slice::from_raw_parts_mut(c.as_mut_ptr().cast::<T>(), c.len()) };
        vectorised(|| write(i * chunk, c));
    });
    // SAFETY: every chunk was written.
    unsafe { out.set_len(len) };
    out
}

/// A new buffer, element by element from one operand.
pub fn map<T: Real>(a: &[T], f: impl Fn(T) -> T + Sync) -> Vec<T> {
    fill(a.len(), GRAIN, |at, out| {
        for (o, &x) in out.iter_mut().zip(&a[at..]) {
            *o = f(x);
        }
    })
}

/// A new buffer, element by element from two operands of the same length.
pub fn zip<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T + Sync) -> Vec<T> {
    fill(a.len(), GRAIN, |at, out| {
        let n = out.len();
        for ((o, &x), &y) in out.iter_mut().zip(&a[at..at + n]).zip(&b[at..at + n]) {
            *o = f(x, y);
        }
    })
}

/// Refuses operands whose dimensions differ.
///
/// # Errors
/// When they do.
pub fn same_dims(name: &str, a: &[usize], b: &[usize]) -> Result<()> {
    if a != b {
        bail!("{name}: operands have shapes {a:?} and {b:?}")
    }
    Ok(())
}
