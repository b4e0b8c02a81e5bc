//! Inception Score (Salimans et al. 2016): exp E KL(p(y|x) ‖ p(y)) over splits, mean and deviation (ddof 0).
//! A split is a stretch of the places that images have in some order.

use candle_core::{D, DType, Device, Tensor};

use crate::error::{Error, Result};

/// Splits of the original protocol.
pub const SPLITS: usize = 10;

/// Running sums of class probabilities, of a number of images known beforehand.
#[derive(Debug)]
pub struct ProbabilitySums {
    total: usize,
    seen: usize,
    splits: Vec<Split>,
}

/// Running sums of class probabilities of any number of images, which make one split.
#[derive(Debug)]
pub struct Split {
    n: usize,
    probability: Vec<f64>,
    negative_entropy: f64,
}

/// Mean and standard deviation over splits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Mean.
    pub mean: f64,
    /// Standard deviation (ddof 0).
    pub std: f64,
}

/// Logarithms of the class probabilities that logits `[N, classes]` say, row by row.
fn log_probabilities(logits: &Tensor) -> Result<Vec<Vec<f64>>> {
    let logits = logits.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(candle_nn::ops::log_softmax(&logits, D::Minus1)?.to_vec2()?)
}

impl Split {
    /// No image yet.
    pub fn new(classes: usize) -> Self {
        Self { n: 0, probability: vec![0.0; classes], negative_entropy: 0.0 }
    }

    /// Adds logits `[N, classes]`.
    ///
    /// # Errors
    /// When they are no matrix.
    pub fn add(&mut self, logits: &Tensor) -> Result<()> {
        log_probabilities(logits)?.iter().for_each(|row| self.add_row(row));
        Ok(())
    }

    fn add_row(&mut self, log_p: &[f64]) {
        self.n += 1;
        for (sum, l) in self.probability.iter_mut().zip(log_p) {
            *sum += l.exp();
            self.negative_entropy += l.exp() * l;
        }
    }

    /// The score of the images so far; not a number where there are none.
    pub fn score(&self) -> f64 {
        let n = self.n as f64;
        let marginal = self.probability.iter().map(|p| p / n).filter(|&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>();
        (self.negative_entropy / n - marginal).exp()
    }
}

impl ProbabilitySums {
    /// For `total` images of `classes` classes.
    pub fn new(total: usize, classes: usize) -> Self {
        Self { total, seen: 0, splits: (0..SPLITS).map(|_| Split::new(classes)).collect() }
    }

    /// Adds logits `[N, classes]` of images at these places of the order.
    ///
    /// # Errors
    /// When there are more images than announced, or other places.
    pub fn add(&mut self, logits: &Tensor, places: &[u32]) -> Result<()> {
        let log_p = log_probabilities(logits)?;
        if self.seen + log_p.len() > self.total {
            return Err(Error::invalid(format!("more than the {} announced images", self.total)));
        }
        if log_p.len() != places.len() || places.iter().any(|&place| place as usize >= self.total) {
            return Err(Error::invalid(format!("{} images of {} have no place each", log_p.len(), self.total)));
        }
        for (row, &place) in log_p.iter().zip(places) {
            self.splits[place as usize * SPLITS / self.total].add_row(row);
            self.seen += 1;
        }
        Ok(())
    }

    /// The score.
    ///
    /// # Errors
    /// When fewer images came than announced, or fewer than one a split.
    pub fn finish(&self) -> Result<Score> {
        if self.seen != self.total || self.splits.iter().any(|s| s.n == 0) {
            return Err(Error::invalid(format!(
                "an Inception Score of {} images in {SPLITS} splits cannot be taken from {} images",
                self.total, self.seen
            )));
        }
        let scores: Vec<f64> = self.splits.iter().map(Split::score).collect();
        let mean = scores.iter().sum::<f64>() / SPLITS as f64;
        let std = (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / SPLITS as f64).sqrt();
        Ok(Score { mean, std })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn score(rows: &[[f32; 3]], places: &[u32]) -> Score {
        let mut sums = ProbabilitySums::new(rows.len(), 3);
        for (part, places) in rows.chunks(7).zip(places.chunks(7)) {
            let logits = Tensor::from_vec(part.concat(), (part.len(), 3), &Device::Cpu).unwrap();
            sums.add(&logits, places).unwrap();
        }
        sums.finish().unwrap()
    }

    fn in_file_order(rows: &[[f32; 3]]) -> Score {
        score(rows, &(0..rows.len() as u32).collect::<Vec<_>>())
    }

    #[test]
    fn extremes_are_one_and_the_number_of_classes() {
        let certain: Vec<[f32; 3]> =
            (0..60).map(|i| std::array::from_fn(|k| if k == i % 3 { 50.0 } else { 0.0 })).collect();
        assert!((in_file_order(&certain).mean - 3.0).abs() < 1e-9);
        assert!((in_file_order(&vec![[1.0, 2.0, 3.0]; 60]).mean - 1.0).abs() < 1e-12);
    }

    #[test]
    fn splits_follow_places_and_not_the_order_of_reading() {
        // Class by class, as folders lie: all but two tenths in file order are of one class, and say nothing.
        let sorted: Vec<[f32; 3]> =
            (0..60).map(|i| std::array::from_fn(|k| if k == i / 20 { 50.0 } else { 0.0 })).collect();
        // Those two hold two classes as 2 to 4: the exponential of that entropy is 1.89.
        assert!((in_file_order(&sorted).mean - 1.178).abs() < 1e-3);
        let places: Vec<u32> = (0..60).map(|i| i % 20 * 3 + i / 20).collect();
        assert!((score(&sorted, &places).mean - 3.0).abs() < 1e-9);
        let mut sums = ProbabilitySums::new(10, 3);
        let one = Tensor::zeros((1, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(sums.add(&one, &[10]).is_err() && sums.add(&one, &[]).is_err());
    }

    #[test]
    fn a_split_has_a_score_at_any_time() {
        let rows: Vec<f32> = (0..90).map(|i| (i * i % 17) as f32 / 4.0).collect();
        let part = |from: usize, n: usize| Tensor::from_slice(&rows[3 * from..3 * (from + n)], (n, 3), &Device::Cpu);
        let (mut split, mut whole) = (Split::new(3), Split::new(3));
        split.add(&part(0, 11).unwrap()).unwrap();
        assert!(split.score() > 1.0);
        split.add(&part(11, 19).unwrap()).unwrap();
        whole.add(&part(0, 30).unwrap()).unwrap();
        assert!((split.score() - whole.score()).abs() < 1e-12 && Split::new(3).score().is_nan());
    }

    #[test]
    fn too_few_images_are_refused() {
        assert!(ProbabilitySums::new(5, 3).finish().is_err());
    }
}
