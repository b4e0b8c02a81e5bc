//! Where files of data sets are looked for: `$PGN_BENCH_DATA/ID`, then `data/ID` in the user's cache.

use std::path::{Path, PathBuf};

use crate::files::cache_folder;

/// What was found, and where it was looked for.
pub(super) struct Candidates {
    /// The first that exists.
    pub found: Option<PathBuf>,
    /// For messages.
    pub looked: String,
}

/// The first of `names` in a folder of the data set `id`; an empty name is the folder itself.
pub(super) fn candidates(id: &str, names: &[&str]) -> Candidates {
    let set = std::env::var_os("PGN_BENCH_DATA").map(|folder| Path::new(&folder).join(id));
    let folders: Vec<PathBuf> =
        set.into_iter().chain(cache_folder().ok().map(|folder| folder.join("data").join(id))).collect();
    let all = folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    let looked: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    Candidates { found: all.into_iter().find(|path| path.exists()), looked: looked.join(", ") }
}
