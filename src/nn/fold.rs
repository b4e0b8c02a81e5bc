//! A 3×3 convolution and the resampling beside it as one convolution of 4×4 taps and stride 2: exact rewrites, borders
//! included, with 2.25 times fewer multiplications.
//!
//! * Convolution (padding 1), then the average over 2×2 pixels: the average of the kernel's four copies shifted by a pixel.
//! * Nearest ×2, then convolution (padding 1): a transposed convolution by the sum of the turned kernel's four copies.
//!
//! Each is linear in the kernel, so a gradient goes back through the transpose of the sum.

use candle_core::{Result, Tensor};

/// `[…, 3, 3]` → `[…, 4, 4]`: the sum of four copies, each shifted by 0 or 1 in both directions.
fn spread(w: &Tensor) -> Result<Tensor> {
    let rows = (w.pad_with_zeros(2, 0, 1)? + w.pad_with_zeros(2, 1, 0)?)?;
    rows.pad_with_zeros(3, 0, 1)? + rows.pad_with_zeros(3, 1, 0)?
}

/// The transpose of [`spread`].
fn gather(w: &Tensor) -> Result<Tensor> {
    let rows = (w.narrow(2, 0, 3)? + w.narrow(2, 1, 3)?)?;
    rows.narrow(3, 0, 3)? + rows.narrow(3, 1, 3)?
}

/// The kernel `[O, I, 4, 4]` of stride 2 that is `w` `[O, I, 3, 3]`, then the average over 2×2 pixels.
///
/// # Errors
/// When `w` has another shape.
pub fn conv_then_pool(w: &Tensor) -> Result<Tensor> {
    spread(w)? * 0.25
}

/// The gradient in the kernel of [`conv_then_pool`] from that in its result.
///
/// # Errors
/// When the gradient has another shape.
pub fn conv_then_pool_grad(dw: &Tensor) -> Result<Tensor> {
    gather(dw)? * 0.25
}

/// The kernel `[I, O, 4, 4]` of a transposed convolution of stride 2 that is nearest ×2, then `w` `[O, I, 3, 3]`.
///
/// # Errors
/// When `w` has another shape.
pub fn upsample_then_conv(w: &Tensor) -> Result<Tensor> {
    spread(&w.flip(&[2, 3])?.transpose(0, 1)?.contiguous()?)
}

/// The gradient in the kernel of [`upsample_then_conv`] from that in its result.
///
/// # Errors
/// When the gradient has another shape.
pub fn upsample_then_conv_grad(dw: &Tensor) -> Result<Tensor> {
    gather(dw)?.transpose(0, 1)?.contiguous()?.flip(&[2, 3])?.contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::conv::{ConvSpec, conv_transpose2d, conv2d};
    use crate::nn::resample::{avg_pool2, upsample2};
    use crate::nn::testing::{adjoint, random, tensors_close};

    #[test]
    fn both_rewrites_are_exact_to_the_border() {
        let (x, w, b) = (random("x", &[2, 6, 8, 3]), random("w", &[5, 3, 3, 3]), random("b", &[5]));
        let plain = |x: &Tensor| conv2d(x, &w, Some(&b), ConvSpec::new(1, 1)).unwrap();
        let two = ConvSpec::new(2, 1);
        let folded = conv2d(&x, &conv_then_pool(&w).unwrap(), Some(&b), two).unwrap();
        tensors_close(&folded, &avg_pool2(&plain(&x)).unwrap(), 1e-14);
        let folded = conv_transpose2d(&x, &upsample_then_conv(&w).unwrap(), Some(&b), two).unwrap();
        tensors_close(&folded, &plain(&upsample2(&x).unwrap()), 1e-14);
    }

    #[test]
    fn gradients_are_the_adjoints() {
        let w = random("w", &[5, 3, 3, 3]);
        let dw = random("dw", &[5, 3, 4, 4]);
        adjoint(&conv_then_pool(&w).unwrap(), &dw, &w, &conv_then_pool_grad(&dw).unwrap());
        let dw = random("dw", &[3, 5, 4, 4]);
        adjoint(&upsample_then_conv(&w).unwrap(), &dw, &w, &upsample_then_conv_grad(&dw).unwrap());
    }
}
