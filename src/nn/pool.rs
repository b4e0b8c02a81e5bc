//! 3×3 pooling, forward only: what the Inception network needs beside the critics' own pooling.

use candle_core::{Result, Shape, Tensor, bail};

use super::op::{Made, Op, View, apply};
use crate::machine::call::Array;
use crate::machine::cpu::parallel::fill;
use crate::machine::cpu::real::Real;
use crate::machine::tape::Tape;
use crate::words;

const SIDE: usize = 3;

enum Kind {
    Max,
    /// Mean of the pixels inside the image: padding does not count.
    Mean,
}

struct Pool3 {
    kind: Kind,
    stride: usize,
    padding: usize,
}

impl Pool3 {
    /// Dimensions of images, and rows and columns of what they are pooled to.
    fn sizes(&self, x: &[usize]) -> Result<([usize; 4], [usize; 2])> {
        let &[n, h, w, c] = x else { bail!("{}: expected [N, H, W, C], got {x:?}", Self::NAME) };
        if h + 2 * self.padding < SIDE || w + 2 * self.padding < SIDE {
            bail!("{}: {h}×{w} pixels are less than a window", Self::NAME)
        }
        Ok(([n, h, w, c], [h, w].map(|extent| (extent + 2 * self.padding - SIDE) / self.stride + 1)))
    }
}

impl Op<1> for Pool3 {
    const NAME: &'static str = "pool3";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        let ([n, h, w, c], [oh, ow]) = self.sizes(x.dims)?;
        // The pixels of a window along one axis, those outside the image left out.
        let window = |o: usize, extent: usize| {
            let first = o * self.stride;
            first.saturating_sub(self.padding)..(first + SIDE - self.padding).min(extent)
        };
        let row = ow * c;
        let out = fill(n * oh * row, row, |at, out: &mut [T]| {
            let (image, oy) = (at / row / oh, at / row % oh);
            let rows = window(oy, h);
            for (ox, pixel) in out.chunks_exact_mut(c).enumerate() {
                let columns = window(ox, w);
                let mut first = true;
                for y in rows.clone() {
                    for x_ in columns.clone() {
                        let source = &x.data[((image * h + y) * w + x_) * c..][..c];
                        if first {
                            pixel.copy_from_slice(source);
                            first = false;
                            continue;
                        }
                        match self.kind {
                            Kind::Max => {
                                for (o, &v) in pixel.iter_mut().zip(source) {
                                    *o = if v > *o { v } else { *o };
                                }
                            }
                            Kind::Mean => {
                                for (o, &v) in pixel.iter_mut().zip(source) {
                                    *o += v;
                                }
                            }
                        }
                    }
                }
                if matches!(self.kind, Kind::Mean) {
                    let scale = T::from_f64(1.0 / (rows.len() * columns.len()) as f64);
                    for o in pixel {
                        *o *= scale;
                    }
                }
            }
        });
        Ok((out, Shape::from((n, oh, ow, c))))
    }
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        let ([n, h, w, c], [oh, ow]) = self.sizes(x.dims)?;
        let mean = matches!(self.kind, Kind::Mean);
        let words = words![x, c, h, w, oh, ow, self.stride, self.padding, mean];
        tape.made(Self::NAME, &[n, oh, ow, c], words)
    }
}

/// Maximum over 3×3 windows: `[N, H, W, C]` → `[N, H', W', C]`, padding never wins.
///
/// # Errors
/// On other ranks, images smaller than a window, or a dtype other than F32 and F64.
pub fn max_pool3(x: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    apply(&Pool3 { kind: Kind::Max, stride, padding }, [x])
}

/// Mean over 3×3 windows of stride 1 and padding 1, padding not counted.
///
/// # Errors
/// As for [`max_pool3`].
pub fn mean_pool3(x: &Tensor) -> Result<Tensor> {
    apply(&Pool3 { kind: Kind::Mean, stride: 1, padding: 1 }, [x])
}
