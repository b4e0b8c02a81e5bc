//! The bridge between the kernels and candle: an operator states its CPU loop once, over any [`Real`], and its calls of a device once,
//! and gets the contiguity and dtype checks from here.

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Shape, Storage, Tensor, bail};

use crate::machine::call::Array;
use crate::machine::cpu::parallel::{GRAIN, chunks};
use crate::machine::cpu::real::{Real, vectorised};
use crate::machine::current;
use crate::machine::tape::Tape;
use crate::words;

/// A contiguous operand on the CPU: its elements in row-major order and its dimensions.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    /// Elements.
    pub data: &'a [T],
    /// Dimensions.
    pub dims: &'a [usize],
}

/// A fresh tensor of one operator on the CPU.
pub type Made<T> = Result<(Vec<T>, Shape)>;

/// An operator of `N` tensors of one dtype.
pub trait Op<const N: usize> {
    /// Name used in errors.
    const NAME: &'static str;
    /// The CPU loop.
    ///
    /// # Errors
    /// On shapes the operator does not take.
    fn cpu<T: Real>(&self, operands: [View<T>; N]) -> Made<T>;
    /// Its calls of a device, unless it is a part of something that devices do otherwise.
    ///
    /// # Errors
    /// As for `cpu`, and when the device fails.
    fn device(&self, _: &Tape, _: [Array; N]) -> Result<Tensor> {
        bail!("{}: only on the cpu", Self::NAME)
    }
}

/// An operator that changes its first tensor, reading `N` others of the same size.
pub trait InPlace<const N: usize>: Sync {
    /// Name used in errors, and of the pointwise kernel.
    const NAME: &'static str;
    /// The new value of one element.
    fn element<T: Real>(&self, dst: T, sources: [T; N]) -> T;
    /// The values p, q, r of the kernel.
    fn values(&self) -> [f64; 3] {
        [0.0; 3]
    }
}

/// Runs `$body` with `$T` bound to the element type of a CPU storage.
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

fn view<'a, T: Real>(name: &str, storage: &'a Storage, layout: &'a Layout) -> Result<View<'a, T>> {
    let Storage::Cpu(storage) = storage else { bail!("{name}: expected a tensor on the CPU") };
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("{name}: operand of shape {:?} is not contiguous", layout.dims())
    };
    Ok(View { data: &storage.as_slice::<T>()?[start..end], dims: layout.dims() })
}

/// A tensor's elements on the CPU, which live as long as the guard.
///
/// # Errors
/// When it lies elsewhere, or is not contiguous, or has not `len` elements.
pub fn elements<T: Real, R>(name: &str, t: &Tensor, len: usize, read: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let (storage, layout) = t.storage_and_layout();
    let View { data, dims } = view::<T>(name, &storage, layout)?;
    if data.len() != len {
        bail!("{name}: {dims:?} has not the {len} elements of the output")
    }
    read(data)
}

/// Runs `cpu` where the operands are the CPU's own, and else `device` with the tape of their machine.
///
/// # Errors
/// Those of the two, and when an operand is not contiguous, or lies elsewhere than the first.
pub fn either<const N: usize, R>(
    operands: [&Tensor; N],
    cpu: impl FnOnce() -> Result<R>,
    device: impl FnOnce(&Tape, [Array; N]) -> Result<R>,
) -> Result<R> {
    let Some(machine) = current::of(operands[0].device())? else { return cpu() };
    let tape = Tape::new(machine, operands[0].dtype())?;
    let mut arrays = [Array { at: 0, dims: &[], dtype: tape.element }; N];
    for (array, operand) in arrays.iter_mut().zip(operands) {
        *array = tape.array(operand)?;
    }
    device(&tape, arrays)
}

