//! The two register-tiled loops under every convolution and linear layer.
//!
//! Legend: p pixel, k input channel within a segment, n output channel, NV vectors of LANES output channels.
//!
//! * **gather**: `out[p, n] (+)= Σ_segment Σ_k input[base_p + segment + k] · panel[segment.row + k, n]`. Forward, input
//!   gradient and transposed convolution are all this sum with other offsets.
//! * **narrow**: the same sum for at most four output channels, vectorised over k instead of n.
//! * **outer**: `out[k, n] (+)= Σ_p input[base_p + k] · delta[p, n]`, the weight gradient of one tap.
//!
//! Each is a [`Routine`], written once over [`Simd`] and compiled for AVX-512, AVX2, NEON and plain loops.

// Indices, not iterators: the compiler keeps a tile in registers only when it sees constant indices.
#![allow(clippy::needless_range_loop)]

use candle_core::WithDType;

/// What the kernels know of an element.
pub trait Number: WithDType + std::ops::Neg<Output = Self> + std::iter::Sum {
    /// Additive identity.
    const ZERO: Self;
    /// Multiplicative identity.
    const ONE: Self;
}

macro_rules! number {
    ($($t:ty),*) => { $(impl Number for $t {
        const ZERO: Self = 0.0;
        const ONE: Self = 1.0;
    })* };
}
number!(f32, f64);

/// Work written once over [`Simd`], for each instruction set to be compiled from.
pub trait Routine<T: Number> {
    /// Does it.
    ///
    /// # Safety
    /// Only on a machine that has the instruction set; every offset must lie in the buffer that it points into.
    unsafe fn run<S: Simd<T>>(&self);
}

/// Rows (pixels or input channels) of a register tile.
pub const ROWS: usize = 6;

/// Most vectors of output channels in a tile of [`ROWS`] rows, of so many registers: a vector of weights each and one of input beside
/// them.
pub const fn vectors(registers: usize) -> usize {
    (registers - 1) / (ROWS + 1)
}

/// A run of consecutive input channels, at an offset from a pixel's base.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Elements from the pixel's base.
    pub offset: usize,
    /// Its first row in the panel of weights.
    pub row: usize,
    /// Channels.
    pub len: usize,
}

/// Where an output pixel reads from and writes to, in elements.
#[derive(Clone, Copy, Debug)]
pub struct Pixel {
    /// Base in the input.
    pub input: usize,
    /// Base in the output.
    pub output: usize,
}

/// Arguments of the gather kernel: one panel of weights, one block of segments, many pixels.
pub struct Gather<'a, T> {
    /// Input.
    pub input: *const T,
    /// Output, already offset to the panel's first channel.
    pub output: *mut T,
    /// The pixels to compute.
    pub pixels: &'a [Pixel],
    /// The segments to sum over.
    pub segments: &'a [Segment],
    /// Weights `[row, vectors · LANES]`, zero beyond `columns`; for the narrow kernel `[columns, row]`.
    pub panel: *const T,
    /// Rows of the panel.
    pub panel_rows: usize,
    /// Vectors in a panel row, 1 to [`vectors`].
    pub vectors: usize,
    /// Channels to write.
    pub columns: usize,
    /// What the sum starts from.
    pub start: Start<'a, T>,
}

/// The initial value of an output.
#[derive(Clone, Copy)]
pub enum Start<'a, T> {
    /// Zero.
    Zero,
    /// A bias per channel (`columns` values).
    Bias(&'a [T]),
    /// What the output already holds.
    Output,
}

/// Arguments of the outer-product kernel: one run of taps, one panel of output channels, many pixels.
pub struct Outer<'a, T> {
    /// Input, already offset to the tap and first channel.
    pub input: *const T,
    /// Output gradient, already offset to the panel's first channel.
    pub delta: *const T,
    /// `input` and `output` (here: of `delta`) offsets of each pixel.
    pub pixels: &'a [Pixel],
    /// Input channels.
    pub rows: usize,
    /// Output channels, at most `vectors · LANES`; `delta` must be readable to `vectors · LANES`.
    pub vectors: usize,
    /// Accumulator `[rows, vectors · LANES]`, added to.
    pub output: *mut T,
}

/// A vector register of an instruction set.
///
/// # Safety
/// The methods may only run on a machine that has the instruction set.
#[allow(clippy::missing_safety_doc)]
pub unsafe trait Simd<T: Copy> {
    /// The register.
    type V: Copy;
    /// Elements in it.
    const LANES: usize;
    /// How many of them there are: a tile that needs more of them lies in memory.
    const REGISTERS: usize;
    /// All lanes `x`.
    unsafe fn splat(x: T) -> Self::V;
    /// Unaligned load.
    unsafe fn load(p: *const T) -> Self::V;
    /// Unaligned store.
    unsafe fn store(p: *mut T, v: Self::V);
    /// `a · b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Sum of the lanes.
    unsafe fn sum(v: Self::V) -> T;
}

