//! Resampling by two with the binomial filter [1, 3, 3, 1]/8 along each axis, the box filter of nearest ×2 and of the average over 2×2
//! pixels convolved with [1, 2, 1] (the resampling of R3GAN, Huang et al., arXiv 2501.05441). Beyond the border images are zero. The
//! two directions are each other's adjoint up to a factor of 4.

use candle_core::{Result, Shape, Tensor};

use super::op::{Made, Op, View, apply};
use super::resample::{halved, images};
use crate::machine::call::Array;
use crate::machine::cpu::parallel::fill;
use crate::machine::cpu::real::Real;
use crate::machine::tape::Tape;
use crate::words;

/// Scales of the whole numbers 1, 3, 3, 1 along both axes: with them each output's weights add up to one.
const UP: f64 = 1.0 / 16.0;
const DOWN: f64 = 1.0 / 64.0;

/// `[N, H, W, C]` to `[N, 2H, 2W, C]`, times a scale.
struct Up(f64);

/// A row of pixels: three times the near one and once the far one (absent: zero), with a pixel of zeros at both ends.
#[inline(always)]
fn between<T: Real>(near: &[T], far: Option<&[T]>, c: usize) -> Vec<T> {
    let three = T::from_f64(3.0);
    let mut row = vec![T::ZERO; near.len() + 2 * c];
    for (o, &x) in row[c..].iter_mut().zip(near) {
        *o = three * x;
    }
    for (o, &x) in row[c..].iter_mut().zip(far.unwrap_or_default()) {
        *o += x;
    }
    row
}

#[inline(always)]
fn doubled<T: Real>(row: &[T], c: usize, scale: T, out: &mut [T]) {
    let three = T::from_f64(3.0);
    for (pair, three_pixels) in out.chunks_exact_mut(2 * c).zip(row.windows(3 * c).step_by(c)) {
        let (left, right) = pair.split_at_mut(c);
        let (before, rest) = three_pixels.split_at(c);
        let (here, after) = rest.split_at(c);
        for ((o, &x), &y) in left.iter_mut().zip(here).zip(before) {
            *o = scale * (three * x + y);
        }
        for ((o, &x), &y) in right.iter_mut().zip(here).zip(after) {
            *o = scale * (three * x + y);
        }
    }
}

impl Op<1> for Up {
    const NAME: &'static str = "fir_up2";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        let [n, h, w, c] = images(Self::NAME, x.dims)?;
        let (scale, row) = (T::from_f64(self.0), w * c);
        let out = fill(n * 4 * h * row, 2 * row, |at, out| {
            let y = at / (2 * row);
            let (image, y) = (&x.data[y / (2 * h) * h * row..][..h * row], y % (2 * h));
            let far = if y % 2 == 0 { (y / 2).checked_sub(1) } else { Some(y / 2 + 1).filter(|&y| y < h) };
            let of = |y: usize| &image[y * row..][..row];
            doubled(&between(of(y / 2), far.map(of), c), c, scale, out);
        });
        Ok((out, Shape::from((n, 2 * h, 2 * w, c))))
    }
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        let [n, h, w, c] = images(Self::NAME, x.dims)?;
        tape.made(Self::NAME, &[n, 2 * h, 2 * w, c], words![x, h, w, c, self.0])
    }
}

/// `[N, H, W, C]` to `[N, H/2, W/2, C]`, times a scale.
struct Down(f64);

/// A row of pixels: three times each of two near ones and once each of two far ones (absent: zero), with a pixel of zeros at both ends.
#[inline(always)]
fn across<T: Real>([near, lower]: [&[T]; 2], far: [Option<&[T]>; 2], c: usize) -> Vec<T> {
    let three = T::from_f64(3.0);
    let mut row = vec![T::ZERO; near.len() + 2 * c];
    for ((o, &x), &y) in row[c..].iter_mut().zip(near).zip(lower) {
        *o = three * (x + y);
    }
    for far in far.into_iter().flatten() {
        for (o, &x) in row[c..].iter_mut().zip(far) {
            *o += x;
        }
    }
    row
}

#[inline(always)]
fn reduced<T: Real>(row: &[T], c: usize, scale: T, out: &mut [T]) {
    let three = T::from_f64(3.0);
    for (pixel, four) in out.chunks_exact_mut(c).zip(row.windows(4 * c).step_by(2 * c)) {
        let (first, last) = four.split_at(2 * c);
        let ((a, b), (d, e)) = (first.split_at(c), last.split_at(c));
        for ((((o, &a), &b), &d), &e) in pixel.iter_mut().zip(a).zip(b).zip(d).zip(e) {
            *o = scale * (three * (b + d) + (a + e));
        }
    }
}

impl Op<1> for Down {
    const NAME: &'static str = "fir_down2";
    fn cpu<T: Real>(&self, [x]: [View<T>; 1]) -> Made<T> {
        let [n, h, w, c] = halved(Self::NAME, x.dims)?;
        let (scale, wide) = (T::from_f64(self.0), 2 * w * c);
        let out = fill(n * h * w * c, (w * c).max(1), |at, out| {
            let (image, y) = (at / (w * c) / h, at / (w * c) % h);
            let image = &x.data[image * 2 * h * wide..][..2 * h * wide];
            let of = |y: usize| &image[y * wide..][..wide];
            let far = [(2 * y).checked_sub(1), Some(2 * y + 2).filter(|&y| y < 2 * h)];
            reduced(&across([of(2 * y), of(2 * y + 1)], far.map(|y| y.map(of)), c), c, scale, out);
        });
        Ok((out, Shape::from((n, h, w, c))))
    }
    fn device(&self, tape: &Tape, [x]: [Array; 1]) -> Result<Tensor> {
        let [n, h, w, c] = halved(Self::NAME, x.dims)?;
        tape.made(Self::NAME, &[n, h, w, c], words![x, h, w, c, self.0])
    }
}

