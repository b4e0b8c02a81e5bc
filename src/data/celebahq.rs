//! CelebA-HQ (Karras et al. 2018): 30,000 faces, from an LMDB environment or folder for each size (the released code's
//! layout), one folder of images, or the Parquet files of a Hugging Face repository. The last tenth is the test split: images
//! 27,001 to 30,000 where they have numbers.

use std::path::PathBuf;

use super::hub::{Kind, Repository, check_stored};
use super::locate::{Found, found, of_parquet, split_in};
use super::source::elsewhere;
use super::{ImagesOf, Split};
use crate::error::{Error, Result};

/// 28,000 and 2,000 images of 256×256 pixels; their order is the repository's own.
const REPOSITORY: Repository = Repository {
    repo: "korexyz/celeba-hq-256x256",
    kind: Kind::Dataset,
    revision: "42078a1fb27b6079eaab8cf453efd3d79a8b7bda",
};
const PARTS: [&str; 2] = ["data/train-", "data/validation-"];

pub(super) fn fetch() -> Result<Vec<PathBuf>> {
    REPOSITORY.fetch(&PARTS.map(str::to_owned))
}

/// Finds all images, those kept at `side` pixels first.
pub(super) fn locate(side: usize) -> Result<ImagesOf> {
    let (found, looked) = found("celebahq", &[&side.to_string()], &[]);
    match found {
        Some(Found::Named(path)) => return elsewhere(&path).map(ImagesOf::from),
        // Training files before validation files, as their names sort.
        Some(Found::Folder(folder)) => return split_in(&folder, Split::All, None),
        None => {}
    }
    let parts = PARTS.map(|part| REPOSITORY.cached(part));
    // What an interrupted download has left would be split elsewhere.
    if parts.iter().all(|files| !files.is_empty()) {
        let parts = parts.concat();
        let of = of_parquet(parts.clone(), None);
        return Ok(ImagesOf {
            open: Box::new(move || check_stored(&parts).and_then(|()| (of.open)())),
            files: of.files,
        });
    }
    Err(Error::invalid(format!(
        "celebahq is not on this machine (looked in {looked} and the Hugging Face cache); run `pgn-bench fetch celebahq`, or \
         set PGN_BENCH_DATA to a folder with celebahq/{side}/data.mdb, celebahq/{side}/*.jpg, celebahq/*.jpg or \
         celebahq/*.parquet"
    )))
}
