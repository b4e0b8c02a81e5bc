//! Where files of data sets are looked for: `$PGN_BENCH_DATA/ID`, then `data/ID` in the user's cache; what other tools leave
//! beside such a folder also there.

use std::path::{Path, PathBuf};

use super::ImagesOf;
use super::source::folder::listed;
use super::source::parquet::Parquet;
use super::source::{held, tree};
use super::{Split, name_of};
use crate::error::Result;
use crate::files::cache_folder;

/// What was found of a data set.
pub(super) enum Found {
    /// One of the names that were looked for.
    Named(PathBuf),
    /// A folder of anything else.
    Folder(PathBuf),
}

/// What there is of the data set `id` in its folder, under one of `names` or any other, or under a name `beside` the folder; and where
/// it was looked for, for messages.
pub(super) fn found(id: &str, names: &[&str], beside: &[&str]) -> (Option<Found>, String) {
    let set = std::env::var_os("PGN_BENCH_DATA").map(PathBuf::from);
    let roots: Vec<PathBuf> = set.into_iter().chain(cache_folder().ok().map(|folder| folder.join("data"))).collect();
    let in_root = |root: &PathBuf| {
        let folder = root.join(id);
        let mut named = names.iter().map(|name| folder.join(name)).chain(beside.iter().map(|name| root.join(name)));
        match named.find(|path| path.exists()) {
            Some(path) => Some(Found::Named(path)),
            None => is_used(&folder).then_some(Found::Folder(folder)),
        }
    };
    let looked: Vec<String> = roots.iter().map(|root| name_of(&root.join(id))).collect();
    (roots.iter().find_map(in_root), looked.join(", "))
}

fn is_used(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| !tree::is_left_out(&entry.file_name()))
}

/// A split in a folder: of Parquet files as the Hub lays them out, whose labels are of so many `classes`, or of anything else that
/// is read.
pub(super) fn split_in(folder: &Path, split: Split, classes: Option<usize>) -> Result<ImagesOf> {
    match listed(folder)?.holds(folder)? {
        tree::Holds::Tables(tables) => {
            let files: Vec<PathBuf> = tree::part(folder, tables, split)?.iter().map(|t| folder.join(t)).collect();
            Ok(of_parquet(files, classes))
        }
        others => held(folder, others, split).map(ImagesOf::from),
    }
}

/// Parquet files, opened when they are wanted.
pub(super) fn of_parquet(files: Vec<PathBuf>, classes: Option<usize>) -> ImagesOf {
    ImagesOf { files: files.clone(), open: Box::new(move || Ok(Box::new(Parquet::open(files, classes)?))) }
}
