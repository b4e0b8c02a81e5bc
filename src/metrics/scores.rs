//! What measures need of a pass over images, and the numbers that they make of what it gathered.

use std::cell::OnceCell;

use candle_core::{Device, Tensor};

use super::collect::{Collected, KEPT, Needs, thinned};
use super::frechet::{Reference, distance};
use super::growing::Growing;
use super::inception_score::{SPLITS, Split};
use super::infinity::{Intercept, POINTS, Points};
use super::manifold::manifold;
use super::memorisation::{memorisation_distance, mifid};
use super::metric::MANIFOLD;
pub use super::metric::{Family, METRICS, Measure, Metric};
use super::mind::{DIRECTIONS, directions, mind};
use super::{Extractor, authenticity, cmmd, kid};
use crate::error::{Error, Result};

/// Fewer images than features leave a covariance without full rank.
pub const RANK_DEFICIENT: &str =
    "no more images than features: the covariance is rank-deficient and the distance biased upwards";

/// The same of the least of the sizes that a line is fitted to.
const NO_LINE: &str = "the smallest of its sizes is no more images than features: the distances are on no line";

/// Images of a subset of the kernel distance, and how many subsets (Bińkowski et al. 2018).
pub const SUBSETS: [usize; 2] = [100, 1000];

/// Fewer images than a subset has by custom.
pub const SMALL_SUBSETS: &str =
    "the smaller side has fewer images than a subset (1000 by custom): subsets are as small, which is another protocol";

impl Measure {
    /// Fewest images of a side.
    pub fn fewest(self, settings: &Settings) -> usize {
        match self {
            Self::Fd | Self::Sfid | Self::MiFid | Self::Kd | Self::AuthPct => 2,
            Self::Cmmd | Self::Mind => 1,
            Self::Is => SPLITS,
            Self::FdInfinity | Self::IsInfinity => Points::FEWEST,
            Self::Manifold => settings.neighbours.saturating_add(1),
        }
    }

    /// Of how many images at most it sees features one by one, on the generated side (or on the real one).
    fn sees(self, generated: bool, settings: &Settings) -> usize {
        match self {
            Self::Fd if generated && settings.bootstrap > 0 => usize::MAX,
            Self::FdInfinity if generated => usize::MAX,
            Self::Fd | Self::FdInfinity | Self::Sfid | Self::Is | Self::IsInfinity => 0,
            Self::Manifold => settings.most.min(KEPT),
            Self::Kd | Self::Cmmd | Self::AuthPct | Self::MiFid | Self::Mind => settings.most,
        }
    }
}

/// What measures leave to choose.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Neighbours that the balls of precision and recall reach to.
    pub neighbours: usize,
    /// Subsets of the kernel distance.
    pub subsets: usize,
    /// Most images of one.
    pub size: usize,
    /// Most images a side, evenly spread, of the measures that see them one by one; precision and recall see at most 10,000.
    pub most: usize,
    /// Bootstrap replicates of the generated images; 0 for none.
    pub bootstrap: usize,
    /// Of all that is drawn.
    pub seed: u64,
}

/// What the measures of one extractor need of the generated images (or of the real ones), given its number of classes.
pub fn needs(measures: &[Measure], generated: bool, classes: Option<usize>, settings: &Settings) -> Needs {
    let any = |of: &[Measure]| measures.iter().any(|m| of.contains(m));
    Needs {
        gaussian: any(&[Measure::Fd, Measure::FdInfinity, Measure::MiFid]),
        spatial: any(&[Measure::Sfid]),
        classes: classes.filter(|_| generated && any(&[Measure::Is])),
        logits: generated && any(&[Measure::IsInfinity]),
        keep: measures.iter().map(|m| m.sees(generated, settings)).max().unwrap_or(0),
    }
}

/// A number.
#[derive(Clone, Debug)]
pub struct Score {
    /// Name: that of the metric, or of what it consists of, such as `precision-dinov2`.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Standard deviation over splits or subsets.
    pub std: Option<f64>,
    /// Standard error over bootstrap replicates.
    pub error: Option<f64>,
    /// Real images that it was taken from; nothing where there is no comparison, 0 where a foreign file does not say.
    pub real: Option<usize>,
    /// Generated images that it was taken from.
    pub generated: usize,
    /// What its name does not say.
    pub settings: String,
    /// Why to doubt it.
    pub warning: Option<&'static str>,
}

impl Score {
    /// SHA-256 of the weights that it depends on: a score without a reference is one of logits.
    pub fn weights_sha256<'a>(&self, extractor: &'a dyn Extractor) -> &'a str {
        if self.real.is_some() { extractor.weights_sha256() } else { extractor.logits_sha256() }
    }
}