/// Runs an operator.
///
/// # Errors
/// On a non-contiguous operand, a dtype other than F32 and F64, or a shape the operator does not take.
pub fn apply<const N: usize, O: Op<N>>(op: &O, operands: [&Tensor; N]) -> Result<Tensor> {
    let cpu = || {
        let read = operands.map(Tensor::storage_and_layout);
        let Storage::Cpu(first) = &*read[0].0 else { bail!("{}: expected a tensor on the CPU", O::NAME) };
        dispatch!(O::NAME, first, T => {
            let mut views = [View::<T> { data: &[], dims: &[] }; N];
            for (slot, (storage, layout)) in views.iter_mut().zip(&read) {
                *slot = view(O::NAME, storage, layout)?;
            }
            let (data, shape) = op.cpu::<T>(views)?;
            fresh(data, shape)
        })
    };
    either(operands, cpu, |tape, arrays| op.device(tape, arrays))
}

/// A tensor on the CPU.
fn fresh<T: Real>(data: Vec<T>, shape: Shape) -> Result<Tensor> {
    if shape.elem_count() != data.len() {
        bail!("{} elements for a tensor of shape {shape:?}", data.len())
    }
    Ok(Tensor::from_storage(Storage::Cpu(T::to_cpu_storage_owned(data)), shape, BackpropOp::none(), false))
}

/// A change of a tensor on the CPU.
struct Change<F>(&'static str, F);

impl<F: Fn(&mut CpuStorage, [usize; 2]) -> Result<()>> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        self.0
    }
    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("{}: destination of shape {:?} is not contiguous", self.0, layout.dims())
        };
        (self.1)(storage, [start, end])
    }
}

/// Changes `dst` element by element, reading `sources`, which must not share its memory.
///
/// # Errors
/// On non-contiguous tensors, other dtypes than F32 and F64, or sizes that differ.
pub fn update<const N: usize, O: InPlace<N>>(op: &O, dst: &Tensor, sources: [&Tensor; N]) -> Result<()> {
    if let Some(other) = sources.iter().find(|s| s.elem_count() != dst.elem_count()) {
        bail!("{}: destination has {} elements, source {}", O::NAME, dst.elem_count(), other.elem_count())
    }
    let cpu = || {
        let read = sources.map(Tensor::storage_and_layout);
        let change = |storage: &mut CpuStorage, [start, end]: [usize; 2]| {
            dispatch!(O::NAME, storage, T => {
                let mut views = [[].as_slice(); N];
                for (slot, (storage, layout)) in views.iter_mut().zip(&read) {
                    *slot = view::<T>(O::NAME, storage, layout)?.data;
                }
                in_place(op, &mut T::slice_mut(storage)?[start..end], views);
                Ok(())
            })
        };
        dst.inplace_op1(&Change(O::NAME, change))
    };
    either([dst], cpu, |tape, [out]| {
        let [p, q, r] = op.values();
        let of = |k: usize| sources.get(k).map(|s| tape.array(s)).transpose();
        tape.each(O::NAME, out.len(), words![out, out, of(0)?, of(1)?, p, q, r])
    })
}

fn in_place<T: Real, const N: usize, O: InPlace<N>>(op: &O, dst: &mut [T], sources: [&[T]; N]) {
    chunks(dst, GRAIN, |i, chunk| {
        let from = i * GRAIN;
        let parts = sources.map(|v| &v[from..from + chunk.len()]);
        vectorised(|| {
            for (j, x) in chunk.iter_mut().enumerate() {
                *x = op.element(*x, parts.map(|p| p[j]));
            }
        });
    });
}

/// The number at a place of a tensor, which is read at once: for numbers that the CPU's loops are given as such.
///
/// # Errors
/// When there is none.
pub fn number(t: &Tensor, place: usize) -> Result<f64> {
    t.flatten_all()?.get(place)?.to_dtype(candle_core::DType::F64)?.to_scalar()
}

/// Numbers for operators that take them from memory: in f64 for the CPU, in the networks' type on a device.
///
/// # Errors
/// When the device refuses the memory.
pub fn numbers(values: &[f64], like: &Tensor) -> Result<Tensor> {
    let host = Tensor::new(values, &Device::Cpu)?;
    match current::is_machine(like.device())? {
        true => host.to_dtype(like.dtype())?.to_device(like.device()),
        false => Ok(host),
    }
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
