//! The kernels for the vector units of x86-64.

use std::arch::x86_64::*;

use super::kernel::{Gather, Kernels, Number, Outer, Simd, gather_body, kernels, narrow_body, outer_body, vectors};

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

kernels!(avx512, Avx512, "avx512f");
kernels!(avx2, Avx2, "avx2,fma");