#[inline(always)]
unsafe fn gather_tile<T: Number, S: Simd<T>, const NV: usize, const R: usize>(args: &Gather<T>, pixels: &[Pixel]) {
    unsafe {
        let width = NV * S::LANES;
        let last = pixels.len() - 1;
        let base: [*const T; R] = std::array::from_fn(|i| args.input.add(pixels[i.min(last)].input));
        let full = args.columns == width;
        // Every loop over `acc` has a constant bound, or the compiler keeps the tile in memory.
        let mut acc = [[S::splat(T::ZERO); NV]; R];
        // A ragged panel goes through this row, so that the register loop never sees the edge.
        let mut edge = [T::ZERO; 64];
        match args.start {
            Start::Zero => {}
            Start::Bias(bias) => {
                edge[..args.columns].copy_from_slice(&bias[..args.columns]);
                for i in 0..R {
                    for j in 0..NV {
                        acc[i][j] = S::load(edge.as_ptr().add(j * S::LANES));
                    }
                }
            }
            Start::Output => {
                for i in 0..R {
                    let out = args.output.add(pixels[i.min(last)].output);
                    let from = if full {
                        out.cast_const()
                    } else {
                        std::ptr::copy_nonoverlapping(out, edge.as_mut_ptr(), args.columns);
                        edge.as_ptr()
                    };
                    for j in 0..NV {
                        acc[i][j] = S::load(from.add(j * S::LANES));
                    }
                }
            }
        }
        for segment in args.segments {
            let mut panel = args.panel.add(segment.row * width);
            let rows: [*const T; R] = std::array::from_fn(|i| base[i].add(segment.offset));
            for k in 0..segment.len {
                let w: [S::V; NV] = std::array::from_fn(|j| S::load(panel.add(j * S::LANES)));
                for i in 0..R {
                    let x = S::splat(*rows[i].add(k));
                    for j in 0..NV {
                        acc[i][j] = S::fma(x, w[j], acc[i][j]);
                    }
                }
                panel = panel.add(width);
            }
        }
        for i in 0..R {
            if i > last {
                break;
            }
            let out = args.output.add(pixels[i].output);
            if full {
                for j in 0..NV {
                    S::store(out.add(j * S::LANES), acc[i][j]);
                }
            } else {
                for j in 0..NV {
                    S::store(edge.as_mut_ptr().add(j * S::LANES), acc[i][j]);
                }
                std::ptr::copy_nonoverlapping(edge.as_ptr(), out, args.columns);
            }
        }
    }
}

/// Tiles of `R` rows, but for what is left, where those of [`ROWS`] waste less.
#[inline(always)]
unsafe fn gather_rows<T: Number, S: Simd<T>, const NV: usize, const R: usize>(args: &Gather<T>) {
    for pixels in args.pixels.chunks(R) {
        unsafe {
            match pixels.len() <= ROWS {
                true => gather_tile::<T, S, NV, ROWS>(args, pixels),
                false => gather_tile::<T, S, NV, R>(args, pixels),
            }
        }
    }
}

impl<T: Number> Routine<T> for Gather<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd<T>>(&self) {
        unsafe {
            match self.vectors {
                // One vector leaves registers for twice the rows, which the latency of a sum needs.
                1 => gather_rows::<T, S, 1, { 2 * ROWS }>(self),
                // The compiler drops what no register would hold.
                n if n == 2 || vectors(S::REGISTERS) == 2 => gather_rows::<T, S, 2, ROWS>(self),
                3 => gather_rows::<T, S, 3, ROWS>(self),
                _ => gather_rows::<T, S, 4, ROWS>(self),
            }
        }
    }
}

/// Most output channels of the narrow kernel.
pub const NARROW: usize = 4;

#[inline(always)]
unsafe fn narrow_tile<T: Number, S: Simd<T>, const N: usize, const R: usize>(args: &Gather<T>, pixels: &[Pixel]) {
    unsafe {
        let last = pixels.len() - 1;
        let base: [*const T; R] = std::array::from_fn(|i| args.input.add(pixels[i.min(last)].input));
        let mut acc = [[S::splat(T::ZERO); N]; R];
        for segment in args.segments {
            let panel = args.panel.add(segment.row);
            let rows: [*const T; R] = std::array::from_fn(|i| base[i].add(segment.offset));
            let mut k = 0;
            while k < segment.len {
                let w: [S::V; N] = std::array::from_fn(|j| S::load(panel.add(j * args.panel_rows + k)));
                for i in 0..R {
                    let x = S::load(rows[i].add(k));
                    for j in 0..N {
                        acc[i][j] = S::fma(x, w[j], acc[i][j]);
                    }
                }
                k += S::LANES;
            }
        }
        for i in 0..R {
            if i > last {
                break;
            }
            for j in 0..N {
                let start = match args.start {
                    Start::Bias(bias) => bias[j],
                    Start::Zero | Start::Output => T::ZERO,
                };
                *args.output.add(pixels[i].output + j) = start + S::sum(acc[i][j]);
            }
        }
    }
}

