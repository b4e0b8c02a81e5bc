//! Nearest ×2 upsampling, 2×2 average pooling and global pooling. The first two are each other's adjoint up to a factor.

use candle_core::{Result, Shape, Tensor, bail};

use super::op::{Made, Op, View, apply};
use crate::machine::call::Array;
use crate::machine::cpu::parallel::fill;
use crate::machine::cpu::real::Real;
use crate::machine::tape::Tape;
use crate::words;

pub(super) fn images(name: &str, dims: &[usize]) -> Result<[usize; 4]> {
    match dims {
        &[n, h, w, c] => Ok([n, h, w, c]),
        _ => bail!("{name}: expected [N, H, W, C], got {dims:?}"),
    }
}

/// Dimensions at half the rows and columns.
pub(super) fn halved(name: &str, dims: &[usize]) -> Result<[usize; 4]> {
    let [n, h, w, c] = images(name, dims)?;
    if h % 2 != 0 || w % 2 != 0 {
        bail!("{name}: {h}×{w} pixels do not divide by two")
    }
    Ok([n, h / 2, w / 2, c])
}

/// Images and channels of images of one pixel.
fn single(name: &str, dims: &[usize]) -> Result<[usize; 2]> {
    match dims {
        &[n, 1, 1, c] => Ok([n, c]),
        _ => bail!("{name}: expected [N, 1, 1, C], got {dims:?}"),
    }
}

struct Spread(f64);

impl Op<1> for Spread {
    const NAME: &'static str = "upsample2";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        let [n, h, w, c] = images(Self::NAME, x.dims)?;
        let scale = T::from_f64(self.0);
        let row = 2 * w * c;
        let out = fill(n * 4 * h * w * c, row, |at, out| {
            let y = at / row;
            let source = &x.data[y / 2 * w * c..][..w * c];
            for (pair, pixel) in out.chunks_exact_mut(2 * c).zip(source.chunks_exact(c)) {
                for half in pair.chunks_exact_mut(c) {
                    for (o, &v) in half.iter_mut().zip(pixel) {
                        *o = scale * v;
                    }
                }
            }
        });
        Ok((out, Shape::from((n, 2 * h, 2 * w, c))))
    }
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        let [n, h, w, c] = images(Self::NAME, x.dims)?;
        tape.made(Self::NAME, &[n, 2 * h, 2 * w, c], words![x, 2 * w, c, self.0])
    }
}

struct Gather2(f64);

impl Op<1> for Gather2 {
    const NAME: &'static str = "avg_pool2";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        let [n, h, w, c] = halved(Self::NAME, x.dims)?;
        let scale = T::from_f64(self.0);
        let row = w * c;
        let out = fill(n * h * row, row.max(1), |at, out| {
            let (upper, lower) = x.data[at * 4..][..4 * row].split_at(2 * row);
            for ((pixel, a), b) in out.chunks_exact_mut(c).zip(upper.chunks_exact(2 * c)).zip(lower.chunks_exact(2 * c))
            {
                for (k, o) in pixel.iter_mut().enumerate() {
                    *o = scale * ((a[k] + a[k + c]) + (b[k] + b[k + c]));
                }
            }
        });
        Ok((out, Shape::from((n, h, w, c))))
    }
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        let [n, h, w, c] = halved(Self::NAME, x.dims)?;
        tape.made(Self::NAME, &[n, h, w, c], words![x, w, c, self.0])
    }
}

/// Nearest ×2: `[N, H, W, C]` → `[N, 2H, 2W, C]`.
///
/// # Errors
/// On other ranks, non-contiguous tensors, or a dtype other than F32 and F64.
pub fn upsample2(x: &Tensor) -> Result<Tensor> {
    apply(&Spread(1.0), [x])
}

/// Gradient of [`upsample2`].
///
/// # Errors
/// As for [`avg_pool2`].
pub fn upsample2_grad(dy: &Tensor) -> Result<Tensor> {
    apply(&Gather2(1.0), [dy])
}

/// Average over 2×2 pixels: `[N, H, W, C]` → `[N, H/2, W/2, C]`.
///
/// # Errors
/// As for [`upsample2`], and when H or W is odd.
pub fn avg_pool2(x: &Tensor) -> Result<Tensor> {
    apply(&Gather2(0.25), [x])
}

/// Gradient of [`avg_pool2`].
///
/// # Errors
/// As for [`upsample2`].
pub fn avg_pool2_grad(dy: &Tensor) -> Result<Tensor> {
    apply(&Spread(0.25), [dy])
}

struct GlobalSum(f64);

impl Op<1> for GlobalSum {
    const NAME: &'static str = "global_pool";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        let [n, h, w, c] = images(Self::NAME, x.dims)?;
        let scale = T::from_f64(self.0);
        let out = fill(n * c, c, |at, out: &mut [T]| {
            out.fill(T::ZERO);
            for pixel in x.data[at * h * w..][..h * w * c].chunks_exact(c) {
                for (o, &v) in out.iter_mut().zip(pixel) {
                    *o += v;
                }
            }
            for o in out {
                *o *= scale;
            }
        });
        Ok((out, Shape::from((n, 1, 1, c))))
    }
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        let [n, h, w, c] = images(Self::NAME, x.dims)?;
        tape.made(Self::NAME, &[n, 1, 1, c], words![x, h * w, c, self.0])
    }
}

struct GlobalSpread {
    scale: f64,
    size: [usize; 2],
}

impl Op<1> for GlobalSpread {
    const NAME: &'static str = "global_pool_grad";
    fn cpu<T: Real>(&self, [dy]: [View<T>; 1]) -> Made<T> {
        let [n, c] = single(Self::NAME, dy.dims)?;
        let scale = T::from_f64(self.scale);
        let image = self.size[0] * self.size[1] * c;
        let out = fill(n * image, image, |at, out| {
            let source = &dy.data[at / image * c..][..c];
            for pixel in out.chunks_exact_mut(c) {
                for (o, &v) in pixel.iter_mut().zip(source) {
                    *o = scale * v;
                }
            }
        });
        Ok((out, Shape::from((n, self.size[0], self.size[1], c))))
    }
    fn device(&self, tape: &Tape, [dy]: [Array; 1]) -> Result<Tensor> {
        let ([n, c], [h, w]) = (single(Self::NAME, dy.dims)?, self.size);
        tape.made(Self::NAME, &[n, h, w, c], words![dy, h * w, c, self.scale])
    }
}

/// Sum over all pixels times `scale`: `[N, H, W, C]` → `[N, 1, 1, C]`.
///
/// # Errors
/// As for [`upsample2`].
pub fn global_pool(x: &Tensor, scale: f64) -> Result<Tensor> {
    apply(&GlobalSum(scale), [x])
}

/// Gradient of [`global_pool`] for images of `size` rows × columns.
///
/// # Errors
/// As for [`upsample2`].
pub fn global_pool_grad(dy: &Tensor, scale: f64, size: [usize; 2]) -> Result<Tensor> {
    apply(&GlobalSpread { scale, size }, [dy])
}
