//! JPEG through libjpeg-turbo's decoder, as Pillow and the tools that published numbers come from: another decoder's values
//! differ by some levels, and moved the FID of CIFAR-10's JPEG copy by 0.4 %.

use super::{Picture, Room};
use crate::guard::caught;

/// Decodes to red, green, blue.
pub(super) fn decode(bytes: &[u8], room: &Room) -> Result<Picture, String> {
    // The library fills what is missing with grey. The end marker cannot occur in a scan; one before a scan ends a thumbnail.
    let last = |marker: u8| bytes.windows(2).rposition(|w| w == [0xff, marker]);
    if last(0xd9).is_none() || last(0xda) > last(0xd9) {
        return Err("it ends early".to_owned());
    }
    // Its fatal errors unwind, with the message.
    let decoded = caught(|| {
        let image = mozjpeg::Decompress::new_mem(bytes)?;
        let (width, height) = image.size();
        room.take(width, height).map_err(std::io::Error::other)?;
        let pixels = image.rgb()?.read_scanlines::<u8>()?;
        Ok(Picture { pixels, size: [height, width] })
    });
    let picture = decoded?.map_err(|e: std::io::Error| e.to_string())?;
    let [height, width] = picture.size;
    if picture.pixels.len() != height * width * 3 {
        return Err("it ends early".to_owned());
    }
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Picture, String> {
        super::decode(bytes, &Room::default())
    }

    /// Written by Pillow in 4:2:0 (`tests/data/make.py`), and what Pillow reads from it.
    const FILE: &[u8] = include_bytes!("../../../tests/data/small.jpg");
    const PIXELS: &[u8] = include_bytes!("../../../tests/data/small.rgb");

    #[test]
    fn it_is_pillows_to_the_last_level() {
        let picture = decode(FILE).unwrap();
        assert_eq!(picture.size, [24, 31]);
        assert_eq!(picture.pixels, PIXELS);
    }

    #[test]
    fn cut_and_damaged_files_are_errors() {
        for cut in [2, 100, FILE.len() / 2, FILE.len() - 1] {
            assert!(decode(&FILE[..cut]).is_err(), "{cut}");
        }
        let mut damaged = FILE.to_vec();
        damaged[20..200].fill(0x55);
        assert!(decode(&damaged).is_err());
    }
}