/// Both sides of a comparison, features of one extractor.
pub struct Comparison<'a> {
    family: Family,
    real: Option<&'a Collected>,
    generated: &'a Collected,
    settings: Settings,
    reference: OnceCell<Reference>,
    /// The Fréchet distance.
    distance: OnceCell<f64>,
}

/// With a warning, where there are no more images than features.
fn doubted(score: Score, features: usize) -> Score {
    // A foreign file does not say how many images it was taken from.
    let few = [score.real, Some(score.generated)].into_iter().flatten().any(|n| (1..=features).contains(&n));
    Score { warning: few.then_some(RANK_DEFICIENT), ..score }
}

fn missing(what: &str) -> Error {
    Error::invalid(format!("the pass over the images gathered no {what}"))
}

impl<'a> Comparison<'a> {
    /// Of what was gathered as [`needs`] says.
    pub fn new(family: Family, real: Option<&'a Collected>, generated: &'a Collected, settings: Settings) -> Self {
        Self { family, real, generated, settings, reference: OnceCell::new(), distance: OnceCell::new() }
    }

    /// Numbers of a measure; `progress` hears of each bootstrap replicate.
    ///
    /// # Errors
    /// When something was not gathered, or what was gathered is too little or does not fit.
    pub fn scores(&self, measure: Measure, progress: &mut dyn FnMut()) -> Result<Vec<Score>> {
        let Settings { neighbours, subsets, size, bootstrap, seed, .. } = self.settings;
        let one = |score: Score| Ok(vec![score]);
        match measure {
            Measure::Fd => {
                let score = self.distance()?;
                let error = match bootstrap {
                    0 => None,
                    _ => Some(self.reference()?.bootstrap(self.generated_features()?, bootstrap, seed, progress)?),
                };
                one(Score { error, ..score })
            }
            Measure::FdInfinity => {
                let (of, warning) = self.distance_at_infinity()?;
                one(Score { warning, ..self.intercept("fd-inf", of)? })
            }
            Measure::Is => {
                let of = self.generated.inception.ok_or_else(|| missing("Inception Score"))?;
                let settings = format!("{SPLITS} splits");
                one(Score { real: None, std: Some(of.std), settings, ..self.score("is", of.mean)? })
            }
            Measure::IsInfinity => {
                let of = self.score_at_infinity()?;
                one(Score { real: None, ..self.intercept("is-inf", of)? })
            }
            Measure::Kd => {
                let [real, generated] = self.features()?;
                let asked = size;
                let size = size.min(real.dim(0)?).min(generated.dim(0)?);
                let of = kid::over_subsets(&real, &generated, subsets, size, seed)?;
                let error = match bootstrap {
                    0 => None,
                    _ => Some(kid::bootstrap(&real, &generated, bootstrap, seed)?),
                };
                let settings = format!("{subsets} × {size}");
                let score = self.between(&real, &generated, "kd", of.mean)?;
                // Subsets of all images are one and the same.
                let std = ([score.real, Some(score.generated)] != [Some(size); 2]).then_some(of.std);
                one(Score { std, error, settings, warning: (size < asked).then_some(SMALL_SUBSETS), ..score })
            }
            Measure::Manifold => {
                let [real, generated] = self.features()?;
                let [real, generated] = [thinned(&real, KEPT)?, thinned(&generated, KEPT)?];
                let of = manifold(&real, &generated, neighbours)?;
                let named = MANIFOLD.into_iter().zip([of.precision, of.recall, of.density, of.coverage]);
                let score = |(name, value): (&str, f64)| {
                    let settings = format!("k = {neighbours}");
                    Ok(Score { settings, ..self.between(&real, &generated, name, value)? })
                };
                named.map(score).collect()
            }
            Measure::Sfid => {
                let spatial = |of: Option<&'a Collected>| of.and_then(|c| c.spatial.as_ref());
                let [Some(real), Some(generated)] = [spatial(self.real), spatial(Some(self.generated))] else {
                    return Err(missing("spatial features"));
                };
                let value = distance(real, generated)?;
                one(doubted(self.score("sfid", value)?, real.mean.len()))
            }
            Measure::Cmmd => one(self.pairwise("cmmd", cmmd::cmmd)?),
            Measure::AuthPct => one(self.pairwise("authpct", authenticity::auth_pct)?),
            Measure::MiFid => {
                let (distance, score) = (self.distance()?, self.pairwise("mifid", memorisation_distance)?);
                one(Score { value: mifid(distance.value, score.value), warning: distance.warning, ..score })
            }
            Measure::Mind => {
                let [real, generated] = self.features()?;
                let fewest = real.dim(0)?.min(generated.dim(0)?);
                let [real, generated] = [thinned(&real, fewest)?, thinned(&generated, fewest)?];
                let value = mind(&real, &generated, &directions(DIRECTIONS, real.dim(1)?, 0)?)?;
                let settings = format!("{DIRECTIONS} slices");
                one(Score { settings, ..self.between(&real, &generated, "mind", value)? })
            }
        }
    }

