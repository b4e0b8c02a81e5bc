//! The vocabulary of experiments. Each key is declared once: the structure that it ends up in, the reader, the JSON schema and the
//! reference page are made of the one declaration.

use serde::{Deserialize, Serialize};

use super::kind::{Choice, Forgetting, Integer, List, Moving, Name, Named, Number, Optional, Source, Text, WithFid};
use super::reader::{Absent, Key, Otherwise, Section};
use super::schedule::{Average, Schedule};
use crate::data::{Dataset, Split};
use crate::generators::Mode;
use crate::losses::Loss;
use crate::methods;
use crate::metrics::inception::resize::Resize;
use crate::metrics::scores::Metric;

/// Extractors by name.
pub const EXTRACTORS: [(&str, ExtractorKind); 2] =
    [("classifier", ExtractorKind::Classifier), ("inception", ExtractorKind::Inception)];
/// Generators by name.
pub const WEIGHTS: [(&str, Weights); 2] = [("raw", Weights::Raw), ("ema", Weights::Ema)];
/// Statistics of batch normalisation while evaluating, by name.
pub const MODES: [(&str, Mode); 2] = [("batch", Mode::Batch), ("running", Mode::Running)];

const LOSSES: [(&str, Loss); 4] = [
    ("hinge", Loss::Hinge),
    ("bce", Loss::Bce),
    ("wasserstein", Loss::Wasserstein),
    ("relativistic", Loss::Relativistic),
];
const DECAYS: [(&str, LrDecay); 2] = [("none", LrDecay::None), ("linear", LrDecay::Linear)];
/// Sides of images in pixels.
pub(super) const SIDES: Integer = Integer(8, 1024);

/// How learning rates move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrDecay {
    /// Not at all.
    None,
    /// Linearly to zero over the run.
    Linear,
}

/// Which generator is evaluated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// The trained one.
    Raw,
    /// The moving average.
    Ema,
}

impl Weights {
    /// The name in result rows.
    pub fn id(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ema => "ema",
        }
    }
}

/// Which network gives the features.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtractorKind {
    /// The small one trained on the data set's own labels: needs no file, compares with nothing published.
    Classifier,
    /// Inception-v3, from the weights that `run` is given or that `fetch inception` left.
    Inception,
}

