//! The kernels for the vector units of x86-64.

use std::arch::x86_64::*;

use super::kernel::{Gather, Number, Outer, Simd, gather_body, narrow_body, outer_body};

/// 512-bit registers.
pub struct Avx512;
/// 256-bit registers.
pub struct Avx2;

/// Sum of the lanes of a register without an instruction for it.
#[inline(always)]
unsafe fn sum_stored<T: Number, S: Simd<T>, const LANES: usize>(v: S::V) -> T {
    let mut lanes = [T::ZERO; LANES];
    unsafe { S::store(lanes.as_mut_ptr(), v) };
    lanes.into_iter().sum()
}

macro_rules! simd {
    ($isa:ident, $registers:expr, $t:ty, $v:ty, $lanes:expr, $set:ident, $load:ident, $store:ident, $fma:ident, $sum:expr) => {
        unsafe impl Simd<$t> for $isa {
            type V = $v;
            const LANES: usize = $lanes;
            const REGISTERS: usize = $registers;
            #[inline(always)]
            unsafe fn splat(x: $t) -> $v {
                unsafe { $set(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const $t) -> $v {
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut $t, v: $v) {
                unsafe { $store(p, v) }
            }
            #[inline(always)]
            unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                unsafe { $fma(a, b, c) }
            }
            #[inline(always)]
            unsafe fn sum(v: $v) -> $t {
                unsafe { $sum(v) }
            }
        }
    };
}
simd!(
    Avx512,
    32,
    f32,
    __m512,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_reduce_add_ps
);
simd!(
    Avx512,
    32,
    f64,
    __m512d,
    8,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_fmadd_pd,
    _mm512_reduce_add_pd
);
simd!(
    Avx2,
    16,
    f32,
    __m256,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    sum_stored::<f32, Avx2, 8>
);
simd!(
    Avx2,
    16,
    f64,
    __m256d,
    4,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_fmadd_pd,
    sum_stored::<f64, Avx2, 4>
);

macro_rules! entry {
    ($name:ident, $args:ident, $body:ident, $isa:ident, $features:literal) => {
        /// The kernel for this instruction set.
        ///
        /// # Safety
        /// As for [`gather_portable`](super::kernel::gather_portable), on a machine that has it.
        #[target_feature(enable = $features)]
        pub unsafe fn $name<T: Number>(args: &$args<T>)
        where
            $isa: Simd<T>,
        {
            unsafe { $body::<T, $isa>(args) }
        }
    };
}
entry!(gather_avx512, Gather, gather_body, Avx512, "avx512f");
entry!(outer_avx512, Outer, outer_body, Avx512, "avx512f");
entry!(narrow_avx512, Gather, narrow_body, Avx512, "avx512f");
entry!(narrow_avx2, Gather, narrow_body, Avx2, "avx2,fma");
entry!(gather_avx2, Gather, gather_body, Avx2, "avx2,fma");
entry!(outer_avx2, Outer, outer_body, Avx2, "avx2,fma");
