//! Statistics of a split that generated images are compared with. They are taken once for each (data set, split, size,
//! number of images and which, of features kept, pixels, extractor, resize, version of this program) and kept in the user's cache.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::collect::{Collected, Collector, Needs};
use super::npz::{self, Protocol};
use super::{BATCH, Extractor};
use crate::data::Images;
use crate::data::source::Order;
use crate::error::{Error, Result};
use crate::files::{Turn, cache_folder};

/// The Gaussian of the first `n` images of a split, in an order, and the features of `keep` of them, from the cache if they are there.
/// `progress` hears of the images done.
///
/// # Errors
/// When the cache cannot be used, a file in it is damaged, or the extractor fails.
pub fn statistics(
    extractor: &dyn Extractor,
    images: &Images,
    (n, order): (usize, Order),
    keep: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Collected> {
    let keep = keep.min(n);
    let path = path(extractor, images, [n, keep], order)?;
    if let Some(kept) = kept(&path, keep)? {
        return Ok(kept);
    }
    let _turn = Turn::take(&path)?;
    if let Some(kept) = kept(&path, keep)? {
        return Ok(kept);
    }
    let mut collector = Collector::new(n, extractor.dim(), Needs { gaussian: true, classes: None, keep })?;
    let mut done = 0;
    for part in order.first(n, images.len()).chunks(BATCH) {
        let pixels: Vec<u8> = part.iter().flat_map(|&i| images.image(i)).copied().collect();
        let dims = (part.len(), images.side, images.side, 3);
        collector.add(&extractor.extract_bytes(&Tensor::from_vec(pixels, dims, &Device::Cpu)?)?)?;
        done += dims.0;
        progress(done);
    }
    let collected = collector.finish()?;
    if let Some(gaussian) = &collected.gaussian {
        npz::write(&path, gaussian, None, collected.kept.as_ref(), &Protocol::of(extractor, order))?;
    }
    Ok(collected)
}

/// What the cache has, if it holds as many features.
fn kept(path: &Path, keep: usize) -> Result<Option<Collected>> {
    if !path.is_file() {
        return Ok(None);
    }
    let npz::Statistics { gaussian, features: kept, .. } =
        npz::read(path).map_err(|e| Error::invalid(format!("{e}; remove it, and it will be made again")))?;
    let enough = keep == 0 || kept.as_ref().is_some_and(|k| k.dims()[0] == keep);
    Ok(enough.then(|| Collected { gaussian: Some(gaussian), inception: None, kept: kept.filter(|_| keep > 0) }))
}

fn path(extractor: &dyn Extractor, images: &Images, [n, keep]: [usize; 2], order: Order) -> Result<PathBuf> {
    // All images are the same ones in any order.
    let which = if n < images.len() { format!("{n}-{}", order.id()) } else { n.to_string() };
    Ok(cache_folder()?.join("statistics").join(format!(
        "{}-{}px-{which}-{keep}-{}-{}-{}-{}-v{}.npz",
        images.name.replace(':', "-"),
        images.side,
        &images.fingerprint()[..12],
        extractor.id(),
        &extractor.weights_sha256()[..12],
        extractor.resize(),
        env!("CARGO_PKG_VERSION"),
    )))
}
