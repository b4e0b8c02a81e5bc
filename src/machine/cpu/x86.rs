//! The kernels for the vector units of x86-64.

use std::arch::x86_64::*;

use super::kernel::{Number, Routine, Simd, simd};

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

simd!(
    Avx512,
    32,
    f32,
    __m512,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    |a, b, c| _mm512_fmadd_ps(a, b, c),
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
    |a, b, c| _mm512_fmadd_pd(a, b, c),
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
    |a, b, c| _mm256_fmadd_ps(a, b, c),
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
    |a, b, c| _mm256_fmadd_pd(a, b, c),
    sum_stored::<f64, Avx2, 4>
);

/// Runs a routine on 512-bit registers.
///
/// # Safety
/// As for [`Routine::run`], on a machine that has AVX-512F.
#[target_feature(enable = "avx512f")]
pub unsafe fn avx512<T: Number>(routine: &impl Routine<T>)
where
    Avx512: Simd<T>,
{
    unsafe { routine.run::<Avx512>() }
}

/// Runs a routine on 256-bit registers.
///
/// # Safety
/// As for [`Routine::run`], on a machine that has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn avx2<T: Number>(routine: &impl Routine<T>)
where
    Avx2: Simd<T>,
{
    unsafe { routine.run::<Avx2>() }
}
