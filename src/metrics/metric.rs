//! Measures by name, and what each needs of a pass over images.

use serde::{Deserialize, Serialize};

use super::collect::{KEPT, Needs};
use super::inception_score::SPLITS;
use super::infinity::Points;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// Fréchet distance.
    Fd,
    /// Fréchet distance at infinitely many images.
    FdInfinity,
    /// Inception Score.
    Is,
    /// Inception Score at infinitely many images.
    IsInfinity,
    /// Kernel distance.
    Kd,
    /// Precision, recall, density, coverage.
    Manifold,
    /// Fréchet distance of spatial features.
    Sfid,
    /// Maximum mean discrepancy under a Gaussian kernel.
    Cmmd,
    /// Share of images that are no copies.
    AuthPct,
    /// Fréchet distance over the memorisation distance.
    MiFid,
    /// Sliced Wasserstein distance.
    Mind,
}

/// Extractors that measures are defined over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Inception, or what stands in for it where there are no weights.
    Inception,
    /// DINOv2.
    Dinov2,
    /// CLIP.
    Clip,
}

impl Family {
    /// That of an extractor of this name in result rows.
    pub fn of(extractor: &str) -> Self {
        match extractor.split_once('-').map_or(extractor, |(kind, _)| kind) {
            "dinov2" => Self::Dinov2,
            "clip" => Self::Clip,
            _ => Self::Inception,
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inception => "Inception",
            Self::Dinov2 => "DINOv2",
            Self::Clip => "CLIP",
        }
    }

    /// The name that a number such as `fd` or `precision` has over it.
    pub fn named(self, number: &str) -> String {
        match (self, number) {
            (Self::Inception, "fd") => "fid".to_owned(),
            (Self::Inception, "fd-inf") => "fid-inf".to_owned(),
            (Self::Inception, "kd") => "kid".to_owned(),
            (Self::Inception, name) | (Self::Clip, name @ "cmmd") => name.to_owned(),
            (Self::Dinov2, name) => format!("{name}-dinov2"),
            (Self::Clip, name) => format!("{name}-clip"),
        }
    }
}

/// A measure over an extractor. In files it is its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub struct Metric {
    /// The extractor.
    pub family: Family,
    /// The measure.
    pub measure: Measure,
}

const fn of(family: Family, measure: Measure) -> Metric {
    Metric { family, measure }
}

/// All of them by name, those of an extractor in the order in which they are shown.
pub const METRICS: [(&str, Metric); 18] = [
    ("fid", of(Family::Inception, Measure::Fd)),
    ("fid-inf", of(Family::Inception, Measure::FdInfinity)),
    ("sfid", of(Family::Inception, Measure::Sfid)),
    ("mifid", of(Family::Inception, Measure::MiFid)),
    ("is", of(Family::Inception, Measure::Is)),
    ("is-inf", of(Family::Inception, Measure::IsInfinity)),
    ("kid", of(Family::Inception, Measure::Kd)),
    ("pr", of(Family::Inception, Measure::Manifold)),
    ("authpct", of(Family::Inception, Measure::AuthPct)),
    ("mind", of(Family::Inception, Measure::Mind)),
    ("fd-dinov2", of(Family::Dinov2, Measure::Fd)),
    ("fd-inf-dinov2", of(Family::Dinov2, Measure::FdInfinity)),
    ("kd-dinov2", of(Family::Dinov2, Measure::Kd)),
    ("pr-dinov2", of(Family::Dinov2, Measure::Manifold)),
    ("authpct-dinov2", of(Family::Dinov2, Measure::AuthPct)),
    ("mind-dinov2", of(Family::Dinov2, Measure::Mind)),
    ("cmmd", of(Family::Clip, Measure::Cmmd)),
    ("fd-clip", of(Family::Clip, Measure::Fd)),
];

impl Metric {
    /// Fréchet Inception Distance.
    pub const FID: Self = of(Family::Inception, Measure::Fd);
    /// Inception Score.
    pub const IS: Self = of(Family::Inception, Measure::Is);

    /// Its name.
    pub fn name(self) -> &'static str {
        METRICS.iter().find(|(_, metric)| *metric == self).map_or("unknown", |(name, _)| name)
    }
}

impl From<Metric> for &'static str {
    fn from(metric: Metric) -> Self {
        metric.name()
    }
}

impl TryFrom<String> for Metric {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        let found = METRICS.iter().find(|(n, _)| *n == name);
        found.map(|(_, metric)| *metric).ok_or_else(|| format!("unknown metric {name}"))
    }
}

impl Measure {
    /// Whether it is of the generated images alone.
    pub fn is_of_one(self) -> bool {
        matches!(self, Self::Is | Self::IsInfinity)
    }

    /// Whether bootstrap replicates give it an interval.
    pub fn has_interval(self) -> bool {
        matches!(self, Self::Fd | Self::Kd)
    }

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
