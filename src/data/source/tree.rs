//! What counts in a tree of files, stated once for folders and archives (docs/data.md says it to users): which files are images,
//! which names are left out, what order they have, which folders are splits and which are classes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::{Labels, lmdb};
use crate::data::{Split, name_of};
use crate::error::{Error, Result};

/// Extensions of images that are read.
pub const IMAGES: [&str; 14] =
    ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"];
/// Extensions of images that are not.
const UNREAD: [&str; 32] = [
    "avif", "avifs", "heic", "heif", "hif", "jxl", "jxr", "jp2", "j2k", "jpc", "jpx", "psd", "tga", "exr", "hdr",
    "svg", "svgz", "pcx", "dng", "ico", "icns", "cur", "sgi", "ras", "xbm", "pam", "pfm", "qoi", "dds", "dcm", "cr2",
    "nef",
];
const TABLE: &str = "parquet";
/// Left out beside names with a leading dot.
const LEFT_OUT: [&str; 2] = ["__MACOSX", "@eaDir"];
/// Folders that a message counts files of.
const SHOWN: usize = 5;

/// The file that says the labels of StyleGAN's data sets.
const LABELS: &str = "dataset.json";

/// Files of a collection by their paths below its root.
#[derive(Default)]
pub struct Tree {
    images: Vec<PathBuf>,
    tables: Vec<PathBuf>,
    environments: Vec<PathBuf>,
    /// Files that are none of these, by extension and folder.
    unread: BTreeMap<(String, PathBuf), usize>,
    other: BTreeMap<(String, PathBuf), usize>,
}

/// What a collection is made of.
#[derive(Debug, PartialEq)]
pub enum Holds {
    /// Image files, in order.
    Images(Vec<PathBuf>),
    /// Parquet files, in order.
    Tables(Vec<PathBuf>),
    /// Folders of LMDB environments.
    Environments(Vec<PathBuf>),
}

/// Lower-case extension of a path.
pub fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Whether what has this name is left out, with all that is below it.
pub fn is_left_out(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || LEFT_OUT.iter().any(|n| name == *n)
}

/// Whether a file of this name is expected to be an image.
pub fn is_image(path: &Path) -> bool {
    IMAGES.contains(&extension(path).as_str())
}

