//! Collections of images that commands measure, and the passes of extractors over them. Everything that the arguments and the numbers of
//! images can show is checked before the first image is measured.

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Result, bail};
use clap::builder::RangedU64ValueParser;
use sha2::{Digest, Sha256};

use super::choice;
use super::progress::{bar, followed};
use super::setup::{Choice, Place, Transformers, Weights, remark_unused};
use super::terminal::remark;
use crate::data::source::arrays::Arrays;
use crate::data::source::{self, Named, Order};
use crate::files::hexadecimal;
use crate::metrics::collect::{Collected, Collector, Needs};
use crate::metrics::inception::resize::Resize;
use crate::metrics::scores::Family;
use crate::metrics::{BATCH, Extractor, npz, reference};

/// What every measure takes.
#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) weights: Weights,
    #[command(flatten)]
    pub(super) transformers: Transformers,
    #[command(flatten)]
    pub(super) place: Place,
    /// What gives the features, several after commas: inception, which is the default, dinov2 (that is dinov2-pil, dgm-eval's resize; also dinov2-float, EDM2's, and dinov2-tf,
    /// torch-fidelity's) or clip (CMMD's)
    #[arg(long, value_parser = choice(&Choice::ALL), value_delimiter = ',')]
    extractor: Vec<Choice>,
    /// How images are brought to Inception's 299×299 pixels [default: tf]
    #[arg(long, value_parser = choice(&Resize::ALL))]
    resize: Option<Resize>,
    /// Height and width of images that come as raw bytes over standard input (the collection `-`): 32 or 32x48, which makes 3·32·48 bytes an
    /// image, red, green, blue. A tar archive of image files needs none
    #[arg(long, value_name = "HEIGHTxWIDTH", value_parser = extents)]
    image_size: Option<[usize; 2]>,
    /// Only N images of each collection, the first of the order; statistics stay those of all
    #[arg(short, long, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
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
    /// SHA-256 of the pictures that a pass has seen, with their sizes.
    seen: OnceCell<String>,
}

impl Collection {
    /// SHA-256 of a data set's split, of other images that of those measured; empty where none was.
    pub(super) fn sha256(&self) -> String {
        match &self.images {
            Named::Split(images) => images.fingerprint().to_owned(),
            Named::Elsewhere(_) => self.seen.get().cloned().unwrap_or_default(),
        }
    }
}

/// An extractor, and what is wanted of it.
pub(super) type Wanted<'a> = (&'a dyn Extractor, Needs);

/// The name of what comes over standard input.
const STREAM: &str = "-";

/// A collection's name in messages and rows.
pub(super) fn shown(name: &OsStr) -> String {
    if name == STREAM { source::stream::NAME.to_owned() } else { name.to_string_lossy().into_owned() }
}

/// Height and width, or a side.
fn extents(text: &str) -> Result<[usize; 2], String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    match [height, width].map(str::parse) {
        [Ok(height @ 1..), Ok(width @ 1..)] => Ok([height, width]),
        _ => Err("expected HEIGHTxWIDTH, such as 32x48, or one number for both".to_owned()),
    }
}

/// The orders of statistics or images and of others compared with them, in words. Two orders are remarked.
pub(super) fn orders(real: Option<&str>, generated: Option<&str>) -> String {
    let [real, generated] = [real, generated].map(|order| order.unwrap_or("unknown"));
    if real == generated {
        return real.to_owned();
    }
    if ![real, generated].contains(&"unknown") {
        remark(format_args!(
            "one side counts images in the order {real}, the other in the order {generated}: they are alike only where all images were taken"
        ));
    }
    format!("{real} and {generated}")
}

/// Says that -n is for the side that is of images.
pub(super) fn remark_statistics(statistics: &str, images: &str) {
    remark(format_args!("-n takes images of {images} only: {statistics} is compared by its statistics"));
}

impl Options {
    /// Refuses to read standard input twice, and says that a size of its images has no effect where it is not read.
    pub(super) fn check_streams(&self, of: &[&OsStr]) -> Result<()> {
        match of.iter().filter(|name| **name == STREAM).count() {
            0 if self.image_size.is_some() => {
                remark("--image-size has no effect: no collection here is - (standard input)")
            }
            0 | 1 => {}
            _ => bail!("{STREAM} is standard input, which only one of the collections can be"),
        }
        Ok(())
    }

    /// What comes over standard input.
    fn streamed(&self) -> Result<Named> {
        if std::io::stdin().is_terminal() {
            bail!(
                "{STREAM} is standard input: pipe images into it, raw bytes with --image-size or a tar archive of image files"
            );
        }
        Ok(Named::Elsewhere(source::stream::read(std::io::stdin().lock(), self.image_size)?))
    }

    /// The extractors that were named, or Inception.
    pub(super) fn extractors(&self) -> &[Choice] {
        if self.extractor.is_empty() { &[Choice::Inception] } else { &self.extractor }
    }

    /// Those that were named and are of none of these families.
    pub(super) fn extractors_beside(&self, families: &[Family]) -> Vec<&'static str> {
        let unused = self.extractor.iter().filter(|choice| !families.contains(&choice.family()));
        unused.map(|choice| choice.name()).collect()
    }

    /// Says which options have no effect where only these extractors are asked for; `is_scored` where logits are too.
    pub(super) fn remark_unused(&self, families: &[Family], is_scored: bool) {
        remark_unused((&self.weights, &self.transformers), self.resize.is_some(), families, is_scored);
    }

    /// The one extractor of a measure.
    pub(super) fn only(&self) -> Result<Choice> {
        match *self.extractors() {
            [one] => Ok(one),
            _ => bail!("--extractor: one is taken here; `pgn-bench measure` takes several"),
        }
    }

    pub(super) fn open_extractor(&self, which: Choice) -> Result<Box<dyn Extractor>> {
        self.transformers.extractor(which, (&self.weights, self.resize.unwrap_or(Resize::Tf)), &self.place.open()?)
    }

    /// Opens a collection and checks that it has as many images as asked for, and as many as the measure needs.
    pub(super) fn open(&self, name: &OsStr, needed: usize) -> Result<Collection> {
        let path = Path::new(name);
        if npz::are_in(path) && Arrays::open(path).is_err() {
            bail!(
                "{} holds statistics, and images are wanted here: statistics stand for the real side of `measure`, and for either of `fid`",
                shown(name)
            );
        }
        let images = match name == STREAM {
            true => self.streamed()?,
            false => followed(&shown(name), "images decoded", |progress| Ok(source::open(name, progress)?))?,
        };
        let (name, len) = (shown(name), images.source().len());
        let n = self.n.unwrap_or(len);
        if n > len {
            bail!("{name} has {len} images, fewer than -n {n}");
        }
        if n < needed {
            bail!("{name}: at least {needed} images are needed, and there are {n} to measure");
        }
        Ok(Collection { name, images, n, seen: OnceCell::new() })
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
        let mut hash = matches!(of.images, Named::Elsewhere(_)).then(Sha256::new);
        for batch in source.batches(picks, BATCH) {
            let pictures = batch?;
            if let Some(hash) = &mut hash {
                for picture in &pictures {
                    picture.size.iter().for_each(|extent| hash.update((*extent as u64).to_le_bytes()));
                    hash.update(&picture.pixels);
                }
            }
            for ((extractor, _), collector) in wanted.iter().zip(&mut collectors) {
                collector.add(&extractor.extract(&pictures)?)?;
            }
            progress.inc(pictures.len() as u64);
        }
        progress.finish_and_clear();
        if let Some(hash) = hash {
            of.seen.get_or_init(|| hexadecimal(&hash.finalize()));
        }
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
