//! The register-level transforms of Winograd's minimal filtering F(4×4, R×R) for kernels of R = 3 or 2 taps a side (Lavin and Gray,
//! arXiv 1509.09308): 4×4 outputs from R + 3 products a side where the sum itself takes 4·R.
//!
//! The R + 3 evaluation points are ±a, ±b, ∞ and, of three taps, 0. The pairs share their even and odd halves; a and b are
//! dyadic fractions, whose powers are exact in `f32` (docs/precision.md says what the error is).
//!
//! Legend: d input, g kernel, y output along one axis; `*_transposed` are the adjoints, which the weight gradient takes.

// Indices, not iterators: the compiler keeps vectors in registers only when it sees constant indices.
#![allow(clippy::needless_range_loop)]

use super::kernel::{Number, Routine, Simd};

/// Outputs of a tile along an axis.
pub const TILE: usize = 4;
/// Channels that lie together where they come in blocks: whole vectors on every machine.
pub const BLOCK: usize = 16;
/// Most points along an axis.
pub const POINTS: usize = 6;

/// Taps of a kernel along an axis, and the finite points ±a, ±b.
trait Filter {
    const TAPS: usize;
    const A: f64;
    const B: f64;
    /// Product of a point's distances to the other finite points.
    const FA: f64 = {
        let f = 2.0 * Self::A * (Self::A * Self::A - Self::B * Self::B);
        if Self::TAPS == 3 { Self::A * f } else { f }
    };
    /// The same of b.
    const FB: f64 = {
        let f = 2.0 * Self::B * (Self::B * Self::B - Self::A * Self::A);
        if Self::TAPS == 3 { Self::B * f } else { f }
    };
    /// The same of 0.
    const F0: f64 = Self::A * Self::A * Self::B * Self::B;
    /// Sign between the values of a pair.
    const SIGN: f64 = if Self::TAPS == 3 { 1.0 } else { -1.0 };
}

struct Three;
impl Filter for Three {
    const TAPS: usize = 3;
    const A: f64 = 0.625;
    const B: f64 = 1.5;
}

struct Two;
impl Filter for Two {
    const TAPS: usize = 2;
    const A: f64 = 0.375;
    const B: f64 = 1.25;
}

/// Values along an axis; those beyond an axis' length are not used.
type Line<V> = [V; POINTS];

/// Sums of a few vectors times constants.
#[inline(always)]
unsafe fn sum<T: Number, S: Simd<T>, const N: usize>(terms: [(f64, S::V); N]) -> S::V {
    unsafe {
        let mut acc = S::fma(S::splat(T::from_f64(terms[0].0)), terms[0].1, S::splat(T::ZERO));
        if terms[0].0 == 1.0 {
            acc = terms[0].1;
        }
        for n in 1..N {
            acc = S::fma(S::splat(T::from_f64(terms[n].0)), terms[n].1, acc);
        }
        acc
    }
}

/// Bᵀd.
#[inline(always)]
unsafe fn input<T: Number, S: Simd<T>, F: Filter>(d: Line<S::V>) -> Line<S::V> {
    unsafe {
        // Of three taps the polynomials of the other points have the factor x: a shift by one.
        let s = F::TAPS - 2;
        let (aa, bb) = (F::A * F::A, F::B * F::B);
        let mut out = [S::splat(T::ZERO); POINTS];
        for (pair, (p, qq)) in [(F::A, bb), (F::B, aa)].into_iter().enumerate() {
            let odd = sum::<T, S, 2>([(1.0, d[s + 3]), (-qq, d[s + 1])]);
            let even = sum::<T, S, 2>([(1.0, d[s + 2]), (-qq, d[s])]);
            out[2 * pair] = sum::<T, S, 2>([(1.0, odd), (p, even)]);
            out[2 * pair + 1] = sum::<T, S, 2>([(1.0, odd), (-p, even)]);
        }
        out[4] = sum::<T, S, 3>([(1.0, d[s + 4]), (-(aa + bb), d[s + 2]), (aa * bb, d[s])]);
        if F::TAPS == 3 {
            out[5] = sum::<T, S, 3>([(1.0, d[4]), (-(aa + bb), d[2]), (aa * bb, d[0])]);
        }
        out
    }
}