    fn score(&self, name: &str, value: f64) -> Result<Score> {
        let name = self.family.named(name);
        let settings = String::new();
        let (real, generated) = (self.real.map(|of| of.images), self.generated.images);
        Ok(Score { name, value, std: None, error: None, real, generated, settings, warning: None })
    }

    /// Of these features.
    fn between(&self, real: &Tensor, generated: &Tensor, name: &str, value: f64) -> Result<Score> {
        Ok(Score { real: Some(real.dim(0)?), generated: generated.dim(0)?, ..self.score(name, value)? })
    }

    /// Features of both sides.
    fn features(&self) -> Result<[Tensor; 2]> {
        let real = self.real.and_then(|of| of.kept.as_ref()).ok_or_else(|| missing("features"))?;
        Ok([thinned(real, self.settings.most)?, thinned(self.generated_features()?, self.settings.most)?])
    }

    fn pairwise(&self, name: &str, of: fn(&Tensor, &Tensor) -> Result<f64>) -> Result<Score> {
        let [real, generated] = self.features()?;
        self.between(&real, &generated, name, of(&real, &generated)?)
    }

    fn generated_features(&self) -> Result<&'a Tensor> {
        self.generated.kept.as_ref().ok_or_else(|| missing("features"))
    }

    fn reference(&self) -> Result<&Reference> {
        if let Some(reference) = self.reference.get() {
            return Ok(reference);
        }
        let gaussian = self.real.and_then(|of| of.gaussian.as_ref()).ok_or_else(|| missing("mean and covariance"))?;
        let reference = Reference::new(gaussian)?;
        Ok(self.reference.get_or_init(|| reference))
    }

    fn distance(&self) -> Result<Score> {
        let gaussian = self.generated.gaussian.as_ref().ok_or_else(|| missing("mean and covariance"))?;
        let value = match self.distance.get() {
            Some(&value) => value,
            None => self.reference()?.distance(gaussian)?,
        };
        Ok(doubted(self.score("fd", *self.distance.get_or_init(|| value))?, gaussian.mean.len()))
    }

    /// ± the standard error that the line's residuals tell.
    fn intercept(&self, name: &str, of: Intercept) -> Result<Score> {
        let settings = format!("{POINTS} sizes");
        Ok(Score { std: Some(of.error), settings, ..self.score(name, of.value)? })
    }

    fn distance_at_infinity(&self) -> Result<(Intercept, Option<&'static str>)> {
        let features = self.generated_features()?;
        let (n, d) = features.dims2()?;
        let features = self.in_order(features)?;
        let (mut points, mut growing) = (Points::new(n)?, Growing::new(self.reference()?)?);
        for (part, due) in points.parts(n) {
            for first in part.clone().step_by(KEPT) {
                growing.add(&features.narrow(0, first, KEPT.min(part.end - first))?)?;
            }
            if due {
                points.take(growing.distance()?);
            }
        }
        Ok((points.intercept()?, (points.first() <= d).then_some(NO_LINE)))
    }

    fn score_at_infinity(&self) -> Result<Intercept> {
        let logits = self.generated.logits.as_ref().ok_or_else(|| missing("class logits"))?;
        let (n, classes) = logits.dims2()?;
        let logits = self.in_order(logits)?;
        let (mut points, mut split) = (Points::new(n)?, Split::new(classes));
        for (part, due) in points.parts(n) {
            split.add(&logits.narrow(0, part.start, part.len())?)?;
            if due {
                points.take(split.score());
            }
        }
        points.intercept()
    }

    /// The rows of generated images in the order in which they count.
    fn in_order(&self, rows: &Tensor) -> Result<Tensor> {
        let Some(places) = &self.generated.places else { return Ok(rows.clone()) };
        let mut order: Vec<u32> = (0..places.len() as u32).collect();
        order.sort_unstable_by_key(|&row| places[row as usize]);
        Ok(rows.index_select(&Tensor::new(order, &Device::Cpu)?, 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Features;
    use crate::metrics::collect::Collector;
    use crate::metrics::frechet::FeatureSums;
    use crate::nn::testing::random;

    #[test]
    fn names_are_those_of_the_docs() {
        let docs = include_str!("../../docs/metrics.md");
        let (_, table) = docs.split_once("| metric | measure | over |\n|---|---|---|\n").unwrap();
        let names = table.lines().map_while(|line| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name));
        assert_eq!(names.collect::<Vec<_>>(), METRICS.map(|(name, _)| name));
        for (name, metric) in METRICS {
            assert_eq!((metric.name(), Metric::try_from(name.to_owned())), (name, Ok(metric)));
        }
        assert!(Metric::try_from("fod".to_owned()).is_err());
    }

    /// Features, logits and spatial features of `n` images, gathered in batches for some measures.
    fn gathered(name: &str, n: usize, measures: &[Measure], generated: bool, settings: &Settings) -> Collected {
        let of = |part: &str, width: usize| {
            random(&format!("{name} {part}"), &[n, width]).to_dtype(candle_core::DType::F32).unwrap()
        };
        let (features, logits) = (of("features", 4), of("logits", 10));
        let spatial = of("spatial", crate::metrics::inception::SPATIAL);
        let needs = needs(measures, generated, Some(10), settings);
        let places = (0..n as u32).rev().collect();
        let mut collector = Collector::new(n, 4, needs).unwrap().at_places(places);
        for first in (0..n).step_by(7) {
            let some = |t: &Tensor| t.narrow(0, first, 7.min(n - first)).unwrap();
            let of = Features { features: some(&features), logits: Some(some(&logits)), spatial: Some(some(&spatial)) };
            collector.add(&of).unwrap();
        }
        collector.finish().unwrap()
    }

    #[test]
    fn each_measure_alone_gathers_what_it_needs_and_gives_what_all_give() {
        let settings = Settings { neighbours: 2, subsets: 3, size: 9, most: usize::MAX, bootstrap: 2, seed: 0 };
        let all: Vec<Measure> = METRICS
            .iter()
            .filter(|(_, m)| m.family == Family::Inception)
            .map(|(_, m)| m.measure)
            .chain([Measure::Cmmd])
            .collect();
        let sides = |measures: &[Measure]| {
            [("x", 40, false), ("y", 30, true)]
                .map(|(name, n, generated)| gathered(name, n, measures, generated, &settings))
        };
        let values = |[real, generated]: &[Collected; 2], measure: Measure| {
            let comparison = Comparison::new(Family::Inception, Some(real), generated, settings);
            let scores = comparison.scores(measure, &mut || ()).unwrap();
            scores.into_iter().map(|s| (s.name, s.value, s.std, s.error, s.real, s.generated)).collect::<Vec<_>>()
        };
        let together = sides(&all);
        for &measure in &all {
            let alone = values(&sides(&[measure]), measure);
            assert!(alone.iter().all(|(_, value, ..)| value.is_finite()), "{alone:?}");
            assert!(alone.iter().all(|(.., real, _)| real.is_none() == measure.is_of_one()));
            assert_eq!(alone, values(&together, measure));
        }
        // Nothing was gathered for another measure.
        let [real, generated] = sides(&[Measure::Fd]);
        let comparison = Comparison::new(Family::Inception, Some(&real), &generated, settings);
        assert!(comparison.scores(Measure::Kd, &mut || ()).unwrap_err().to_string().contains("gathered no features"));
    }

    #[test]
    fn infinity_takes_the_images_in_their_order() {
        let settings = Settings { neighbours: 2, subsets: 3, size: 9, most: usize::MAX, bootstrap: 0, seed: 0 };
        let [real, generated] =
            [("x", false), ("y", true)].map(|(name, side)| gathered(name, 60, &[Measure::FdInfinity], side, &settings));
        let got = Comparison::new(Family::Inception, Some(&real), &generated, settings)
            .scores(Measure::FdInfinity, &mut || ())
            .unwrap();
        // The last image has the first place.
        let features = generated.kept.unwrap().to_vec2::<f32>().unwrap();
        let reference = Reference::new(real.gaussian.as_ref().unwrap()).unwrap();
        let mut points = Points::new(60).unwrap();
        let mut seen = 0;
        for (part, due) in points.parts(60) {
            seen += part.len();
            if due {
                let rows: Vec<f32> = features.iter().rev().take(seen).flatten().copied().collect();
                let mut sums = FeatureSums::new(4).unwrap();
                sums.add(&Tensor::from_vec(rows, (seen, 4), &Device::Cpu).unwrap()).unwrap();
                points.take(reference.distance(&sums.finish().unwrap()).unwrap());
            }
        }
        let want = points.intercept().unwrap().value;
        assert!((got[0].value - want).abs() < 1e-9 * want.abs(), "{} is not {want}", got[0].value);
    }
}
