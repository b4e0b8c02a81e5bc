//! A tree of image files in a folder.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::decode::decode;
use super::room::Room;
use super::tree::{self, Tree};
use super::{Batches, Labels, Picture, Source, in_chunks};
use crate::data::name_of;
use crate::error::{AtPath, Error, Result};

/// Most bytes of an encoded image.
const LONGEST: u64 = 1 << 30;

/// Image files below a root, in order.
pub struct Folder {
    root: PathBuf,
    /// Folder of the root that the images are below.
    below: PathBuf,
    images: Vec<PathBuf>,
}

/// The files below a folder. Links to folders are followed, but never into a folder that they lie in.
///
/// # Errors
/// When a folder cannot be read, or an image is no file.
pub fn listed(root: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    let entered = BTreeSet::from([std::fs::canonicalize(root).at("find", root)?]);
    list(root, Path::new(""), &entered, &mut tree)?;
    Ok(tree)
}

fn list(root: &Path, below: &Path, entered: &BTreeSet<PathBuf>, tree: &mut Tree) -> Result<()> {
    let folder = root.join(below);
    for entry in std::fs::read_dir(&folder).at("read", &folder)? {
        let entry = entry.at("read", &folder)?;
        if tree::is_left_out(&entry.file_name()) {
            continue;
        }
        let (path, full) = (below.join(entry.file_name()), entry.path());
        let kind = entry.file_type().at("read", &full)?;
        let leads_to =
            if kind.is_symlink() { std::fs::metadata(&full).ok().map(|m| m.file_type()) } else { Some(kind) };
        if leads_to.is_some_and(|k| k.is_dir()) {
            if !kind.is_symlink() {
                list(root, &path, entered, tree)?;
                continue;
            }
            let target = std::fs::canonicalize(&full).at("find", &full)?;
            let circle = std::fs::canonicalize(&folder).at("find", &folder)?.starts_with(&target);
            let mut entered = entered.clone();
            if !circle && entered.insert(target) {
                list(root, &path, &entered, tree)?;
            }
        } else if leads_to.is_some_and(|k| k.is_file()) {
            tree.add(path, || File::open(&full).is_ok_and(tree::begins_image));
        } else if leads_to.is_none() {
            return Err(Error::content(
                full,
                "is a link that leads nowhere: take it out, or bring back what it leads to",
            ));
        } else if tree::is_image(&path) {
            return Err(Error::content(full, "has the name of an image, but is no file: take it out"));
        }
    }
    Ok(())
}

/// The bytes of an encoded image.
///
/// # Errors
/// When it cannot be read, is no file or too long.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let metadata: Metadata = std::fs::metadata(path).at("read", path)?;
    if !metadata.is_file() || metadata.len() > LONGEST {
        return Err(Error::content(path, format!("no image: expected a file of at most {LONGEST} bytes")));
    }
    std::fs::read(path).at("read", path)
}

impl Folder {
    /// Images by their paths `below` a folder of `root`.
    pub fn new(root: PathBuf, below: PathBuf, images: Vec<PathBuf>) -> Self {
        Self { root, below, images }
    }

    fn path(&self, image: &Path) -> PathBuf {
        self.root.join(&self.below).join(image)
    }

    /// The file that says labels, and where the images are below its folder.
    fn stated(&self) -> Option<(PathBuf, &Path)> {
        let mut places = tree::places_of_labels(&self.below).map(|(place, below)| (self.root.join(place), below));
        places.find(|(path, _)| path.is_file())
    }
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn labels(&self) -> Result<Option<Labels>> {
        match self.stated() {
            Some((path, below)) => tree::stated(&path, &std::fs::read(&path).at("read", &path)?, below, &self.images),
            None => tree::classes(&self.root.join(&self.below), &self.images),
        }
    }

    fn describe(&self, index: usize) -> String {
        self.images.get(index).map_or_else(String::new, |image| name_of(&self.path(image)))
    }

    fn files(&self) -> Vec<PathBuf> {
        let stated = self.stated().map(|(path, _)| path);
        self.images.iter().map(|image| self.path(image)).chain(stated).collect()
    }

    fn batches(&self, indices: Vec<usize>, size: usize) -> Batches<'_> {
        in_chunks(indices, size, |chunk| {
            let room = Room::default();
            let one = |&i: &usize| -> Result<Picture> {
                let path = self.path(&self.images[i]);
                decode(&read(&path)?, &room, &|m| Error::content(&path, m))
            };
            chunk.par_iter().map(one).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use crate::data::source::{all, elsewhere};

    #[test]
    fn links_are_followed_but_not_in_circles_and_what_is_no_file_is_refused() {
        let root = std::env::temp_dir().join(format!("pgn-bench-folder-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("set/a")).unwrap();
        std::fs::create_dir_all(root.join("far")).unwrap();
        image::RgbImage::new(2, 2).save(root.join("set/a/0.png")).unwrap();
        image::RgbImage::new(3, 3).save(root.join("far/1.png")).unwrap();
        symlink(root.join("far"), root.join("set/b")).unwrap();
        symlink(root.join("set"), root.join("set/a/again")).unwrap();
        symlink(root.join("far/1.png"), root.join("set/2.png")).unwrap();
        let source = elsewhere(&root.join("set")).unwrap();
        let sizes: Vec<usize> =
            source.batches(all(source.as_ref()), 2).flat_map(|b| b.unwrap()).map(|p| p.size[0]).collect();
        assert_eq!(sizes, [3, 2, 3], "2.png, a/0.png, b/1.png");

        symlink("nowhere", root.join("set/3.png")).unwrap();
        assert!(elsewhere(&root.join("set")).err().unwrap().to_string().contains("a link that leads nowhere"));
        std::fs::remove_file(root.join("set/3.png")).unwrap();
        std::fs::write(root.join("set/a/0.png"), b"not a png").unwrap();
        let error = source.batches(vec![1], 10).next().unwrap().unwrap_err().to_string();
        assert!(error.contains("0.png: image cannot be decoded"), "{error}");
        let _pipe = std::process::Command::new("mkfifo").arg(root.join("set/4.png")).status().unwrap();
        assert!(elsewhere(&root.join("set")).err().unwrap().to_string().contains("but is no file"));
        std::fs::remove_dir_all(root).unwrap();
    }
}