/// ×2: `[N, H, W, C]` → `[N, 2H, 2W, C]`.
///
/// # Errors
/// On other ranks, non-contiguous tensors, or a dtype other than F32 and F64.
pub fn fir_up2(x: &Tensor) -> Result<Tensor> {
    apply(&Up(UP), [x])
}

/// Gradient of [`fir_up2`].
///
/// # Errors
/// As for [`fir_down2`].
pub fn fir_up2_grad(dy: &Tensor) -> Result<Tensor> {
    apply(&Down(UP), [dy])
}

/// Half the rows and columns: `[N, H, W, C]` → `[N, H/2, W/2, C]`.
///
/// # Errors
/// As for [`fir_up2`], and when H or W is odd.
pub fn fir_down2(x: &Tensor) -> Result<Tensor> {
    apply(&Down(DOWN), [x])
}

/// Gradient of [`fir_down2`].
///
/// # Errors
/// As for [`fir_up2`].
pub fn fir_down2_grad(dy: &Tensor) -> Result<Tensor> {
    apply(&Up(DOWN), [dy])
}

/// Whether a tensor of a released network is the filter, which each resampling keeps a copy of under this name.
///
/// # Errors
/// When it cannot be read.
pub fn is_filter(name: &str, t: &Tensor) -> Result<bool> {
    if !name.ends_with(".Resampler.Kernel") || t.dims() != [4, 4] {
        return Ok(false);
    }
    let taps = [1.0, 3.0, 3.0, 1.0];
    let values = t.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok((0..16).all(|k| values[k] == taps[k / 4] * taps[k % 4] * DOWN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{adjoint, central_difference, device, dot, on_device, random, tensors_close, values};

    /// Zeros after each pixel, zeros around, every place of a 4×4 filter, every so many of them: the definition of `upfirdn2d`
    /// (Karras et al., StyleGAN2).
    fn naive(x: &Tensor, [up, down]: [usize; 2], [before, after]: [usize; 2], gain: f64) -> Tensor {
        let (n, h, w, c) = x.dims4().unwrap();
        let v = values(x);
        let filter = [1.0, 3.0, 3.0, 1.0];
        let size = [h, w].map(|s| (s * up + before + after - 4) / down + 1);
        let at = |n: usize, y: usize, x: usize, k: usize| {
            let inside = |p: usize, extent: usize| p.checked_sub(before).filter(|p| p % up == 0 && p / up < extent);
            match (inside(y, h), inside(x, w)) {
                (Some(y), Some(x)) => v[((n * h + y / up) * w + x / up) * c + k],
                _ => 0.0,
            }
        };
        let mut out = Vec::new();
        for i in 0..n * size[0] * size[1] * c {
            let (k, x, y, n) = (i % c, i / c % size[1], i / c / size[1] % size[0], i / c / size[1] / size[0]);
            let tap = |t: usize| at(n, y * down + t / 4, x * down + t % 4, k) * filter[t / 4] * filter[t % 4];
            out.push(gain / 64.0 * (0..16).map(tap).sum::<f64>());
        }
        Tensor::from_vec(out, (n, size[0], size[1], c), device()).unwrap()
    }

    #[test]
    fn it_is_the_loop_nest() {
        for dims in [[2, 4, 6, 5], [1, 2, 2, 1], [3, 8, 2, 33]] {
            let x = random("x", &dims);
            let (up, down) = (fir_up2(&x).unwrap(), fir_down2(&x).unwrap());
            on_device(&up);
            tensors_close(&up, &naive(&x, [2, 1], [2, 1], 4.0), 1e-15);
            tensors_close(&down, &naive(&x, [1, 2], [1, 1], 1.0), 1e-15);
            let single = x.to_dtype(candle_core::DType::F32).unwrap();
            let back = |t: Tensor| t.to_dtype(candle_core::DType::F64).unwrap();
            tensors_close(&back(fir_up2(&single).unwrap()), &up, 1e-6);
            tensors_close(&back(fir_down2(&single).unwrap()), &down, 1e-6);
        }
        assert!(fir_down2(&random("x", &[1, 3, 4, 2])).unwrap_err().to_string().contains("3×4"));
    }

    #[test]
    fn gradients_are_adjoints_and_central_differences() {
        let x = random("x", &[2, 4, 6, 5]);
        for [f, gradient] in [[fir_up2, fir_up2_grad], [fir_down2, fir_down2_grad]] {
            let y = f(&x).unwrap();
            let dy = random("dy", y.dims());
            let dx = gradient(&dy).unwrap();
            adjoint(&y, &dy, &x, &dx);
            central_difference(|x| Ok(dot(&f(x)?, &dy)), &x, &random("v", x.dims()), &dx);
        }
    }

    #[test]
    fn the_released_filter_is_known() {
        let taps = [1f32, 3.0, 3.0, 1.0];
        let filter: Vec<f32> = (0..16).map(|k| taps[k / 4] * taps[k % 4] / 64.0).collect();
        let filter = Tensor::from_vec(filter, (4, 4), &candle_core::Device::Cpu).unwrap();
        let name = "MainLayers.1.Layers.0.Resampler.Kernel";
        assert!(is_filter(name, &filter).unwrap());
        assert!(!is_filter("MainLayers.0.Layers.0.Basis", &filter).unwrap());
        assert!(!is_filter(name, &(filter * 4.0).unwrap()).unwrap());
    }
}