/// Whether a file begins as an image, whatever its name: of a format whose beginning no text has.
pub fn begins_image(file: impl Read) -> bool {
    let mut head = Vec::new();
    if file.take(12).read_to_end(&mut head).is_err() {
        return false;
    }
    let webp = head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP");
    let beginnings: [&[u8]; 5] = [b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*"];
    webp || beginnings.iter().any(|beginning| head.starts_with(beginning))
}

fn counts(of: &BTreeMap<(String, PathBuf), usize>) -> String {
    let one = |((extension, folder), n): (&(String, PathBuf), &usize)| {
        let kind = if extension.is_empty() { "without extension".to_owned() } else { format!(".{extension}") };
        let place = if folder.as_os_str().is_empty() { String::new() } else { format!(" in {}", name_of(folder)) };
        format!("{n} {kind}{place}")
    };
    let mut shown: Vec<String> = of.iter().take(SHOWN).map(one).collect();
    if of.len() > SHOWN {
        shown.push(format!("{} more in other folders", of.values().skip(SHOWN).sum::<usize>()));
    }
    shown.join(", ")
}

impl Tree {
    /// Takes a file in; `is_image` looks into one whose name says nothing.
    pub fn add(&mut self, path: PathBuf, is_image: impl FnOnce() -> bool) {
        if path.components().any(|part| matches!(part, Component::Normal(name) if is_left_out(name))) {
            return;
        }
        let kind = extension(&path);
        let parent = path.parent().unwrap_or(Path::new("")).to_path_buf();
        if IMAGES.contains(&kind.as_str()) {
            self.images.push(path);
        } else if kind == TABLE {
            self.tables.push(path);
        } else if path.file_name().is_some_and(|name| name == lmdb::FILE) {
            self.environments.push(parent);
        } else {
            let unread = UNREAD.contains(&kind.as_str()) || is_image();
            let others = if unread { &mut self.unread } else { &mut self.other };
            *others.entry((kind, parent)).or_default() += 1;
        }
    }

    /// What the files below `root` are: all of one kind.
    ///
    /// # Errors
    /// When there is no image, or some would be left out.
    pub fn holds(mut self, root: &Path) -> Result<Holds> {
        let kinds = [
            (self.images.len(), "images"),
            (self.tables.len(), "Parquet files"),
            (self.environments.len(), "LMDB environments"),
        ];
        let there: Vec<String> = kinds.iter().filter(|k| k.0 > 0).map(|(n, kind)| format!("{n} {kind}")).collect();
        if there.len() > 1 {
            return Err(Error::content(root, format!("holds {}: name the one that is meant", there.join(" and "))));
        }
        if !self.unread.is_empty() {
            let known = format!("images of formats or names that are not read ({})", counts(&self.unread));
            let beside = there.first().map(|some| format!("{some} and ")).unwrap_or_default();
            return Err(Error::content(
                root,
                format!(
                    "holds {beside}{known}: convert or rename those, or take them out; read are {}",
                    IMAGES.join(", ")
                ),
            ));
        }
        self.tables.sort();
        self.environments.sort();
        match there.is_empty() {
            true if self.other.is_empty() => {
                Err(Error::content(root, format!("holds no image ({})", IMAGES.join(", "))))
            }
            true => Err(Error::content(
                root,
                format!("holds no image ({}), but {}", IMAGES.join(", "), counts(&self.other)),
            )),
            false if !self.images.is_empty() => Ok(Holds::Images(ordered(self.images))),
            false if !self.tables.is_empty() => Ok(Holds::Tables(self.tables)),
            false => Ok(Holds::Environments(self.environments)),
        }
    }
}

/// Folder by folder, a folder's own files before those below it. Files whose names are all numbers are in order of number, as in
/// the released code's tool; others, and folders, in order of name.
fn ordered(images: Vec<PathBuf>) -> Vec<PathBuf> {
    let number = |p: &PathBuf| p.file_stem().and_then(OsStr::to_str).and_then(|s| s.parse::<u64>().ok());
    let mut folders: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in images {
        folders.entry(path.parent().unwrap_or(Path::new("")).to_path_buf()).or_default().push(path);
    }
    for files in folders.values_mut() {
        files.sort();
        if files.iter().all(|p| number(p).is_some()) {
            files.sort_by_key(number);
        }
    }
    folders.into_values().flatten().collect()
}

/// The first folder of a path, if there is one.
fn first_folder(path: &Path) -> Option<&OsStr> {
    let mut parts = path.iter();
    parts.next().filter(|_| parts.next().is_some())
}

/// The split that a path says it is of: by its first folder, or for a Parquet file or environment (`anywhere`) by a word of its name
/// or of any folder, as the Hub lays out data sets (`data/train-00000-of-00002.parquet`, `default/train/0000.parquet`).
fn split_of(path: &Path, anywhere: bool) -> Option<Split> {
    if !anywhere {
        return Split::named(&first_folder(path)?.to_string_lossy());
    }
    path.iter().rev().find_map(|part| {
        let part = part.to_string_lossy();
        let mut found: BTreeSet<Split> = part.split(['-', '.', '_']).filter_map(Split::named).collect();
        found.pop_first().filter(|_| found.is_empty())
    })
}

/// The folder that all paths are below, where it holds nothing else and is no split: what one packs is often a folder.
fn lone_folder(paths: &[PathBuf]) -> PathBuf {
    let mut below = PathBuf::new();
    while let Some(first) = paths.first().and_then(|p| first_folder(p.strip_prefix(&below).ok()?)) {
        let next = below.join(first);
        if Split::named(&first.to_string_lossy()).is_some() || !paths.iter().all(|p| p.starts_with(&next)) {
            break;
        }
        below = next;
    }
    below
}

/// The paths of a split, which is all of them where none says what it is of. A name of a split among other folders is that of a
/// class.
fn of_split(root: &Path, paths: Vec<PathBuf>, split: Split, anywhere: bool) -> Result<(Vec<PathBuf>, bool)> {
    let found: BTreeSet<Split> = paths.iter().filter_map(|p| split_of(p, anywhere)).collect();
    let outside = paths.iter().find(|p| split_of(p, anywhere).is_none());
    let names = || found.iter().map(Split::to_string).collect::<Vec<_>>().join(", ");
    if split == Split::All {
        return Ok((paths, false));
    }
    match outside {
        Some(other) if !found.is_empty() && (anywhere || found.iter().any(|split| *split != Split::Train)) => {
            let which = format!("holds splits ({}) and beside them {}", names(), name_of(other));
            Err(Error::content(root, format!("{which}: name the split's own folder or file, or take the other out")))
        }
        Some(_) if split == Split::Train => Ok((paths, false)),
        Some(_) => {
            let what = format!("has no {split} split: that takes a folder or files of this name in it");
            Err(Error::content(root, what))
        }
        None if found.contains(&split) => {
            Ok((paths.into_iter().filter(|p| split_of(p, anywhere) == Some(split)).collect(), true))
        }
        None => Err(Error::content(root, format!("has no {split} split, only {}", names()))),
    }
}

/// Parquet files or environments of a split.
///
/// # Errors
/// When there is none, or what is meant is unclear.
pub fn part(root: &Path, paths: Vec<PathBuf>, split: Split) -> Result<Vec<PathBuf>> {
    let (paths, named) = of_split(root, paths, split, true)?;
    let folders: BTreeSet<&Path> = paths.iter().filter(|_| named).filter_map(|p| p.parent()).collect();
    if folders.len() > 1 {
        let folders: Vec<String> = folders.into_iter().map(name_of).collect();
        let which = format!("has a {split} split in each of {}: name the folder that is meant", folders.join(", "));
        return Err(Error::content(root, which));
    }
    Ok(paths)
}

/// Images of a split: the folder that they are below, and their paths below that.
///
/// # Errors
/// As for [`part`].
pub fn images_of(root: &Path, paths: Vec<PathBuf>, split: Split) -> Result<(PathBuf, Vec<PathBuf>)> {
    let lone = lone_folder(&paths);
    let paths = paths.iter().filter_map(|p| p.strip_prefix(&lone).ok()).map(Path::to_path_buf).collect();
    let (paths, in_folders) = of_split(&root.join(&lone), paths, split, false)?;
    let folders = paths.iter().filter(|_| in_folders).filter_map(|p| first_folder(p)).map(PathBuf::from);
    let mut folders = folders.collect::<BTreeSet<_>>().into_iter();
    match (folders.next(), folders.next()) {
        (None, _) => Ok((lone, paths)),
        (Some(one), None) => {
            let below = paths.iter().filter_map(|p| p.strip_prefix(&one).ok()).map(Path::to_path_buf).collect();
            Ok((lone.join(one), below))
        }
        (Some(one), Some(other)) => {
            let which = format!("holds both {} and {}", name_of(&one), name_of(&other));
            Err(Error::content(root, format!("{which}, which are names of one split: take one out")))
        }
    }
}

/// The classes of images: each folder that is below the root is one, in order of name.
///
/// # Errors
/// When some images are in folders and some are not, or there are too many.
pub fn classes(root: &Path, images: &[PathBuf]) -> Result<Option<Labels>> {
    let folders: Vec<Option<&OsStr>> = images.iter().map(|p| first_folder(p)).collect();
    if folders.iter().all(Option::is_none) {
        return Ok(None);
    }
    let Some(folders) = folders.into_iter().collect::<Option<Vec<_>>>() else {
        return Err(Error::content(root, "holds both images and folders of images: classes are a folder each"));
    };
    let names: BTreeSet<&OsStr> = folders.iter().copied().collect();
    let numbers: BTreeMap<&OsStr, usize> = names.into_iter().enumerate().map(|(k, name)| (name, k)).collect();
    Labels::new(folders.iter().map(|name| numbers[name] as u64), numbers.len(), &|m| Error::content(root, m)).map(Some)
}

/// Where [`LABELS`] may be that says the classes of images below a folder, in it or above it; and the folder from there.
pub fn places_of_labels(below: &Path) -> impl Iterator<Item = (PathBuf, &Path)> {
    below.ancestors().map(|folder| (folder.join(LABELS), below.strip_prefix(folder).unwrap_or(below)))
}

/// The classes that [`LABELS`] gives images, `{"labels": [["00000/img00000000.png", 6], …]}`; none where it gives none. Images are
/// `below` a folder of those that it names.
///
/// # Errors
/// When it is damaged, or leaves an image out.
pub fn stated(path: &Path, json: &[u8], below: &Path, images: &[PathBuf]) -> Result<Option<Labels>> {
    #[derive(serde::Deserialize)]
    struct Stated {
        labels: Option<Vec<(String, u64)>>,
    }
    let stated: Stated = serde_json::from_slice(json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json))
        .map_err(|e| Error::content(path, format!("not labels as [[\"name\", class], …] under `labels`: {e}")))?;
    let Some(stated) = stated.labels else { return Ok(None) };
    let classes = stated.iter().map(|(_, class)| class.saturating_add(1)).max().unwrap_or(1);
    let number = stated.len();
    let stated: BTreeMap<PathBuf, u64> = stated.into_iter().map(|(name, class)| (PathBuf::from(name), class)).collect();
    if stated.len() != number {
        return Err(Error::content(path, format!("has {} names twice", number - stated.len())));
    }
    let found = images.iter().map(|image| {
        let missing = || Error::content(path, format!("has no label for {}", name_of(image)));
        stated.get(&below.join(image)).copied().ok_or_else(missing)
    });
    let found = found.collect::<Result<Vec<u64>>>()?;
    Labels::new(found, usize::try_from(classes).unwrap_or(usize::MAX), &|m| Error::content(path, m)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(of: &[&str]) -> Vec<PathBuf> {
        of.iter().map(PathBuf::from).collect()
    }

    fn holds(of: &[&str]) -> Result<Holds> {
        let mut tree = Tree::default();
        paths(of).into_iter().for_each(|p| tree.add(p, || false));
        tree.holds(Path::new("set"))
    }

    fn said<T: std::fmt::Debug>(of: Result<T>) -> String {
        of.unwrap_err().to_string()
    }

    #[test]
    fn all_images_of_a_tree_count_and_hidden_names_do_not() {
        let of = [
            "b/x.PNG",
            "10.png",
            "9.png",
            "a/more/3.webp",
            "a/0.jpeg",
            "notes.txt",
            "._9.png",
            "a/.ipynb_checkpoints/0.png",
        ];
        let of = [&of[..], &["__MACOSX/9.png", ".cache/1.parquet"]].concat();
        let want = ["9.png", "10.png", "a/0.jpeg", "a/more/3.webp", "b/x.PNG"];
        assert_eq!(holds(&of).unwrap(), Holds::Images(paths(&want)));
        assert_eq!(holds(&["b.parquet", "a/b.PARQUET"]).unwrap(), Holds::Tables(paths(&["a/b.PARQUET", "b.parquet"])));
        assert_eq!(holds(&["128/data.mdb", "128/lock.mdb"]).unwrap(), Holds::Environments(paths(&["128"])));
    }

    #[test]
    fn what_would_be_left_out_is_refused_by_extension_and_folder() {
        let refused = said(holds(&["0.png", "1.avif", "a/2.avif", "a/3.avif", "a/4.heic"]));
        assert!(
            refused.contains(
                "holds 1 images and images of formats or names that are not read (1 .avif, 2 .avif in a, 1 .heic in a)"
            ),
            "{refused}"
        );
        assert!(said(holds(&["0.png", "a.parquet"])).contains("holds 1 images and 1 Parquet files: name the one"));
        assert!(said(holds(&["a/0.txt", "README"])).contains("but 1 without extension, 1 .txt in a"));
        assert!(said(holds(&[".0.png"])).contains("holds no image (png, "));
    }

    #[test]
    fn names_of_splits_are_splits_unless_they_are_classes() {
        let root = Path::new("set");
        let of = |of: &[&str], split| images_of(root, paths(of), split);
        let both = ["train/a/0.png", "train/b/1.png", "val/a/2.png"];
        let want = (PathBuf::from("train"), paths(&["a/0.png", "b/1.png"]));
        assert_eq!(of(&both, Split::Train).unwrap(), want);
        assert_eq!(of(&both, Split::Validation).unwrap().1, paths(&["a/2.png"]));
        assert_eq!(of(&both, Split::All).unwrap().1.len(), 3);
        assert!(said(of(&both, Split::Test)).contains("has no test split, only train, validation"));
        let classes = ["car/0.png", "train/0.png"];
        assert_eq!(of(&classes, Split::Train).unwrap().1.len(), 2);
        assert!(said(of(&classes, Split::Test)).contains("has no test split"));
        assert!(said(of(&["training/0.png", "test/0.png"], Split::Train)).contains("beside them training/0.png"));
        let packed = ["ds/train/a/0.png", "ds/train/b/1.png", "ds/test/a/2.png"];
        assert_eq!(of(&packed, Split::Train).unwrap(), (PathBuf::from("ds/train"), paths(&["a/0.png", "b/1.png"])));
        assert_eq!(of(&packed[..2], Split::All).unwrap().0, PathBuf::from("ds"));
        assert!(said(of(&["train/0.png", "test/0.png", "0.png"], Split::Train)).contains("beside them 0.png"));
        assert!(said(of(&["val/0.png", "valid/0.png"], Split::Validation)).contains("names of one split"));

        let hub =
            paths(&["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test.parquet"]);
        assert_eq!(part(root, hub.clone(), Split::Train).unwrap(), hub[..2]);
        assert_eq!(part(root, hub.clone(), Split::Test).unwrap(), hub[2..]);
        assert_eq!(part(root, paths(&["default/validation/0000.parquet"]), Split::Validation).unwrap().len(), 1);
        let configurations = paths(&["a/train-0.parquet", "b/train-0.parquet"]);
        assert!(said(part(root, configurations, Split::Train)).contains("in each of a, b"));
        assert_eq!(part(root, paths(&["set-train.parquet", "set-test.parquet"]), Split::Test).unwrap().len(), 1);
        assert_eq!(part(root, paths(&["a.parquet", "b.parquet"]), Split::Train).unwrap().len(), 2);
        assert!(
            said(part(root, paths(&["train.parquet", "b.parquet"]), Split::Train)).contains("beside them b.parquet")
        );
    }

    #[test]
    fn classes_are_folders_or_what_stylegans_file_says() {
        let root = Path::new("set");
        let images = paths(&["a/0.png", "a/more/1.png", "b/0.png"]);
        let labels = classes(root, &images).unwrap().unwrap();
        assert_eq!((labels.of, labels.classes), (vec![0, 0, 1], 2));
        assert!(classes(root, &paths(&["0.png"])).unwrap().is_none());
        assert!(said(classes(root, &paths(&["0.png", "a/0.png"]))).contains("both images and folders"));
        let json = br#"{"labels": [["b/0.png", 6], ["a/0.png", 0], ["a/more/1.png", 2]]}"#;
        let labels = stated(root, json, Path::new(""), &images).unwrap().unwrap();
        assert_eq!((labels.of, labels.classes), (vec![0, 2, 6], 7));
        assert!(stated(root, br#"{"labels": null}"#, Path::new(""), &images).unwrap().is_none());
        assert!(
            said(stated(root, br#"{"labels": [["b/0.png", 6]]}"#, Path::new(""), &images))
                .contains("has no label for a/0.png")
        );
        assert!(
            said(stated(root, br#"{"labels": [["a", 6], ["a", 1]]}"#, Path::new(""), &images))
                .contains("has 1 names twice")
        );
        assert!(said(stated(root, b"[", Path::new(""), &images)).contains("not labels as"));
    }
}
