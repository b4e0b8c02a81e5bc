//! Sample grids.

use std::io::Cursor;

use crate::data::to_bytes;
use crate::error::{Error, Result};
use crate::generators::{Generator, Mode, Restriction};
use crate::nn::image::one_hot;

/// Rows and columns of a run's grids.
pub const OF_A_RUN: [usize; 2] = [8, 8];
/// Pixels between images.
const GAP: usize = 2;
/// Pixels of the picture for each pixel of an image.
pub const ZOOM: usize = 2;

/// `rows`×`columns` images of a generator as the bytes of a PNG file; those of a conditional one have a column for each class,
/// unless they are restricted to one.
///
/// # Errors
/// When the generator fails.
pub fn draw(
    generator: &Generator,
    seed: u64,
    [rows, columns]: [usize; 2],
    mode: Mode,
    within: Restriction,
) -> Result<Vec<u8>> {
    let columns = generator.classes.filter(|_| within.class.is_none()).unwrap_or(columns);
    let mut latents = generator.latents_within(seed, "samples/latents", (0, rows * columns), within)?;
    if let (Some(labels), None) = (&latents.labels, within.class) {
        let of_column: Vec<u16> = (0..rows * columns).map(|i| (i % columns) as u16).collect();
        latents.labels = Some(one_hot(&of_column, columns, labels.dtype(), labels.device())?);
    }
    tile(&to_bytes(&generator.images(&latents, mode)?)?, generator.side, columns, ZOOM)
}

/// Images `[N, side, side, 3]` as a PNG of `columns` columns, each pixel `zoom` pixels wide.
///
/// # Errors
/// When it cannot be encoded.
pub fn tile(pixels: &[u8], side: usize, columns: usize, zoom: usize) -> Result<Vec<u8>> {
    let stride = side * side * 3;
    let count = pixels.len() / stride;
    let pitch = side * zoom + GAP;
    let (width, height) = (columns * pitch + GAP, count.div_ceil(columns) * pitch + GAP);
    let mut canvas = image::RgbImage::from_pixel(width as u32, height as u32, image::Rgb([255; 3]));
    for (n, image) in pixels.chunks_exact(stride).enumerate() {
        let (left, top) = (GAP + n % columns * pitch, GAP + n / columns * pitch);
        for y in 0..side * zoom {
            for x in 0..side * zoom {
                let at = (y / zoom * side + x / zoom) * 3;
                let rgb = image::Rgb([image[at], image[at + 1], image[at + 2]]);
                canvas.put_pixel((left + x) as u32, (top + y) as u32, rgb);
            }
        }
    }
    png(&canvas)
}

/// One image `[side, side, 3]` as the bytes of a PNG file.
///
/// # Errors
/// When `pixels` has another size.
pub fn encode(pixels: &[u8], side: usize) -> Result<Vec<u8>> {
    let image = image::RgbImage::from_raw(side as u32, side as u32, pixels.to_vec());
    png(&image.ok_or_else(|| Error::invalid(format!("{} bytes are no {side}×{side} image", pixels.len())))?)
}

fn png(image: &image::RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|e| Error::invalid(format!("cannot encode an image: {e}")))?;
    Ok(bytes.into_inner())
}
