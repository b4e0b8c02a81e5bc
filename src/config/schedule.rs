//! Settings that may move while a run trains.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// A setting: a number, or half a cosine from one to another over the images that the critic has seen.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Schedule {
    /// The same all the time.
    Constant(f64),
    /// `to + (from − to)·(1 + cos(π·seen/images))/2`, and `to` from then on.
    Cosine {
        /// Value of the first step.
        from: f64,
        /// Value of the last.
        to: f64,
        /// Real images seen until then.
        images: f64,
    },
}

impl From<f64> for Schedule {
    fn from(value: f64) -> Self {
        Self::Constant(value)
    }
}

impl Schedule {
    /// Its value after `seen` images.
    pub fn at(self, seen: u64) -> f64 {
        match self {
            Self::Constant(value) => value,
            Self::Cosine { from, to, images } => {
                let share = (seen as f64 / images).min(1.0);
                to + (from - to) * 0.5 * (1.0 + (PI * share).cos())
            }
        }
    }

    /// Every value between.
    pub fn ends(self) -> [f64; 2] {
        match self {
            Self::Constant(value) => [value; 2],
            Self::Cosine { from, to, .. } => [from, to],
        }
    }
}

/// How the generator's moving average forgets.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Average {
    /// By this factor a step.
    Decay(f64),
    /// By half over so many images that the critic sees.
    HalfLife {
        /// How many.
        half_life: Schedule,
    },
}

impl Average {
    /// The factor of a step of `images` images after `seen` of them.
    pub fn decay(self, seen: u64, images: u64) -> f64 {
        match self {
            Self::Decay(decay) => decay,
            Self::HalfLife { half_life } => 0.5f64.powf(images as f64 / half_life.at(seen).max(f64::MIN_POSITIVE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_half_a_cosine_and_a_number_is_written_as_one() {
        let s: Schedule = serde_json::from_str(r#"{"from": 0.05, "to": 0.005, "images": 2e7}"#).unwrap();
        // Of numpy: to + (from - to) * 0.5 * (1 + cos(pi * seen / images)).
        for (seen, want) in
            [(0, 0.05), (5_000_000, 0.043_409_902_576_697_32), (10_000_000, 0.0275), (30_000_000, 0.005)]
        {
            assert!((s.at(seen) - want).abs() < 1e-15, "{seen}: {}", s.at(seen));
        }
        assert_eq!(serde_json::to_string(&Schedule::from(2e-4)).unwrap(), "0.0002");
        assert_eq!(serde_json::to_string(&Average::Decay(0.99)).unwrap(), "0.99");
        let average: Average = serde_json::from_str(r#"{"half_life": {"from": 0, "to": 256, "images": 512}}"#).unwrap();
        assert_eq!([average.decay(0, 64), average.decay(512, 256)], [0.0, 0.5]);
    }
}
