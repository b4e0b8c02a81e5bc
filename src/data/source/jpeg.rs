//! JPEG through libjpeg-turbo's decoder, as Pillow and the tools that published numbers come from: another decoder's values
//! differ by some levels, and moved the FID of CIFAR-10's JPEG copy by 0.4 %.

use mozjpeg::{ColorSpace, Decompress};

use super::room::Room;
use super::{Mode, Picture};
use crate::guard::caught;

const START: u8 = 0xd8;
const END: u8 = 0xd9;
const SCAN: u8 = 0xda;

/// Decodes to red, green, blue.
pub(super) fn decode(bytes: &[u8], room: &Room) -> Result<Picture, String> {
    // The library fills what is missing with grey.
    if !ends(bytes) {
        return Err("it ends early".to_owned());
    }
    // Its fatal errors unwind, with the message.
    let decoded = caught(|| {
        let image = Decompress::new_mem(bytes)?;
        let (width, height) = image.size();
        room.take(width, height).map_err(std::io::Error::other)?;
        let size = [height, width];
        Ok(match image.color_space() {
            ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => {
                let inks = image.to_colorspace(ColorSpace::JCS_CMYK)?.read_scanlines::<u8>()?;
                Picture { pixels: inks.chunks_exact(4).flat_map(of_inks).collect(), size, mode: Mode::Cmyk }
            }
            space => {
                let mode = if space == ColorSpace::JCS_GRAYSCALE { Mode::Grey } else { Mode::Rgb };
                Picture { pixels: image.rgb()?.read_scanlines::<u8>()?, size, mode }
            }
        })
    });
    let picture = decoded?.map_err(|e: std::io::Error| e.to_string())?;
    let [height, width] = picture.size;
    if picture.pixels.len() != height * width * 3 {
        return Err("it ends early".to_owned());
    }
    Ok(picture)
}

/// Cyan, magenta, yellow and black to red, green and blue. JPEG files hold them inverted, as Adobe's programs write them, and
/// Pillow takes all for such: what is stored is how much light each ink leaves.
fn of_inks(stored: &[u8]) -> [u8; 3] {
    let black = u32::from(stored[3]);
    // A rounded division by 255.
    let share = |v: u32| {
        let t = v * black + 128;
        ((t >> 8) + t) >> 8
    };
    [stored[0], stored[1], stored[2]].map(|ink| black.saturating_sub(share(255 - u32::from(ink))) as u8)
}

/// Whether the end marker comes after a scan. Segments are passed over by their lengths: a thumbnail's markers lie in one of
/// them, and a phone's film may follow the end.
fn ends(bytes: &[u8]) -> bool {
    let (mut at, mut scanned) = (0, false);
    loop {
        // Within a scan, 0xff is followed by zero or by the number of a restart; before a marker it may be repeated.
        let Some(found) = bytes[at..].windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff | 0xd0..=0xd7))
        else {
            return false;
        };
        let marker = bytes[at + found + 1];
        at += found + 2;
        match marker {
            END => return scanned,
            START | 1 => {}
            marker => {
                scanned |= marker == SCAN;
                let Some(length) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([length[0], length[1]]));
                if at > bytes.len() {
                    return false;
                }
            }
        }
    }
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
        // The film of a phone's photo, with bytes that look like markers.
        let film = [FILE, b"ftypmp42\xff\xda\x00\x08\xff\xd8"].concat();
        assert_eq!(decode(&film).unwrap(), picture);
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
