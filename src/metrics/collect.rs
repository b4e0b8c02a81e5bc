//! What measures need of a collection of images, gathered as a stream: Gaussian, Inception Score, and at most as many
//! features as asked for, so that memory does not grow with the number of images.

use candle_core::{DType, Device, Tensor};

use super::Features;
use super::frechet::{FeatureSums, Gaussian};
use super::inception::SPATIAL;
use super::inception_score::{ProbabilitySums, Score};
use crate::error::{Error, Result};

/// Most features that the trainer keeps for the measures that need them one by one (KID, precision and recall).
pub const KEPT: usize = 10_000;

/// What to gather.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Mean and covariance.
    pub gaussian: bool,
    /// Inception Score, over this many classes.
    pub classes: Option<usize>,
    /// Mean and covariance of spatial features.
    pub spatial: bool,
    /// Class logits of all images.
    pub logits: bool,
    /// Features of so many images, evenly spread over the collection.
    pub keep: usize,
}

/// What was gathered; `None` is what was not asked for.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Images seen.
    pub images: usize,
    /// Mean and covariance.
    pub gaussian: Option<Gaussian>,
    /// Inception Score.
    pub inception: Option<Score>,
    /// Mean and covariance of spatial features.
    pub spatial: Option<Gaussian>,
    /// Class logits `[images, classes]`, f32.
    pub logits: Option<Tensor>,
    /// Kept features `[keep, dim]`, f32.
    pub kept: Option<Tensor>,
    /// The place of each image in the order in which they count; none where they came in that order.
    pub places: Option<Vec<u32>>,
}

/// Whether image `i` of `total` is one of `keep`, evenly spread: where ⌊i·keep/total⌋ steps.
pub fn keeps(i: usize, keep: usize, total: usize) -> bool {
    (i + 1) * keep / total > i * keep / total
}

/// The rows that a [`Collector`] would have kept of so many.
///
/// # Errors
/// When the memory is refused.
pub fn thinned(features: &Tensor, keep: usize) -> Result<Tensor> {
    let n = features.dim(0)?;
    if n <= keep {
        return Ok(features.clone());
    }
    let rows: Vec<u32> = (0..n).filter(|&i| keeps(i, keep, n)).map(|i| i as u32).collect();
    Ok(features.index_select(&Tensor::new(rows, features.device())?, 0)?)
}

fn no_logits() -> Error {
    Error::invalid("the Inception Score needs class logits, and the network gives none")
}

fn joined(parts: &[Tensor]) -> Result<Option<Tensor>> {
    Ok(if parts.is_empty() { None } else { Some(Tensor::cat(parts, 0)?) })
}

/// Gathers batch by batch.
pub struct Collector {
    total: usize,
    seen: usize,
    needs: Needs,
    /// The place of each image in the order that cuts them into splits; none where they come in that order.
    places: Option<Vec<u32>>,
    sums: FeatureSums,
    probabilities: Option<ProbabilitySums>,
    spatial: FeatureSums,
    logits: Vec<Tensor>,
    kept: Vec<Tensor>,
}

impl Collector {
    /// For `total` images with features of `dim` dimensions.
    ///
    /// # Errors
    /// When the memory is refused.
    pub fn new(total: usize, dim: usize, needs: Needs) -> Result<Self> {
        Ok(Self {
            total,
            seen: 0,
            places: None,
            needs: Needs { keep: needs.keep.min(total), ..needs },
            sums: FeatureSums::new(if needs.gaussian { dim } else { 0 })?,
            probabilities: needs.classes.map(|classes| ProbabilitySums::new(total, classes)),
            spatial: FeatureSums::new(if needs.spatial { SPATIAL } else { 0 })?,
            logits: Vec::new(),
            kept: Vec::new(),
        })
    }

    /// The Inception Score's splits are of images at these places of another order than that in which they come.
    pub fn at_places(self, places: Vec<u32>) -> Self {
        Self { places: Some(places), ..self }
    }

