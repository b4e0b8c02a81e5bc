//! The two element types of the network kernels and how each reaches its vector unit.

use std::sync::LazyLock;

use candle_core::{CpuStorage, DType, Result, bail};

use super::functions;
use super::kernel::{Number, Portable, Routine, Simd, vectors};
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// `f32` or `f64`.
pub trait Real: Number {
    /// Elements of one vector register on this machine, which fixes the width of a packed weight panel.
    fn lanes() -> usize;
    /// Most vectors of a packed weight panel.
    fn vectors() -> usize {
        vectors(if isa() == Isa::Avx2 { 16 } else { 32 })
    }
    /// Runs a routine on the widest vector unit of this machine.
    ///
    /// # Safety
    /// Every offset of the routine must lie in the buffer that it points into.
    unsafe fn run(routine: &impl Routine<Self>);
    /// The mutable elements of a CPU storage of this type.
    ///
    /// # Errors
    /// When the storage holds another type.
    fn slice_mut(storage: &mut CpuStorage) -> Result<&mut [Self]>;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Exponential, as [`functions::exp`] in f32.
    fn exp(self) -> Self;
    /// Share of a standard normal below it, as [`functions::normal_cdf`] in f32.
    fn normal_cdf(self) -> Self;
}

/// The vector instruction sets the kernels are built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isa {
    /// 512-bit registers.
    Avx512,
    /// 256-bit registers with fused multiply-add.
    Avx2,
    /// 128-bit registers, which every aarch64 has.
    Neon,
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
        #[cfg(target_arch = "aarch64")]
        if wanted != "portable" {
            return Isa::Neon;
        }
        Isa::Portable
    });
    *ISA
}

/// Plain loops that have to be compiled for each vector unit whatever their length.
pub trait Loop {
    /// What they give.
    type Out;
    /// Runs them; to be inlined by force.
    fn run(self) -> Self::Out;
}

/// Runs loops compiled for the widest vector unit of this machine. A long closure that [`vectorised`] is given the compiler leaves out of
/// line, as it was.
#[inline]
pub fn compiled<L: Loop>(loops: L) -> L::Out {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn avx512<L: Loop>(loops: L) -> L::Out {
            loops.run()
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<L: Loop>(loops: L) -> L::Out {
            loops.run()
        }
        // SAFETY: `isa` only names what this machine has.
        match isa() {
            Isa::Avx512 => return unsafe { avx512(loops) },
            Isa::Avx2 => return unsafe { avx2(loops) },
            Isa::Neon | Isa::Portable => {}
        }
    }
    loops.run()
}

/// [`compiled`] of a closure, where it is short.
#[inline]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    struct Closure<F>(F);
    impl<R, F: FnOnce() -> R> Loop for Closure<F> {
        type Out = R;
        #[inline(always)]
        fn run(self) -> R {
            (self.0)()
        }
    }
    compiled(Closure(f))
}

macro_rules! real {
    ($t:ty, $variant:ident, $exp:expr, $normal_cdf:expr) => {
        impl Real for $t {
            fn lanes() -> usize {
                match isa() {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => <x86::Avx512 as Simd<Self>>::LANES,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => <x86::Avx2 as Simd<Self>>::LANES,
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => <Neon as Simd<Self>>::LANES,
                    _ => <Portable<Self> as Simd<Self>>::LANES,
                }
            }

            unsafe fn run(routine: &impl Routine<Self>) {
                unsafe {
                    match isa() {
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx512 => x86::avx512(routine),
                        #[cfg(target_arch = "x86_64")]
                        Isa::Avx2 => x86::avx2(routine),
                        #[cfg(target_arch = "aarch64")]
                        Isa::Neon => routine.run::<Neon>(),
                        _ => routine.run::<Portable<Self>>(),
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

            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }

            #[inline(always)]
            fn normal_cdf(self) -> Self {
                $normal_cdf(self)
            }
        }
    };
}

real!(f32, F32, functions::exp, functions::normal_cdf);
real!(f64, F64, f64::exp, functions::normal_cdf_in_double);

fn dtype(storage: &CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}
