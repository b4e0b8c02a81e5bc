//! Images rounded to bytes where they are, so that whatever sees them next can see them there.

use candle_core::{DType, Device, Tensor};

use super::to_bytes;
use crate::error::{Error, Result};
use crate::nn::op::{either, number};
use crate::words;

/// The bytes of [`to_bytes`] as a tensor of the images' shape, where the images are.
///
/// # Errors
/// When there are values that are not finite, or the device fails.
pub fn rounded(images: &Tensor) -> Result<Tensor> {
    let on_device = either(
        [images],
        || Ok(None),
        |tape, [x]| {
            let (bytes, fault) = (tape.alloc_of(x.dims, DType::U8)?, tape.made("fill", &[1], words![0.0])?);
            tape.each("to_bytes", x.len(), words![tape.memory(&bytes)?, x, tape.memory(&fault)?])?;
            Ok(Some((bytes, fault)))
        },
    )?;
    match on_device {
        None => Ok(Tensor::from_vec(to_bytes(images)?, images.shape(), &Device::Cpu)?),
        Some((_, fault)) if number(&fault, 0)? != 0.0 => Err(Error::NotFinite("generated images")),
        Some((bytes, _)) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::device;

    #[test]
    fn devices_round_as_the_cpu_does() {
        // Every level, its neighbourhood and both halves around it, beyond both ends too.
        let values: Vec<f32> = (-6..=517)
            .flat_map(|half| {
                let x = half as f32 / 2.0 / 127.5 - 1.0;
                [x.next_down(), x, x.next_up()]
            })
            .chain([-0.0, f32::MIN_POSITIVE, f32::MAX, f32::MIN])
            .collect();
        let want = to_bytes(&Tensor::new(&*values, &Device::Cpu).unwrap()).unwrap();
        let images = Tensor::from_vec(values, (4, 2, 197, 1), device()).unwrap();
        for dtype in [DType::F32, DType::F64] {
            let made = rounded(&images.to_dtype(dtype).unwrap()).unwrap();
            assert_eq!((made.dtype(), made.dims()), (DType::U8, images.dims()));
            assert!(made.device().same_device(device()));
            assert_eq!(made.flatten_all().unwrap().to_vec1::<u8>().unwrap(), want);
        }
        for fault in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let images = Tensor::new(&[0.5, fault, 1.0], device()).unwrap();
            assert!(matches!(rounded(&images), Err(Error::NotFinite("generated images"))), "{fault}");
        }
    }
}
