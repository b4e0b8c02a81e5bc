//! How many pixels may be in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Most pixels of an image.
const LARGEST: usize = 1 << 26;
/// Most pixels of images that are in memory together.
const TOGETHER: usize = 1 << 30;

/// Room for images that are decoded together: a small file may claim many pixels.
#[derive(Default)]
pub(crate) struct Room(AtomicUsize);

impl Room {
    pub(super) fn take(&self, width: usize, height: usize) -> Result<(), String> {
        let pixels = width.saturating_mul(height);
        if pixels > LARGEST {
            return Err(format!("it has {width}×{height} pixels, more than {LARGEST}"));
        }
        if self.0.fetch_add(pixels, Ordering::Relaxed) + pixels > TOGETHER {
            return Err(format!(
                "it has {width}×{height} pixels, and there is no room for so many as large: make them smaller"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_are_large_alone_or_together_are_refused() {
        let room = Room::default();
        assert!(room.take(8192, 8193).unwrap_err().contains("8192×8193 pixels, more than"));
        assert!((0..16).all(|_| room.take(8192, 8192).is_ok()));
        assert!(room.take(1, 1).unwrap_err().contains("make them smaller"));
        assert!(Room::default().take(usize::MAX, 2).is_err());
    }
}