    /// Adds a batch.
    ///
    /// # Errors
    /// When it has other widths, no logits though they are needed, or more images than were announced.
    pub fn add(&mut self, of: &Features) -> Result<()> {
        let n = of.features.dim(0)?;
        if self.seen + n > self.total {
            return Err(Error::invalid(format!("more than the {} announced images", self.total)));
        }
        if self.needs.gaussian {
            self.sums.add(&of.features)?;
        }
        if let Some(sums) = &mut self.probabilities {
            let logits = of.logits.as_ref().ok_or_else(no_logits)?;
            let places = match &self.places {
                Some(places) => places.get(self.seen..self.seen + n).unwrap_or_default(),
                None => &(self.seen as u32..(self.seen + n) as u32).collect::<Vec<_>>(),
            };
            sums.add(logits, places)?;
        }
        if self.needs.spatial {
            let Some(spatial) = &of.spatial else {
                return Err(Error::invalid("sFID needs spatial features, and the network gives none"));
            };
            self.spatial.add(spatial)?;
        }
        let on_host = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F32);
        if self.needs.logits {
            self.logits.push(on_host(of.logits.as_ref().ok_or_else(no_logits)?)?);
        }
        let is_kept = |i: &usize| keeps(self.seen + i, self.needs.keep, self.total);
        let picks: Vec<u32> = (0..n).filter(is_kept).map(|i| i as u32).collect();
        if !picks.is_empty() {
            let picks = Tensor::new(picks, &Device::Cpu)?;
            self.kept.push(on_host(&of.features)?.index_select(&picks, 0)?);
        }
        self.seen += n;
        Ok(())
    }

    /// The end.
    ///
    /// # Errors
    /// When fewer images came than announced, or too few for what was asked for.
    pub fn finish(self) -> Result<Collected> {
        if self.seen != self.total {
            return Err(Error::invalid(format!("{} images were announced, and {} came", self.total, self.seen)));
        }
        Ok(Collected {
            gaussian: if self.needs.gaussian { Some(self.sums.finish()?) } else { None },
            inception: self.probabilities.map(|p| p.finish()).transpose()?,
            spatial: if self.needs.spatial { Some(self.spatial.finish()?) } else { None },
            logits: joined(&self.logits)?,
            kept: joined(&self.kept)?,
            places: self.places,
            images: self.seen,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::random;

    #[test]
    fn kept_features_are_evenly_spread_whatever_the_batches() {
        let features = random("f", &[10, 3]).to_dtype(DType::F32).unwrap();
        let gather = |batch: usize, keep: usize| {
            let needs = Needs { gaussian: true, keep, ..Needs::default() };
            let mut collector = Collector::new(10, 3, needs).unwrap();
            for first in (0..10).step_by(batch) {
                let features = features.narrow(0, first, batch.min(10 - first)).unwrap();
                collector.add(&Features { features, logits: None, spatial: None }).unwrap();
            }
            collector.finish().unwrap()
        };
        let rows = |t: &Tensor| t.to_vec2::<f32>().unwrap();
        let (all, kept) = (rows(&features), rows(&gather(3, 4).kept.unwrap()));
        assert_eq!(kept, [2, 4, 7, 9].map(|i| all[i].clone()));
        assert_eq!(kept, rows(&gather(10, 4).kept.unwrap()));
        assert_eq!(rows(&gather(4, 99).kept.unwrap()), all);
        assert!(gather(4, 0).kept.is_none());
    }

    #[test]
    fn announced_numbers_hold() {
        let mut collector = Collector::new(3, 2, Needs { gaussian: true, ..Needs::default() }).unwrap();
        let batch = |n: usize| Features { features: random("b", &[n, 2]), logits: None, spatial: None };
        collector.add(&batch(2)).unwrap();
        assert!(collector.add(&batch(2)).is_err());
        assert!(collector.finish().unwrap_err().to_string().contains("3 images were announced, and 2 came"));
        let mut scored = Collector::new(3, 2, Needs { classes: Some(10), ..Needs::default() }).unwrap();
        assert!(scored.add(&batch(2)).unwrap_err().to_string().contains("logits"));
    }
}
