//! What batch normalisation has to know of all images, noted image by image while an image is in cache: by the convolution that makes
//! it or, where none does, in one pass. The notes are combined in f64 and in the order of the images.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{Result, bail};

use crate::machine::cpu::parallel::collect;
use crate::machine::cpu::real::{Real, vectorised};

/// Elements of a block at most: it stays in cache while it is read twice.
const BLOCK: usize = 1 << 14;
/// Rows of a block at most: sums over them are in the networks' type.
const ROWS: usize = 256;

/// Notes of images, made by any thread.
#[derive(Default, Debug)]
pub struct Tally(Mutex<BTreeMap<usize, Vec<f64>>>);

impl Tally {
    /// Notes [`moments`] or [`grad_sums`] of an image.
    pub fn note(&self, image: usize, numbers: Vec<f64>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(image, numbers);
    }

    /// Notes of `images` images.
    pub fn of(images: usize, note: impl Fn(usize) -> Vec<f64> + Sync) -> Self {
        let tally = Self::default();
        collect(images, |image| tally.note(image, note(image)));
        tally
    }

    /// The notes in the order of the images.
    ///
    /// # Errors
    /// When they are not `images` notes of two numbers a channel each.
    pub fn notes(&self, images: usize, channels: usize) -> Result<Vec<Vec<f64>>> {
        let notes: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        if notes.len() != images || notes.iter().any(|note| note.len() != 2 * channels) {
            bail!("batch_norm: {} images are noted, not {images} of {channels} channels", notes.len())
        }
        Ok(notes)
    }
}

/// Rows of a block.
fn block(channels: usize) -> usize {
    (BLOCK / channels).clamp(1, ROWS)
}

/// Mean, then sum of squared deviations from it, of each channel of all parts, given those of each and its number of rows
/// (Chan, Golub and LeVeque 1983).
pub fn combined(parts: &[(usize, Vec<f64>)], channels: usize) -> Vec<f64> {
    let rows: usize = parts.iter().map(|part| part.0).sum();
    let mut all = vec![0.0; 2 * channels];
    let (mean, squares) = all.split_at_mut(channels);
    for (n, part) in parts {
        let share = *n as f64 / rows as f64;
        mean.iter_mut().zip(part).for_each(|(mean, of_part)| *mean += share * of_part);
    }
    for (n, part) in parts {
        let (of_part, within) = part.split_at(channels);
        for (((squares, &mean), of_part), within) in squares.iter_mut().zip(&*mean).zip(of_part).zip(within) {
            *squares += within + *n as f64 * (of_part - mean) * (of_part - mean);
        }
    }
    all
}

/// [`combined`] of an image's blocks of rows.
pub fn moments<T: Real>(image: &[T], channels: usize) -> Vec<f64> {
    let of_block = |rows: &[T]| {
        let n = rows.len() / channels;
        let (mut mean, mut first, mut second) =
            (vec![T::ZERO; channels], vec![T::ZERO; channels], vec![T::ZERO; channels]);
        vectorised(|| add_rows(rows, &mut mean));
        mean.iter_mut().for_each(|mean| *mean *= T::from_f64(1.0 / n as f64));
        vectorised(|| add_deviations(rows, &mean, &mut first, &mut second));
        // The mean is rounded; the deviations from it say how much.
        let off: Vec<f64> = first.iter().map(|first| first.to_f64() / n as f64).collect();
        let mean = mean.iter().zip(&off).map(|(mean, off)| mean.to_f64() + off);
        let squares = second.iter().zip(&off).map(|(second, off)| {
            let squares = second.to_f64() - n as f64 * off * off;
            if squares < 0.0 { 0.0 } else { squares }
        });
        (n, mean.chain(squares).collect())
    };
    combined(&image.chunks(block(channels) * channels).map(of_block).collect::<Vec<_>>(), channels)
}

