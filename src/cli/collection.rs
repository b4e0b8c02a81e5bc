//! Collections of images that commands measure, and the passes of extractors over them. Everything that the arguments and the numbers of
//! images can show is checked before the first image is measured.

use std::ffi::OsStr;

use anyhow::{Result, bail};

use super::choice;
use super::progress::{bar, followed};
use super::setup::{Choice, Place, Transformers, Weights};
use crate::data::source::{self, Named, Order};
use crate::metrics::collect::{Collected, Collector, Needs};
use crate::metrics::inception::resize::Resize;
use crate::metrics::{BATCH, Extractor, reference};

/// What every measure takes.
#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) weights: Weights,
    #[command(flatten)]
    pub(super) transformers: Transformers,
    #[command(flatten)]
    pub(super) place: Place,
    /// What gives the features, several after commas: inception, dinov2 (that is dinov2-pil, dgm-eval's resize; also dinov2-float, EDM2's, and dinov2-tf,
    /// torch-fidelity's) or clip (CMMD's)
    #[arg(long, value_parser = choice(&Choice::ALL), value_delimiter = ',', default_value = "inception")]
    pub(super) extractor: Vec<Choice>,
    /// How images are brought to Inception's 299×299 pixels
    #[arg(long, value_parser = choice(&Resize::ALL), default_value = "tf")]
    pub(super) resize: Resize,
    /// Only N images of each collection: the first of the order
    #[arg(short, long)]
    pub(super) n: Option<usize>,
    /// Which images -n takes and how they are cut into splits: spread over the collection, or as they lie in it (as the official
    /// tools do)
    #[arg(long, value_parser = choice(&Order::ALL), default_value = "spread")]
    pub(super) order: Order,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Images to measure, opened before any work starts.
pub(super) struct Collection {
    pub(super) name: String,
    images: Named,
    pub(super) n: usize,
}

/// An extractor, and what is wanted of it.
pub(super) type Wanted<'a> = (&'a dyn Extractor, Needs);

pub(super) fn shown(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

impl Options {
    /// The one extractor of a measure.
    pub(super) fn only(&self) -> Result<Choice> {
        match self.extractor[..] {
            [one] => Ok(one),
            _ => bail!("--extractor: one is taken here; `pgn-bench measure` takes several"),
        }
    }

    pub(super) fn open_extractor(&self, which: Choice) -> Result<Box<dyn Extractor>> {
        self.transformers.extractor(which, (&self.weights, self.resize), &self.place.open()?)
    }

    /// Opens a collection and checks that it has as many images as asked for, and as many as the measure needs.
    pub(super) fn open(&self, name: &OsStr, needed: usize) -> Result<Collection> {
        let images = followed(&shown(name), "images decoded", |progress| Ok(source::open(name, progress)?))?;
        let (name, len) = (shown(name), images.source().len());
        let n = self.n.unwrap_or(len);
        if n > len {
            bail!("{name} has {len} images, fewer than -n {n}");
        }
        if n < needed {
            bail!("{name}: at least {needed} images are needed, and there are {n} to measure");
        }
        Ok(Collection { name, images, n })
    }

    /// One pass over a collection: each image is decoded once, for all extractors.
    pub(super) fn pass(&self, of: &Collection, wanted: &[Wanted]) -> Result<Vec<Collected>> {
        let progress = bar(&of.name, of.n as u64, "images");
        let source = of.images.source();
        let (ranks, picks) = (self.order.ranks(source.len()), self.order.first(of.n, source.len()));
        let places: Vec<u32> = picks.iter().map(|&i| ranks[i]).collect();
        let collector =
            |&(extractor, needs): &Wanted| Ok(Collector::new(of.n, extractor.dim(), needs)?.at_places(places.clone()));
        let mut collectors = wanted.iter().map(collector).collect::<Result<Vec<_>>>()?;
        for batch in source.batches(picks, BATCH) {
            let pictures = batch?;
            for ((extractor, _), collector) in wanted.iter().zip(&mut collectors) {
                collector.add(&extractor.extract(&pictures)?)?;
            }
            progress.inc(pictures.len() as u64);
        }
        progress.finish_and_clear();
        Ok(collectors.into_iter().map(Collector::finish).collect::<crate::error::Result<_>>()?)
    }

    /// As [`Options::pass`] of one extractor; means and covariances of a data set's split alone come from the cache.
    pub(super) fn collect(&self, of: &Collection, (extractor, needs): Wanted) -> Result<Collected> {
        let gaussian = Needs { gaussian: true, ..Needs::default() };
        if let Named::Split(images) = &of.images
            && needs == gaussian
        {
            let progress = bar(&of.name, of.n as u64, "images");
            let done = &mut |done| progress.set_position(done as u64);
            let taken = reference::statistics(extractor, images, (of.n, self.order), needs, done)?;
            progress.finish_and_clear();
            return Ok(taken);
        }
        match self.pass(of, &[(extractor, needs)])?.pop() {
            Some(collected) => Ok(collected),
            None => bail!("{} gave nothing", of.name),
        }
    }
}
