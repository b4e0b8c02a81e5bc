//! Measures by name, and the extractors that they are over.

use serde::{Deserialize, Serialize};

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

/// Numbers of [`Measure::Manifold`].
pub const MANIFOLD: [&str; 4] = ["precision", "recall", "density", "coverage"];

impl Measure {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fd => "Fréchet distance",
            Self::FdInfinity => "FD∞",
            Self::Is => "Inception Score",
            Self::IsInfinity => "IS∞",
            Self::Kd => "KD",
            Self::Manifold => "precision, recall, density, coverage",
            Self::Sfid => "Fréchet distance of spatial features",
            Self::Cmmd => "CMMD",
            Self::AuthPct => "AuthPct",
            Self::MiFid => "MiFID",
            Self::Mind => "MIND",
        }
    }

    /// Whether it is of the generated images alone.
    pub fn is_of_one(self) -> bool {
        matches!(self, Self::Is | Self::IsInfinity)
    }

    /// Whether bootstrap replicates give it an interval.
    pub fn has_interval(self) -> bool {
        matches!(self, Self::Fd | Self::Kd)
    }
}
