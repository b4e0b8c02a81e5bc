//! The kernels for the vector units of aarch64.
//!
//! A broadcast costs no instruction: the compiler loads the scalar and multiplies by that lane.

use std::arch::aarch64::*;

use super::kernel::Simd;

/// 128-bit registers.
pub struct Neon;

macro_rules! simd {
    ($t:ty, $v:ty, $lanes:expr, $set:ident, $load:ident, $store:ident, $fma:ident, $sum:ident) => {
        unsafe impl Simd<$t> for Neon {
            type V = $v;
            const LANES: usize = $lanes;
            const REGISTERS: usize = 32;
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
                unsafe { $fma(c, a, b) }
            }
            #[inline(always)]
            unsafe fn sum(v: $v) -> $t {
                unsafe { $sum(v) }
            }
        }
    };
}
simd!(f32, float32x4_t, 4, vdupq_n_f32, vld1q_f32, vst1q_f32, vfmaq_f32, vaddvq_f32);
simd!(f64, float64x2_t, 2, vdupq_n_f64, vld1q_f64, vst1q_f64, vfmaq_f64, vaddvq_f64);