/// A structure, the table of its keys, and the reader that follows it. After a key's type stands the kind of its values, then what
/// holds where it is not given.
macro_rules! keys {
    ($(#[$meta:meta])* $name:ident, $table:ident {
        $($(#[doc = $doc:literal])+ $(#[serde($($serde:tt)*)])? $field:ident: $type:ty = $kind:expr, $otherwise:expr;)*
    }) => {
        $(#[$meta])*
        pub struct $name { $($(#[doc = $doc])+ $(#[serde($($serde)*)])? pub $field: $type,)* }

        pub(super) const $table: &[Key] = &[$(
            Key { name: stringify!($field), doc: concat!($($doc),+), kind: &$kind, otherwise: $otherwise },
        )*];

        impl $name {
            /// The values of a section; nothing, and faults, where one is not allowed.
            pub(super) fn read(section: &Section, absent: Absent) -> Option<Self> {
                $(let $field = section.setting::<$type>(stringify!($field), &$kind, $otherwise, absent);)*
                Some(Self { $($field: $field?),* })
            }
        }
    };
}

keys! {
    /// What an experiment is about.
    #[derive(Clone, Debug, Default)]
    Head, HEAD {
        /// Name: of the folder of results, and in every row.
        name: Option<String> = Optional(Name), Otherwise::Needed;
        /// What it reproduces or asks, in words.
        title: Option<String> = Optional(Text), Otherwise::Nothing;
        /// Data set: one that is known by name, or `{path: …}` of your own images.
        dataset: Option<Dataset> = Optional(Source), Otherwise::Needed;
        /// Split that is trained on.
        split: Option<Split> = Optional(Choice(&Split::ALL)), Otherwise::Yaml("train");
        /// Side of the images in pixels, which the architectures' names end with.
        image_size: Option<usize> = Optional(SIDES), Otherwise::Needed;
    }
}

keys! {
    /// Which cells there are, beside the architectures.
    #[derive(Clone, Debug)]
    Selection, SELECTION {
        /// Methods to compare.
        methods: Vec<String> = List(Named(methods::ids)), Otherwise::Needed;
        /// Seeds, of each of which there is a run; a difference takes three to be judged.
        seeds: Vec<u64> = List(Integer(0, u64::MAX)), Otherwise::Needed;
    }
}

keys! {
    /// Settings of training.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    Train, TRAIN {
        /// Generator updates.
        steps: u64 = Integer(1, u64::MAX), Otherwise::Needed;
        /// Critic updates before each generator update (n_dis).
        critic_steps: u64 = Integer(1, 100), Otherwise::Needed;
        /// Real images of a critic update; as many generated ones are added.
        critic_batch: usize = Integer(1, 65_536), Otherwise::Needed;
        /// Images of a generator update.
        generator_batch: usize = Integer(2, 65_536), Otherwise::Needed;
        /// Learning rate of the critic.
        critic_lr: Schedule = Moving(1e-9, 1.0), Otherwise::Needed;
        /// Learning rate of the generator.
        generator_lr: Schedule = Moving(1e-9, 1.0), Otherwise::Needed;
        /// Adam's β₁.
        beta1: f64 = Number(0.0, 0.999_999), Otherwise::Needed;
        /// Adam's β₂.
        beta2: Schedule = Moving(0.0, 0.999_999), Otherwise::Needed;
        /// What both learning rates are multiplied by, schedules too: `none` is 1, `linear` falls from 1 to 0 over the run's steps.
        lr_decay: LrDecay = Choice(&DECAYS), Otherwise::Needed;
        /// Decay of the generator's moving average a step, or the images in which it forgets half.
        ema_decay: Average = Forgetting, Otherwise::Needed;
        /// Step from which the average moves; before, it is a copy.
        ema_start: u64 = Integer(0, u64::MAX), Otherwise::Needed;
        /// Multiplier of all channels; 1 is the paper's.
        width: f64 = Number(1e-3, 8.0), Otherwise::Needed;
        /// Loss, unless the method's source defines its own (wgan, gp1: wasserstein).
        loss: Loss = Choice(&LOSSES), Otherwise::Needed;
        /// γ of the penalties R1 and R2, which methods without them (all but r1, r1r2 and `…+r1r2`) have no use for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gamma: Option<Schedule> = Optional(Moving(0.0, 1e6)), Otherwise::Nothing;
        /// Probability of each augmentation of what the critic sees; not for gp0, gp1 and `…+cr`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        augment: Option<Schedule> = Optional(Moving(0.0, 1.0)), Otherwise::Nothing;
    }
}

keys! {
    /// Settings of evaluation.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    Eval, EVAL {
        /// Steps between evaluations.
        every: u64 = Integer(1, u64::MAX), Otherwise::Needed;
        /// Generated images.
        images: usize = Integer(100, 10_000_000), Otherwise::Needed;
        /// Split that distances refer to.
        reference: Split = Choice(&Split::ALL), Otherwise::Needed;
        /// Statistics that batch normalisation uses: of the batch, or the running ones of training.
        batch_norm: Mode = Choice(&MODES), Otherwise::Needed;
        /// Which generators are evaluated: as trained, or their moving average; the first one ranks.
        weights: Vec<Weights> = List(Choice(&WEIGHTS)), Otherwise::Needed;
        /// Images generated at a time, which matters where batch statistics are used.
        batch: usize = Integer(2, 65_536), Otherwise::Train("generator_batch");
        /// Network that gives the features: a small one trained on the data set's labels, or Inception-v3.
        extractor: ExtractorKind = Choice(&EXTRACTORS), Otherwise::Needed;
        /// How images come to Inception's input size: as the original FID, pytorch-fid (torch) or clean-fid does.
        resize: Resize = Choice(&Resize::ALL), Otherwise::Yaml("tf");
        /// What is measured.
        metrics: Vec<Metric> = WithFid, Otherwise::Yaml("[fid, is]");
    }
}
