//! The two element types of the network kernels and how each reaches its vector unit.

use std::sync::LazyLock;

use candle_core::{CpuStorage, DType, Result, bail};

use super::kernel::{Gather, Number, Outer, Portable, gather_portable, narrow_portable, outer_portable, vectors};
#[cfg(target_arch = "x86_64")]
use super::x86::{gather_avx2, gather_avx512, narrow_avx2, narrow_avx512, outer_avx2, outer_avx512};

/// `f32` or `f64`.
pub trait Real: Number {
    /// Elements of one vector register on this machine, which fixes the width of a packed weight panel.
    fn lanes() -> usize;
    /// Most vectors of a packed weight panel.
    fn vectors() -> usize {
        vectors(if isa() == Isa::Avx2 { 16 } else { 32 })
    }
    /// Runs the gather kernel on the widest vector unit of this machine.
    ///
    /// # Safety
    /// Every offset of `args` must lie in the buffers it points into.
    unsafe fn gather(args: &Gather<Self>);
    /// Runs the narrow kernel: at most [`NARROW`](super::kernel::NARROW) columns, every segment a multiple of the lanes
    /// long, the panel `[columns, row]`.
    ///
    /// # Safety
    /// As for [`Real::gather`].
    unsafe fn narrow(args: &Gather<Self>);
    /// Runs the outer-product kernel on the widest vector unit of this machine.
    ///
    /// # Safety
    /// As for [`Real::gather`].
    unsafe fn outer(args: &Outer<Self>);
    /// The mutable elements of a CPU storage of this type.
    ///
    /// # Errors
    /// When the storage holds another type.
    fn slice_mut(storage: &mut CpuStorage) -> Result<&mut [Self]>;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
}

/// The vector instruction sets the kernels are built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isa {
    /// 512-bit registers.
    Avx512,
    /// 256-bit registers with fused multiply-add.
    Avx2,
    /// What the compiler makes of plain loops.
    Portable,
}

/// The best instruction set of this machine, or a lesser one named by `PGN_BENCH_ISA` (`avx2`, `portable`).
pub fn isa() -> Isa {
    static ISA: LazyLock<Isa> = LazyLock::new(|| {
        let wanted = std::env::var("PGN_BENCH_ISA").unwrap_or_default();
        #[cfg(target_arch = "x86_64")]
        {
            if wanted != "portable" && wanted != "avx2" && is_x86_feature_detected!("avx512f") {
                return Isa::Avx512;
            }
            if wanted != "portable" && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    });
    *ISA
}

/// Runs `f` compiled for the widest vector unit of this machine: plain loops inside it are vectorised for that.
#[inline]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn avx512<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: `isa` only names what this machine has.
        match isa() {
            Isa::Avx512 => return unsafe { avx512(f) },
            Isa::Avx2 => return unsafe { avx2(f) },
            Isa::Portable => {}
        }
    }
    f()
}

macro_rules! real {
    ($t:ty, $variant:ident, $bytes:expr) => {
        impl Real for $t {
            fn lanes() -> usize {
                match isa() {
                    Isa::Avx512 => 64 / $bytes,
                    Isa::Avx2 => 32 / $bytes,
                    Isa::Portable => Portable::<$t>::LANES,
                }
            }

            unsafe fn gather(args: &Gather<Self>) {
                unsafe {
                    match isa() {
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx512 => gather_avx512(args),
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx2 => gather_avx2(args),
                        _ => gather_portable(args),
                    }
                }
            }

            unsafe fn narrow(args: &Gather<Self>) {
                unsafe {
                    match isa() {
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx512 => narrow_avx512(args),
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx2 => narrow_avx2(args),
                        _ => narrow_portable(args),
                    }
                }
            }

            unsafe fn outer(args: &Outer<Self>) {
                unsafe {
                    match isa() {
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx512 => outer_avx512(args),
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx2 => outer_avx2(args),
                        _ => outer_portable(args),
                    }
                }
            }

            fn slice_mut(storage: &mut CpuStorage) -> Result<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(data) => Ok(data),
                    other => bail!("expected {:?} elements, got {:?}", DType::$variant, dtype(other)),
                }
            }

            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }

            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
        }
    };
}

real!(f32, F32, 4);
real!(f64, F64, 8);

fn dtype(storage: &CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}