/// Sums over an image's rows for each channel: of the gradient `dy` where the ReLU lets it pass, then of that times the normalised
/// input. Coefficients: scale, shift, mean, inverse deviation.
pub fn grad_sums<T: Real>(dy: &[T], x: &[T], coefficients: [&[T]; 4]) -> Vec<f64> {
    let channels = coefficients[0].len();
    let len = block(channels) * channels;
    let mut sums = vec![0.0; 2 * channels];
    for (dy, x) in dy.chunks(len).zip(x.chunks(len)) {
        let (mut passed, mut by_deviation) = (vec![T::ZERO; channels], vec![T::ZERO; channels]);
        vectorised(|| add_passed(dy, x, coefficients, &mut passed, &mut by_deviation));
        let by_deviation = by_deviation.iter().zip(coefficients[3]).map(|(&sum, &inverse)| sum * inverse);
        sums.iter_mut().zip(passed.iter().copied().chain(by_deviation)).for_each(|(sum, v)| *sum += v.to_f64());
    }
    sums
}

// Inlined by force: they have to be compiled for the vector unit that `vectorised` chose.

#[inline(always)]
fn add_rows<T: Real>(rows: &[T], sum: &mut [T]) {
    for row in rows.chunks_exact(sum.len()) {
        for (sum, &v) in sum.iter_mut().zip(row) {
            *sum += v;
        }
    }
}

#[inline(always)]
fn add_deviations<T: Real>(rows: &[T], mean: &[T], first: &mut [T], second: &mut [T]) {
    for row in rows.chunks_exact(mean.len()) {
        for (((&v, &mean), first), second) in row.iter().zip(mean).zip(&mut *first).zip(&mut *second) {
            let d = v - mean;
            *first += d;
            *second += d * d;
        }
    }
}

#[inline(always)]
fn add_passed<T: Real>(
    dy: &[T],
    x: &[T],
    [scale, shift, mean, _]: [&[T]; 4],
    passed: &mut [T],
    by_deviation: &mut [T],
) {
    for (dy, x) in dy.chunks_exact(scale.len()).zip(x.chunks_exact(scale.len())) {
        let sums = passed.iter_mut().zip(&mut *by_deviation);
        for ((((((passed, by_deviation), &dy), &x), &scale), &shift), &mean) in
            sums.zip(dy).zip(x).zip(scale).zip(shift).zip(mean)
        {
            let d = if x * scale + shift > T::ZERO { dy } else { T::ZERO };
            *passed += d;
            *by_deviation += d * (x - mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::close;
    use crate::rng::Stream;

    /// Rows of five channels whose deviation is one and whose mean is far from zero, images apart from one another.
    fn far<T: Real>(images: usize, rows: usize) -> Vec<T> {
        let mut stream = Stream::new(0, "far", 0);
        let centre = |image: usize, channel: usize| 1e5 * (channel as f64 - 1.0) + 3.0 * image as f64;
        let value = |i: usize, noise: f64| T::from_f64(centre(i / 5 / rows, i % 5) + noise);
        (0..images * rows * 5).map(|i| value(i, stream.normal())).collect()
    }

    /// Both of a channel by their definition, in f64.
    fn definition<T: Real>(x: &[T], channel: usize) -> [f64; 2] {
        let values: Vec<f64> = x.iter().skip(channel).step_by(5).map(|v| v.to_f64()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        [mean, values.iter().map(|v| (v - mean) * (v - mean)).sum()]
    }

    #[test]
    fn moments_keep_their_digits_far_from_zero() {
        fn check<T: Real>(tolerance: f64) {
            // Three blocks of rows an image and a ragged one, then less than one.
            for (images, rows) in [(3, 3 * block(5) + 7), (4, 9)] {
                let x = far::<T>(images, rows);
                let notes = Tally::of(images, |n| moments(&x[n * rows * 5..][..rows * 5], 5)).notes(images, 5).unwrap();
                let all = combined(&notes.into_iter().map(|note| (rows, note)).collect::<Vec<_>>(), 5);
                for channel in 0..5 {
                    let [mean, squares] = definition(&x, channel);
                    let deviation = (squares / (images * rows) as f64).sqrt();
                    close((all[channel] - mean) / deviation, 0.0, tolerance);
                    close(all[5 + channel] / squares, 1.0, tolerance);
                }
            }
        }
        check::<f32>(1e-6);
        check::<f64>(1e-9);
    }

    #[test]
    fn what_is_missing_is_an_error() {
        let tally = Tally::of(3, |_| vec![0.0; 4]);
        assert!(tally.notes(3, 2).is_ok());
        assert!(tally.notes(4, 2).is_err() && tally.notes(3, 1).is_err());
    }
}