/// A gather of at most [`NARROW`] columns, every segment a multiple of the lanes long, the panel `[columns, row]`.
pub struct Narrow<'a, T>(pub Gather<'a, T>);

impl<T: Number> Routine<T> for Narrow<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd<T>>(&self) {
        if vectors(S::REGISTERS) >= NARROW {
            unsafe { narrow_rows::<T, S, ROWS>(&self.0) }
        } else {
            unsafe { narrow_rows::<T, S, 3>(&self.0) }
        }
    }
}

#[inline(always)]
unsafe fn narrow_rows<T: Number, S: Simd<T>, const R: usize>(args: &Gather<T>) {
    for pixels in args.pixels.chunks(R) {
        unsafe {
            match args.columns {
                1 => narrow_tile::<T, S, 1, R>(args, pixels),
                2 => narrow_tile::<T, S, 2, R>(args, pixels),
                3 => narrow_tile::<T, S, 3, R>(args, pixels),
                _ => narrow_tile::<T, S, NARROW, R>(args, pixels),
            }
        }
    }
}

#[inline(always)]
unsafe fn outer_tile<T: Number, S: Simd<T>, const MR: usize, const NV: usize>(args: &Outer<T>, row: usize) {
    unsafe {
        let width = NV * S::LANES;
        let out = args.output.add(row * width);
        let mut acc: [[S::V; NV]; MR] =
            std::array::from_fn(|i| std::array::from_fn(|j| S::load(out.add(i * width + j * S::LANES))));
        for pixel in args.pixels {
            let x = args.input.add(pixel.input + row);
            let delta = args.delta.add(pixel.output);
            let d: [S::V; NV] = std::array::from_fn(|j| S::load(delta.add(j * S::LANES)));
            for i in 0..MR {
                let x = S::splat(*x.add(i));
                for j in 0..NV {
                    acc[i][j] = S::fma(x, d[j], acc[i][j]);
                }
            }
        }
        for (i, row) in acc.iter().enumerate() {
            for (j, v) in row.iter().enumerate() {
                S::store(out.add(i * width + j * S::LANES), *v);
            }
        }
    }
}

#[inline(always)]
unsafe fn outer_rows<T: Number, S: Simd<T>, const NV: usize>(args: &Outer<T>) {
    let mut row = 0;
    while row < args.rows {
        // Fewer vectors leave registers for more rows: nine are a 3×3 kernel's row over three channels.
        let left = (args.rows - row).min(if 11 * NV < S::REGISTERS { 9 } else { ROWS });
        unsafe {
            match left {
                1 => outer_tile::<T, S, 1, NV>(args, row),
                2 => outer_tile::<T, S, 2, NV>(args, row),
                3 => outer_tile::<T, S, 3, NV>(args, row),
                4 => outer_tile::<T, S, 4, NV>(args, row),
                5 => outer_tile::<T, S, 5, NV>(args, row),
                6 => outer_tile::<T, S, 6, NV>(args, row),
                7 => outer_tile::<T, S, 7, NV>(args, row),
                8 => outer_tile::<T, S, 8, NV>(args, row),
                _ => outer_tile::<T, S, 9, NV>(args, row),
            }
        }
        row += left;
    }
}

impl<T: Number> Routine<T> for Outer<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd<T>>(&self) {
        unsafe {
            match self.vectors {
                1 => outer_rows::<T, S, 1>(self),
                n if n == 2 || vectors(S::REGISTERS) == 2 => outer_rows::<T, S, 2>(self),
                3 => outer_rows::<T, S, 3>(self),
                _ => outer_rows::<T, S, 4>(self),
            }
        }
    }
}

/// [`Simd`] of an element type by the intrinsics of an instruction set.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! simd {
    ($isa:ident, $registers:expr, $t:ty, $v:ty, $lanes:expr, $set:ident, $load:ident, $store:ident,
     |$a:ident, $b:ident, $c:ident| $fma:expr, $sum:expr) => {
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
            unsafe fn fma($a: $v, $b: $v, $c: $v) -> $v {
                unsafe { $fma }
            }
            #[inline(always)]
            unsafe fn sum(v: $v) -> $t {
                unsafe { $sum(v) }
            }
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use simd;

/// Plain loops over eight lanes.
pub struct Portable<T>(std::marker::PhantomData<T>);

unsafe impl<T: Number> Simd<T> for Portable<T> {
    type V = [T; 8];
    const LANES: usize = 8;
    const REGISTERS: usize = 32;
    #[inline(always)]
    unsafe fn splat(x: T) -> [T; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const T) -> [T; 8] {
        unsafe { p.cast::<[T; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut T, v: [T; 8]) {
        unsafe { p.cast::<[T; 8]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn fma(a: [T; 8], b: [T; 8], c: [T; 8]) -> [T; 8] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn sum(v: [T; 8]) -> T {
        v.into_iter().sum()
    }
}
