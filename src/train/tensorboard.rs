//! TensorBoard event files: one for each evaluation, with the curves up to it, its scores and its sample grid, below the run's
//! folder. A file is whole or absent, and a resumed run writes the same ones again, their clocks apart.
//!
//! Format: records of a length, its checksum, a serialised `Event` and its checksum (tensorflow/core/lib/io/record_writer and
//! tensorflow/core/util/event.proto). The clock of the events is the time spent training.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files::{create_folder, write_bytes};
use crate::protobuf::Message;
use crate::results::{Row, TRACES, is_of_critic};

/// Folder of a run's event files.
pub const FOLDER: &str = "tensorboard";

/// TensorFlow's masked CRC-32C.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn record(out: &mut Vec<u8>, event: Message) {
    let len = (event.bytes().len() as u64).to_le_bytes();
    out.extend(len);
    out.extend(checksum(&len));
    out.extend(event.bytes());
    out.extend(checksum(event.bytes()));
}

fn event(wall_s: f64, step: u64, value: Message) -> Message {
    Message::default().double(1, wall_s).int(2, step).message(5, Message::default().message(1, value))
}

/// Serialises scalars, and a PNG under the tag `samples`.
///
/// # Errors
/// When the picture is no PNG.
pub fn events(rows: &[Row], png: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    record(&mut out, Message::default().double(1, 0.0).text(3, "brain.Event:2"));
    for row in rows {
        let tag = if TRACES.contains(&row.metric.as_str()) {
            format!("training/{}", row.metric)
        } else if is_of_critic(&row.metric) {
            format!("critic/{}", row.metric)
        } else {
            format!("{}/{}", row.metric, row.weights)
        };
        let value = Message::default().text(1, &tag).float(2, row.value as f32);
        record(&mut out, event(row.wall_s, row.step, value));
    }
    if let (Some(last), false) = (rows.last(), png.is_empty()) {
        let size = image::ImageReader::with_format(std::io::Cursor::new(png), image::ImageFormat::Png)
            .into_dimensions()
            .map_err(|e| Error::invalid(format!("the sample grid is no PNG: {e}")))?;
        // Three channels: RGB.
        let image = Message::default().int(1, size.1.into()).int(2, size.0.into()).int(3, 3).raw(4, png);
        record(&mut out, event(last.wall_s, last.step, Message::default().text(1, "samples").message(4, image)));
    }
    Ok(out)
}

/// Writes the events of the evaluation at `step` into a run's folder.
///
/// # Errors
/// When the file cannot be written.
pub fn write(run: &Path, step: u64, rows: &[Row], png: &[u8]) -> Result<()> {
    let folder = run.join(FOLDER);
    create_folder(&folder)?;
    write_bytes(&folder.join(format!("events.out.tfevents.{step:010}.pgn-bench")), &events(rows, png)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::row;

    #[test]
    fn records_are_those_of_tensorflow() {
        // The record that TensorFlow writes first, with its clock at zero.
        let first = events(&[], &[]).unwrap();
        assert_eq!(first[..8], 24u64.to_le_bytes());
        assert_eq!(&first[12..36], [&[0x09][..], &[0; 8], &[0x1a, 13], b"brain.Event:2"].concat());
        // Known value: CRC-32C of "123456789" is 0xe3069283.
        assert_eq!(checksum(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes());
        let one = events(&[row("gn", 0, 300, "fid2k_train", 2.5)], &[]).unwrap();
        let tail = &one[first.len() + 12..one.len() - 4];
        assert_eq!(tail[9..12], [0x10, 0xac, 0x02]);
        assert!(tail.windows(15).any(|w| w == b"fid2k_train/raw"));
        assert!(events(&[row("gn", 0, 300, "fid2k_train", 2.5)], b"not a picture").is_err());
    }
}
