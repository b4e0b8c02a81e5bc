//! The kernels for the vector units of aarch64.
//!
//! A broadcast costs no instruction: the compiler loads the scalar and multiplies by that lane.

use std::arch::aarch64::*;

use super::kernel::{Simd, simd};

/// 128-bit registers.
pub struct Neon;

simd!(Neon, 32, f32, float32x4_t, 4, vdupq_n_f32, vld1q_f32, vst1q_f32, |a, b, c| vfmaq_f32(c, a, b), vaddvq_f32);
simd!(Neon, 32, f64, float64x2_t, 2, vdupq_n_f64, vld1q_f64, vst1q_f64, |a, b, c| vfmaq_f64(c, a, b), vaddvq_f64);
