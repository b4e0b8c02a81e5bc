//! Images of a batch out of a data set's bytes, flipped and shifted: on the CPU from the data set as it lies, on a GPU from one
//! that lives there.

use candle_core::{DType, Device, Result, Tensor, bail};

use super::to_unit;
use crate::machine::current::is_machine;
use crate::nn::op::either;
use crate::words;

/// Where an image of a batch comes from: its number in the data set, whether it is mirrored (1 or 0), and by how many pixels it
/// is then shifted down and to the right.
pub type Place = [i64; 4];

/// Bytes `[images, side, side, 3]` to `[places, side, side, 3]` in [−1, 1]; black where nothing was.
pub fn placed(bytes: &[u8], side: usize, places: &[Place]) -> Vec<f32> {
    let stride = side * side * 3;
    let mut out = Vec::with_capacity(places.len() * stride);
    for &[image, flipped, down, right] in places {
        let image = &bytes[image as usize * stride..][..stride];
        let source = |at: usize, shift: i64| at.checked_add_signed(-shift as isize).filter(|&at| at < side);
        for y in 0..side {
            let row = source(y, down).map(|y| &image[y * side * 3..][..side * 3]);
            for x in 0..side {
                match row.zip(source(x, right)) {
                    Some((row, x)) => {
                        let x = if flipped != 0 { side - 1 - x } else { x };
                        out.extend(row[x * 3..][..3].iter().map(|&b| to_unit(b)));
                    }
                    None => out.extend([to_unit(0); 3]),
                }
            }
        }
    }
    out
}

/// Most images of a data set that lives on a device: their numbers are exact among the reals of a batch.
const RESIDENT_IMAGES: usize = 1 << 24;

/// A data set's bytes on a device, where they fit beside the training that is to come: in a quarter of what is free.
///
/// # Errors
/// When the device fails.
pub fn resident(bytes: &[u8], side: usize, device: &Device) -> Result<Option<Tensor>> {
    let images = bytes.len() / (side * side * 3);
    let fits = match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => bytes.len() <= crate::machine::cuda::free_bytes(gpu)? / 4,
        _ => is_machine(device)?,
    };
    if !fits || images >= RESIDENT_IMAGES {
        return Ok(None);
    }
    Tensor::from_slice(bytes, (images, side, side, 3), device).map(Some)
}

/// Places as numbers, `[places, 4]`.
pub fn as_numbers(places: &[Place]) -> Vec<f32> {
    places.iter().flatten().map(|&p| p as f32).collect()
}

/// The images at `places` `[M, 4]`, which are numbers of images that there are, out of bytes `[images, side, side, 3]`, as [`placed`]
/// and of the type of the places.
///
/// # Errors
/// When the shapes do not fit, or the device fails.
pub fn place_images(bytes: &Tensor, places: &Tensor) -> Result<Tensor> {
    let ((images, side, columns, channels), (n, four)) = (bytes.dims4()?, places.dims2()?);
    if side != columns || channels != 3 || four != 4 {
        bail!("place_images: expected [N, side, side, 3] and [M, 4], got {:?} and {:?}", bytes.dims(), places.dims())
    }
    let dims = [n, side, side, 3];
    let cpu = || {
        let of = |p: Vec<f64>| -> Result<Place> {
            if p[0] < 0.0 || p[0] >= images as f64 {
                bail!("place_images: image {} of {images}", p[0])
            }
            Ok([0, 1, 2, 3].map(|k: usize| p[k] as i64))
        };
        let rows = places.to_dtype(DType::F64)?.to_vec2()?.into_iter().map(of).collect::<Result<Vec<_>>>()?;
        let made = placed(&bytes.flatten_all()?.to_vec1()?, side, &rows);
        Tensor::from_vec(made, &dims, bytes.device())?.to_dtype(places.dtype())
    };
    either([places, bytes], cpu, |tape, [places, bytes]| tape.made("place_images", &dims, words![bytes, places, side]))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn images_are_mirrored_then_shifted() {
        let side = 3;
        let bytes: Vec<u8> = (0..54).collect();
        let unit = |b: i32| b as f32 / 127.5 - 1.0;
        let out = placed(&bytes, side, &[[1, 0, 0, 0], [0, 1, 1, -1]]);
        assert_eq!(out[..27], (27..54).map(unit).collect::<Vec<_>>());
        // Row 0 came in from outside; row 1 is the mirrored row 0 (6 7 8, 3 4 5, 0 1 2), one pixel to the left.
        let rest: Vec<f32> = [[0; 9], [3, 4, 5, 0, 1, 2, 0, 0, 0], [12, 13, 14, 9, 10, 11, 0, 0, 0]]
            .concat()
            .into_iter()
            .map(unit)
            .collect();
        assert_eq!(out[27..], rest);

        let places: Vec<Place> = vec![[1, 1, 0, 2], [0, 0, -1, 0], [1, 1, 5, 0]];
        let want = placed(&bytes, side, &places);
        let device = crate::nn::testing::device();
        let on_device = Tensor::from_vec(bytes, (2, side, side, 3), device).unwrap();
        let numbers = |places: &[Place]| {
            Tensor::from_vec(as_numbers(places), (places.len(), 4), device).unwrap().to_dtype(DType::F64).unwrap()
        };
        let made = place_images(&on_device, &numbers(&places)).unwrap();
        let want: Vec<f64> = want.into_iter().map(f64::from).collect();
        assert_eq!(made.flatten_all().unwrap().to_vec1::<f64>().unwrap(), want);
        if !crate::nn::testing::on_machine() {
            assert!(place_images(&on_device, &numbers(&[[2, 0, 0, 0]])).is_err());
        }
    }
}
