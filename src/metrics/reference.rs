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
    needs: Needs,
    progress: &mut dyn FnMut(usize),
) -> Result<Collected> {
    let needs = Needs { gaussian: true, keep: needs.keep.min(n), ..needs };
    let path = path(extractor, images, (n, order), needs)?;
    if let Some(kept) = kept(&path, needs)? {
        return Ok(kept);
    }
    let _turn = Turn::take(&path)?;
    if let Some(kept) = kept(&path, needs)? {
        return Ok(kept);
    }
    let mut collector = Collector::new(n, extractor.dim(), needs)?;
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
        let spatial = collected.spatial.as_ref();
        npz::write(&path, gaussian, spatial, collected.kept.as_ref(), &Protocol::of(extractor, order))?;
    }
    Ok(collected)
}

/// What the cache has, if it holds all that is needed.
fn kept(path: &Path, needs: Needs) -> Result<Option<Collected>> {
    if !path.is_file() {
        return Ok(None);
    }
    let damaged = |e| Error::invalid(format!("{e}; remove it, and it will be made again"));
    let npz::Statistics { gaussian, features: kept, .. } = npz::read(path).map_err(damaged)?;
    let spatial = if needs.spatial { npz::read_spatial(path).map_err(damaged)? } else { None };
    let enough = needs.keep == 0 || kept.as_ref().is_some_and(|k| k.dims()[0] == needs.keep);
    let enough = enough && spatial.is_some() == needs.spatial;
    Ok(enough.then(|| Collected {
        images: gaussian.n,
        gaussian: Some(gaussian),
        spatial,
        kept: kept.filter(|_| needs.keep > 0),
        ..Collected::default()
    }))
}

fn path(extractor: &dyn Extractor, images: &Images, (n, order): (usize, Order), needs: Needs) -> Result<PathBuf> {
    // All images are the same ones in any order.
    let which = if n < images.len() { format!("{n}-{}", order.id()) } else { n.to_string() };
    Ok(cache_folder()?.join("statistics").join(format!(
        "{}-{}px-{which}-{}{}-{}-{}-{}-{}-v{}.npz",
        images.name.replace(':', "-"),
        images.side,
        needs.keep,
        if needs.spatial { "-spatial" } else { "" },
        &images.fingerprint()[..12],
        extractor.id(),
        &extractor.weights_sha256()[..12],
        extractor.resize(),
        env!("CARGO_PKG_VERSION"),
    )))
}