/// Gg.
#[inline(always)]
unsafe fn weight<T: Number, S: Simd<T>, F: Filter>(g: Line<S::V>) -> Line<S::V> {
    unsafe {
        let mut out = [S::splat(T::ZERO); POINTS];
        for (pair, (p, f)) in [(F::A, F::FA), (F::B, F::FB)].into_iter().enumerate() {
            let mut even = sum::<T, S, 1>([(1.0 / f, g[0])]);
            if F::TAPS == 3 {
                even = sum::<T, S, 2>([(1.0, even), (p * p / f, g[2])]);
            }
            out[2 * pair] = sum::<T, S, 2>([(1.0, even), (p / f, g[1])]);
            let other = sum::<T, S, 2>([(1.0, even), (-p / f, g[1])]);
            out[2 * pair + 1] = sum::<T, S, 1>([(F::SIGN, other)]);
        }
        out[4] = g[F::TAPS - 1];
        if F::TAPS == 3 {
            out[5] = sum::<T, S, 1>([(1.0 / F::F0, g[0])]);
        }
        out
    }
}

/// Aᵀm.
#[inline(always)]
unsafe fn output<T: Number, S: Simd<T>, F: Filter>(m: Line<S::V>) -> Line<S::V> {
    unsafe {
        let even_a = sum::<T, S, 2>([(1.0, m[0]), (1.0, m[1])]);
        let even_b = sum::<T, S, 2>([(1.0, m[2]), (1.0, m[3])]);
        let odd_a = sum::<T, S, 2>([(1.0, m[0]), (-1.0, m[1])]);
        let odd_b = sum::<T, S, 2>([(1.0, m[2]), (-1.0, m[3])]);
        let (a, b) = (F::A, F::B);
        let mut out = [S::splat(T::ZERO); POINTS];
        out[0] = sum::<T, S, 2>([(1.0, even_a), (1.0, even_b)]);
        if F::TAPS == 3 {
            out[0] = sum::<T, S, 2>([(1.0, out[0]), (1.0, m[5])]);
        }
        out[1] = sum::<T, S, 2>([(a, odd_a), (b, odd_b)]);
        out[2] = sum::<T, S, 2>([(a * a, even_a), (b * b, even_b)]);
        out[3] = sum::<T, S, 3>([(1.0, m[4]), (a * a * a, odd_a), (b * b * b, odd_b)]);
        out
    }
}

/// Ay.
#[inline(always)]
unsafe fn output_transposed<T: Number, S: Simd<T>, F: Filter>(y: Line<S::V>) -> Line<S::V> {
    unsafe {
        let mut out = [S::splat(T::ZERO); POINTS];
        for (pair, p) in [F::A, F::B].into_iter().enumerate() {
            let even = sum::<T, S, 2>([(1.0, y[0]), (p * p, y[2])]);
            let odd = sum::<T, S, 2>([(p, y[1]), (p * p * p, y[3])]);
            out[2 * pair] = sum::<T, S, 2>([(1.0, even), (1.0, odd)]);
            out[2 * pair + 1] = sum::<T, S, 2>([(1.0, even), (-1.0, odd)]);
        }
        out[4] = y[3];
        if F::TAPS == 3 {
            out[5] = y[0];
        }
        out
    }
}

/// Gᵀu.
#[inline(always)]
unsafe fn weight_transposed<T: Number, S: Simd<T>, F: Filter>(u: Line<S::V>) -> Line<S::V> {
    unsafe {
        let mut out = [S::splat(T::ZERO); POINTS];
        let sign = F::SIGN;
        let even_a = sum::<T, S, 2>([(1.0, u[0]), (sign, u[1])]);
        let even_b = sum::<T, S, 2>([(1.0, u[2]), (sign, u[3])]);
        let odd_a = sum::<T, S, 2>([(1.0, u[0]), (-sign, u[1])]);
        let odd_b = sum::<T, S, 2>([(1.0, u[2]), (-sign, u[3])]);
        let (a, b) = (F::A, F::B);
        out[0] = sum::<T, S, 2>([(1.0 / F::FA, even_a), (1.0 / F::FB, even_b)]);
        out[1] = sum::<T, S, 2>([(a / F::FA, odd_a), (b / F::FB, odd_b)]);
        if F::TAPS == 3 {
            out[0] = sum::<T, S, 2>([(1.0, out[0]), (1.0 / F::F0, u[5])]);
            out[2] = sum::<T, S, 3>([(1.0, u[4]), (a * a / F::FA, even_a), (b * b / F::FB, even_b)]);
        } else {
            out[1] = sum::<T, S, 2>([(1.0, out[1]), (1.0, u[4])]);
        }
        out
    }
}

