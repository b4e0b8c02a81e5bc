//! A folder of image files; with sub-folders, each is a class.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Batches, Room, Source, decode, in_ranges};
use crate::data::name_of;
use crate::error::{AtPath, Error, Result};

const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Labels are bytes.
const MOST_CLASSES: usize = 256;

/// The files in order, classes one after the other.
pub struct Folder {
    files: Vec<(PathBuf, u8)>,
    classes: usize,
}

/// Sub-folders and image files of a folder. Files whose names are all numbers are in order of number, as in the released
/// code's tool; others, and folders, in order of name.
fn listed(folder: &Path) -> Result<[Vec<PathBuf>; 2]> {
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).at("read", folder)? {
        let path = entry.at("read", folder)?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
        if path.is_dir() {
            folders.push(path);
        } else if EXTENSIONS.contains(&extension.as_str()) {
            files.push(path);
        }
    }
    folders.sort();
    let number = |p: &PathBuf| p.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok());
    if files.iter().all(|p| number(p).is_some()) {
        files.sort_by_key(|p| (number(p), p.clone()));
    } else {
        files.sort();
    }
    Ok([folders, files])
}

impl Folder {
    /// Lists a folder.
    ///
    /// # Errors
    /// When it cannot be read, holds no image, or both images and folders of images.
    pub fn open(folder: &Path) -> Result<Self> {
        let [folders, files] = listed(folder)?;
        let mut classes = Vec::new();
        for folder in &folders {
            let [_, files] = listed(folder)?;
            if !files.is_empty() {
                classes.push(files);
            }
        }
        if !files.is_empty() && !classes.is_empty() {
            return Err(Error::content(folder, "holds both images and folders of images: which are meant?"));
        }
        if classes.len() > MOST_CLASSES {
            return Err(Error::content(folder, format!("has {} classes, more than {MOST_CLASSES}", classes.len())));
        }
        if files.is_empty() && classes.is_empty() {
            return Err(Error::content(folder, format!("holds no image ({})", EXTENSIONS.join(", "))));
        }
        let count = classes.len().max(1);
        let labelled = classes.into_iter().enumerate().flat_map(|(k, c)| c.into_iter().map(move |p| (p, k as u8)));
        Ok(Self { files: files.into_iter().map(|p| (p, 0)).chain(labelled).collect(), classes: count })
    }
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn describe(&self, index: usize) -> String {
        self.files.get(index).map_or_else(String::new, |(path, _)| name_of(path))
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(path, _)| path.clone()).collect()
    }

    fn batches(&self, size: usize) -> Batches<'_> {
        in_ranges(self.len(), size, |range| {
            let room = Room::default();
            self.files[range]
                .par_iter()
                .map(|(path, label)| {
                    let bytes = std::fs::read(path).at("read", path)?;
                    Ok((decode(&bytes, &room, &|m| Error::content(path, m))?, *label))
                })
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_numbers_and_folders_are_classes() {
        let root = std::env::temp_dir().join(format!("pgn-bench-folder-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let image = |path: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::new(2, 2).save(path).unwrap();
        };
        ["flat/10.png", "flat/9.png", "tree/b/x.png", "tree/a/y.png"].into_iter().for_each(image);
        let flat = Folder::open(&root.join("flat")).unwrap();
        assert!(flat.describe(0).ends_with("9.png") && flat.describe(1).ends_with("10.png"));
        let tree = Folder::open(&root.join("tree")).unwrap();
        assert_eq!((tree.classes(), tree.files.iter().map(|f| f.1).collect::<Vec<_>>()), (2, vec![0, 1]));
        image("tree/z.png");
        assert!(Folder::open(&root.join("tree")).err().unwrap().to_string().contains("both images and folders"));
        std::fs::create_dir_all(root.join("empty")).unwrap();
        assert!(Folder::open(&root.join("empty")).err().unwrap().to_string().contains("holds no image"));
        std::fs::write(root.join("flat/9.png"), b"not a png").unwrap();
        let error = flat.batches(10).next().unwrap().unwrap_err().to_string();
        assert!(error.contains("9.png: image cannot be decoded"), "{error}");
        std::fs::remove_dir_all(root).unwrap();
    }
}
