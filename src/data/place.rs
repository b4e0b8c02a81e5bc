//! Images of a batch out of a data set's bytes, flipped and shifted: on the CPU from the data set as it lies, on a GPU from one
//! that lives there.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, Device, backend::BackendStorage};

use super::to_unit;
#[cfg(any(feature = "cuda", test))]
use crate::nn::device::{Machine, MadeOn, made};

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

struct PlaceImages;

impl PlaceImages {
    fn dims(bytes: &Layout, places: &Layout) -> Result<[usize; 4]> {
        match (bytes.dims(), places.dims()) {
            (&[_, side, columns, 3], &[n, 4])
                if side == columns && bytes.is_contiguous() && places.is_contiguous() && places.start_offset() == 0 =>
            {
                Ok([n, side, side, 3])
            }
            (bytes, places) => {
                bail!("place_images: expected [N, side, side, 3] and [M, 4], got {bytes:?} and {places:?}")
            }
        }
    }

    #[cfg(any(feature = "cuda", test))]
    fn device<M: Machine>(m: &M, dims: [usize; 4], bytes: u64, places: u64) -> MadeOn<M> {
        made(m, "place_images", &dims, [bytes, places, dims[1] as u64])
    }
}

impl CustomOp2 for PlaceImages {
    fn name(&self) -> &'static str {
        "place_images"
    }
    fn cpu_fwd(
        &self,
        bytes: &CpuStorage,
        lb: &Layout,
        places: &CpuStorage,
        lp: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let dims = Self::dims(lb, lp)?;
        let places: Vec<Place> =
            places.as_slice::<i64>()?.chunks_exact(4).map(|p| [p[0], p[1], p[2], p[3]]).take(dims[0]).collect();
        let out = placed(&bytes.as_slice::<u8>()?[lb.start_offset()..], dims[1], &places);
        Ok((CpuStorage::F32(out), Shape::from(dims.to_vec())))
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        bytes: &CudaStorage,
        lb: &Layout,
        places: &CudaStorage,
        lp: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let dims = Self::dims(lb, lp)?;
        let m = crate::nn::device::cuda::Gpu::<f32>::new(bytes.device())?;
        let [bytes, places] = [m.operand::<u8>(bytes, lb)?, m.operand::<i64>(places, lp)?];
        let (made, shape) = Self::device(&m, dims, bytes, places)?;
        Ok((m.store(made), shape))
    }
}

/// A data set's bytes on a GPU, where they fit beside the training that is to come: in a quarter of what is free.
///
/// # Errors
/// When the GPU fails.
#[cfg(feature = "cuda")]
pub fn resident(bytes: &[u8], side: usize, device: &Device) -> Result<Option<Tensor>> {
    let Device::Cuda(gpu) = device else { return Ok(None) };
    if bytes.len() > crate::nn::device::cuda::free_bytes(gpu)? / 4 {
        return Ok(None);
    }
    let images = bytes.len() / (side * side * 3);
    Tensor::from_slice(bytes, (images, side, side, 3), device).map(Some)
}

/// The images at `places` out of bytes `[images, side, side, 3]`, as [`placed`], on their device.
///
/// # Errors
/// When the shapes do not fit, or the device fails.
pub fn place_images(bytes: &Tensor, places: &[Place]) -> Result<Tensor> {
    let images = bytes.dim(0)?;
    if let Some(place) = places.iter().find(|p| usize::try_from(p[0]).is_ok_and(|image| image >= images) || p[0] < 0) {
        bail!("place_images: image {} of {images}", place[0])
    }
    let places = Tensor::from_vec(places.concat(), (places.len(), 4), bytes.device())?;
    bytes.apply_op2_no_bwd(&places, &PlaceImages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::device::emulated::{Emulated, LIBRARY};
    use candle_core::Device;

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
        let on_device = Tensor::from_vec(bytes.clone(), (2, side, side, 3), &Device::Cpu).unwrap();
        let made = place_images(&on_device, &places).unwrap();
        let want = placed(&bytes, side, &places);
        assert_eq!(made.flatten_all().unwrap().to_vec1::<f32>().unwrap(), want);
        assert!(place_images(&on_device, &[[2, 0, 0, 0]]).is_err());
        if let Some(library) = &*LIBRARY {
            let m = Emulated::<true>(library);
            let flat = places.concat();
            let dims = [3, side, side, 3];
            let (got, _) = PlaceImages::device(&m, dims, bytes.as_ptr() as u64, flat.as_ptr() as u64).unwrap();
            assert!(got.iter().zip(&want).all(|(a, b)| a.get() == f64::from(*b)));
        }
    }
}
