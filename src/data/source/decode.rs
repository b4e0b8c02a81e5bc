//! Encoded images to red, green, blue, as Pillow's `convert("RGB")` makes them.

use std::io::Cursor;

use image::metadata::Orientation::NoTransforms;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};

use super::room::Room;
use super::{Mode, Picture, jpeg};
use crate::error::{Error, Result};

/// Decodes an image of any format that is read; `what` makes an error of a fault in it. Of an animation it is the first frame.
pub(crate) fn decode(bytes: &[u8], room: &Room, what: &dyn Fn(String) -> Error) -> Result<Picture> {
    let decode = match bytes {
        [] => return Err(what("image cannot be decoded: it is empty".to_owned())),
        _ if bytes.starts_with(b"version https://git-lfs") => {
            return Err(what(
                "image cannot be decoded: it is a pointer of Git LFS, not the image: run `git lfs pull`".to_owned(),
            ));
        }
        _ if bytes.starts_with(b"\xff\xd8") => jpeg::decode,
        _ => by_library,
    };
    decode(bytes, room).map_err(|e| what(format!("image cannot be decoded: {e}")))
}

fn by_library(bytes: &[u8], room: &Room) -> Result<Picture, String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let format = reader.format();
    let mut decoder = reader.into_decoder().map_err(refused)?;
    let (width, height) = decoder.dimensions();
    room.take(width as usize, height as usize)?;
    // Pillow turns a TIFF as its tag says when it opens it, and nothing else.
    let turn = if format == Some(ImageFormat::Tiff) { decoder.orientation().map_err(refused)? } else { NoTransforms };
    let mut image = DynamicImage::from_decoder(decoder).map_err(refused)?;
    image.apply_orientation(turn);
    let size = [image.height() as usize, image.width() as usize];
    let (pixels, mode) = to_rgb(image)?;
    Ok(Picture { pixels, size, mode })
}

fn refused(error: ImageError) -> String {
    match error {
        ImageError::Unsupported(what) => format!("{what}; save it as PNG"),
        other => other.to_string(),
    }
}

/// Transparency is dropped, grey is repeated, and of 16 bits the upper eight are kept.
fn to_rgb(image: DynamicImage) -> Result<(Vec<u8>, Mode), String> {
    let upper = |samples: &[u16], channels: usize| -> Vec<u8> {
        let pixels = samples.chunks_exact(channels);
        pixels.flat_map(|p| if channels < 3 { [p[0]; 3] } else { [p[0], p[1], p[2]] }.map(|v| (v >> 8) as u8)).collect()
    };
    Ok(match image {
        DynamicImage::ImageRgb8(_) => (image.into_rgb8().into_raw(), Mode::Rgb),
        DynamicImage::ImageRgba8(ref of) => {
            // Some decoders give every image a transparency.
            let mode = if of.pixels().all(|p| p[3] == u8::MAX) { Mode::Rgb } else { Mode::Rgba };
            (image.into_rgb8().into_raw(), mode)
        }
        DynamicImage::ImageLuma8(_) | DynamicImage::ImageLumaA8(_) => (image.into_rgb8().into_raw(), Mode::Grey),
        DynamicImage::ImageLuma16(of) => (upper(&of, 1), Mode::Deep),
        DynamicImage::ImageLumaA16(of) => (upper(&of, 2), Mode::Deep),
        DynamicImage::ImageRgb16(of) => (upper(&of, 3), Mode::Deep),
        DynamicImage::ImageRgba16(of) => (upper(&of, 4), Mode::Deep),
        other => return Err(format!("its samples are {:?}, not of 8 or 16 bits", other.color())),
    })
}