/// Which transform, and so how many values a side it takes and makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transform {
    /// Of inputs: R + 3 → R + 3.
    Input,
    /// Of kernels: R → R + 3.
    Weight,
    /// Of products: R + 3 → 4.
    Output,
    /// Of output gradients: 4 → R + 3.
    OutputGrad,
    /// Of products of input and output gradient: R + 3 → R.
    WeightGrad,
}

impl Transform {
    /// Values a side that it takes and makes, of kernels of `taps` a side.
    pub const fn sides(self, taps: usize) -> [usize; 2] {
        let points = taps + TILE - 1;
        match self {
            Self::Input => [points, points],
            Self::Weight => [taps, points],
            Self::Output => [points, TILE],
            Self::OutputGrad => [TILE, points],
            Self::WeightGrad => [points, taps],
        }
    }

    #[inline(always)]
    unsafe fn line<T: Number, S: Simd<T>, F: Filter>(self, x: Line<S::V>) -> Line<S::V> {
        unsafe {
            match self {
                Self::Input => input::<T, S, F>(x),
                Self::Weight => weight::<T, S, F>(x),
                Self::Output => output::<T, S, F>(x),
                Self::OutputGrad => output_transposed::<T, S, F>(x),
                Self::WeightGrad => weight_transposed::<T, S, F>(x),
            }
        }
    }
}

/// Transforms runs of channels, a square of them at a time: `to[v][u][c] = Σ t[v][y] · t[u][x] · from[y][x][c]` (+ bias`[c]`).
pub struct Square<'a, T> {
    /// What is done.
    pub transform: Transform,
    /// Taps of the kernel along an axis: 2 or 3.
    pub taps: usize,
    /// Where the run of each value of the square that is taken begins, row by row.
    pub from: &'a [*const T],
    /// Where that of each value that is made does.
    pub to: &'a [*mut T],
    /// Channels: a multiple of [`BLOCK`].
    pub channels: usize,
    /// Elements of `to` from the first of a block of channels to that of the next: [`BLOCK`], if the run has no gaps.
    pub pitch: usize,
    /// What is added to each value that is made, a value a channel.
    pub bias: Option<&'a [T]>,
}

impl<T: Number> Routine<T> for Square<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd<T>>(&self) {
        unsafe {
            match self.taps {
                2 => self.filter::<S, Two>(),
                _ => self.filter::<S, Three>(),
            }
        }
    }
}

impl<T: Number> Square<'_, T> {
    #[inline(always)]
    unsafe fn filter<S: Simd<T>, F: Filter>(&self) {
        unsafe {
            // A loop for each transform, which is constant within it.
            match self.transform {
                Transform::Input => self.channels::<S, F>(Transform::Input),
                Transform::Weight => self.channels::<S, F>(Transform::Weight),
                Transform::Output => self.channels::<S, F>(Transform::Output),
                Transform::OutputGrad => self.channels::<S, F>(Transform::OutputGrad),
                Transform::WeightGrad => self.channels::<S, F>(Transform::WeightGrad),
            }
        }
    }

    #[inline(always)]
    unsafe fn channels<S: Simd<T>, F: Filter>(&self, transform: Transform) {
        let [taken, made] = transform.sides(F::TAPS);
        debug_assert!(self.from.len() == taken * taken && self.to.len() == made * made);
        unsafe {
            let (from, to) = (self.from.as_ptr(), self.to.as_ptr());
            let mut c = 0;
            while c < self.channels {
                let zero = S::splat(T::ZERO);
                let bias = self.bias.map_or(zero, |b| S::load(b.as_ptr().add(c)));
                let mut half = [[zero; POINTS]; POINTS];
                for x in 0..taken {
                    let mut line = [zero; POINTS];
                    for y in 0..taken {
                        line[y] = S::load((*from.add(y * taken + x)).add(c));
                    }
                    let line = transform.line::<T, S, F>(line);
                    for v in 0..made {
                        half[v][x] = line[v];
                    }
                }
                for v in 0..made {
                    let line = transform.line::<T, S, F>(half[v]);
                    for u in 0..made {
                        let value = if transform == Transform::Output {
                            sum::<T, S, 2>([(1.0, line[u]), (1.0, bias)])
                        } else {
                            line[u]
                        };
                        S::store((*to.add(v * made + u)).add(c / BLOCK * self.pitch + c % BLOCK), value);
                    }
                }
                c += S::LANES;
            }
        }
    }
}
