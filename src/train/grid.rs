//! Sample grids.

use std::io::Cursor;
use std::path::Path;

use crate::error::{Error, Result};
use crate::files::write_bytes;

/// Pixels between images.
const GAP: usize = 2;

/// Writes images `[N, side, side, 3]` as a PNG of `columns` columns, each pixel `zoom` pixels wide.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, pixels: &[u8], side: usize, columns: usize, zoom: usize) -> Result<()> {
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
    let mut png = Cursor::new(Vec::new());
    canvas
        .write_to(&mut png, image::ImageFormat::Png)
        .map_err(|e| Error::content(path, format!("cannot encode the grid: {e}")))?;
    write_bytes(path, png.get_ref())
}
