//! Training batches, made ahead on a thread of their own. Batch number b is a pure function of (seed, b): the order is a
//! new permutation each epoch, flips and augmentations have their own streams, and so a resumed run goes on exactly.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use candle_core::{Device, Tensor};

use super::Images;
use super::place::{Place, placed};
use crate::error::{Error, Result};
use crate::rng::Stream;

/// Batches the thread may be ahead.
const AHEAD: usize = 2;
/// Largest shift of the consistency augmentation, as a share of the side.
const SHIFT: f64 = 0.2;

/// Real images in [−1, 1].
pub struct Batch {
    /// Flipped with probability ½, `[N, side, side, 3]`.
    pub real: Tensor,
    /// Class of each.
    pub labels: Vec<u16>,
    /// The same images flipped again with probability ½ and shifted, black where nothing was, when asked for.
    pub augmented: Option<Tensor>,
}

/// Where the images of a batch come from, before they are made.
pub struct Drawn {
    /// Those of the real images.
    pub real: Vec<Place>,
    /// Class of each.
    pub labels: Vec<u16>,
    /// Those of the augmented images, when asked for.
    pub augmented: Option<Vec<Place>>,
}

/// The thread that makes batches.
pub struct Loader {
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread needs to know.
#[derive(Clone)]
pub struct Plan {
    /// Where the images come from.
    pub images: Arc<Images>,
    /// Images in a batch.
    pub size: usize,
    /// Seed of the run.
    pub seed: u64,
    /// What the images are for: names the random streams.
    purpose: &'static str,
    /// Whether the augmented images are wanted.
    pub augment: bool,
}

impl Plan {
    /// Batches for the critic's updates.
    pub fn new(images: Arc<Images>, size: usize, seed: u64, augment: bool) -> Self {
        Self { images, size, seed, purpose: "data", augment }
    }

    /// Batches of `size` for the generator's updates, in an order of their own.
    pub fn of_generator(&self, size: usize) -> Self {
        Self { size, purpose: "generator/data", augment: false, ..self.clone() }
    }

    /// Batch number `number`.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn batch(&self, number: u64) -> Result<Batch> {
        self.made(&self.draw(number))
    }

    /// Where the images of batch `number` come from.
    pub fn draw(&self, number: u64) -> Drawn {
        let (mut real, mut labels) = (Vec::with_capacity(self.size), Vec::with_capacity(self.size));
        let mut flips = self.stream("flip", number);
        let n = self.images.len() as u64;
        let mut epoch = None;
        for position in number * self.size as u64..(number + 1) * self.size as u64 {
            // Only a batch that crosses into the next epoch draws a second permutation.
            let order = match epoch.take() {
                Some((e, order)) if e == position / n => order,
                _ => self.stream("order", position / n).permutation(self.images.len()),
            };
            let index = order[(position % n) as usize];
            labels.push(self.images.labels[index as usize]);
            epoch = Some((position / n, order));
            real.push([i64::from(index), i64::from(flips.coin()), 0, 0]);
        }
        let augmented = self.augment.then(|| self.augmented(&real, number));
        Drawn { real, labels, augmented }
    }

    fn stream(&self, of: &str, number: u64) -> Stream {
        Stream::new(self.seed, &format!("{}/{of}", self.purpose), number)
    }

    fn augmented(&self, real: &[Place], number: u64) -> Vec<Place> {
        let mut stream = self.stream("augment", number);
        let most = SHIFT * self.images.side as f64;
        let moved = |&[image, flipped, ..]: &Place| {
            let flipped = flipped ^ i64::from(stream.coin());
            let [right, down] = [0; 2].map(|_| ((2.0 * stream.uniform() - 1.0) * most).round() as i64);
            [image, flipped, down, right]
        };
        real.iter().map(moved).collect()
    }

    fn made(&self, drawn: &Drawn) -> Result<Batch> {
        let side = self.images.side;
        let tensor = |places: &Vec<Place>| {
            Tensor::from_vec(placed(&self.images.pixels, side, places), (places.len(), side, side, 3), &Device::Cpu)
        };
        Ok(Batch {
            real: tensor(&drawn.real)?,
            labels: drawn.labels.clone(),
            augmented: drawn.augmented.as_ref().map(tensor).transpose()?,
        })
    }
}

impl Loader {
    /// Starts making batches from number `first` on.
    pub fn start(plan: Plan, first: u64) -> Self {
        let (send, receive) = sync_channel(AHEAD);
        let thread = std::thread::spawn(move || {
            for number in first.. {
                if send.send(plan.batch(number)).is_err() {
                    return;
                }
            }
        });
        Self { batches: Some(receive), thread: Some(thread) }
    }

    /// The next batch.
    ///
    /// # Errors
    /// When making it failed.
    pub fn next_batch(&self) -> Result<Batch> {
        match self.batches.as_ref().map(Receiver::recv) {
            Some(Ok(batch)) => batch,
            _ => Err(Error::invalid("the loader's thread has ended")),
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the channel ends the thread.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Pixels;

    fn plan(n: usize, size: usize) -> Plan {
        let side = 5;
        let pixels = (0..n).flat_map(|i| vec![i as u8; side * side * 3]).collect();
        let images = Images::new("test", side, Pixels::Memory(pixels), vec![0; n], 1);
        Plan::new(Arc::new(images), size, 3, true)
    }

    fn first_pixels(batch: &Batch) -> Vec<u8> {
        super::super::to_bytes(&batch.real).unwrap().chunks_exact(75).map(|i| i[0]).collect()
    }

    #[test]
    fn an_epoch_shows_every_image_once_and_a_restart_goes_on() {
        let p = plan(12, 5);
        let loader = Loader::start(p.clone(), 0);
        let seen: Vec<Vec<u8>> = (0..6).map(|_| first_pixels(&loader.next_batch().unwrap())).collect();
        let mut epoch: Vec<u8> = seen.concat()[..12].to_vec();
        epoch.sort_unstable();
        assert_eq!(epoch, (0..12).collect::<Vec<u8>>());
        let resumed = Loader::start(p, 4);
        assert_eq!(first_pixels(&resumed.next_batch().unwrap()), seen[4]);
    }

    #[test]
    fn augmentation_moves_by_at_most_a_fifth_onto_black() {
        let p = plan(200, 200);
        let augmented = p.batch(0).unwrap().augmented.unwrap();
        let bytes = super::super::to_bytes(&augmented).unwrap();
        let black_rows = |image: &[u8]| image.chunks_exact(15).filter(|r| r.iter().all(|&b| b == 0)).count();
        let counts: Vec<usize> = bytes.chunks_exact(75).filter(|i| i.iter().any(|&b| b > 0)).map(black_rows).collect();
        assert!(counts.contains(&0) && counts.contains(&1) && counts.iter().all(|&c| c <= 1));
    }
}
