//! Files that are either whole or absent: written under a temporary name, synced, renamed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::Digest;

use crate::error::{AtPath, Error, Result};

/// A writer that is alive has written within this time.
const ABANDONED: Duration = Duration::from_secs(600);

/// Writes `path` through `write`: a reader never sees half of it, and a crash leaves the old content.
///
/// # Errors
/// When the folder cannot be written, or `write` fails.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    // Two processes that write the same file do not meet before the last of them renames its own.
    remove_abandoned(path);
    let (temporary, mut file) = temporary(path)?;
    let written = write(&mut file)
        .and_then(|()| file.sync_all().at("sync", &temporary))
        .and_then(|()| std::fs::rename(&temporary, path).at("rename into place", path));
    if let Err(error) = written {
        // What could not be written whole is not worth keeping; the first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(folder).and_then(|f| f.sync_all()).at("sync", folder)?;
    }
    Ok(())
}

/// The file beside `path` that is to become it, empty.
fn temporary(path: &Path) -> Result<(PathBuf, File)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!("{name}.{}.tmp", std::process::id()));
    // What has that name is of a process that is gone, or a link to something else.
    let _ = std::fs::remove_file(&temporary);
    let file = File::create_new(&temporary).at("create", &temporary)?;
    Ok((temporary, file))
}

/// Checks a name for an output before the work that fills it starts: it has the extension that its readers go by, where they go by
/// one, it is not the name of a folder or device, and its folder takes files.
///
/// # Errors
/// When [`write_atomic`] could not write there, or should not.
pub fn check_output(path: &Path, extension: Option<&str>) -> Result<()> {
    refuse_stream(path)?;
    if let Some(wanted) = extension
        && !has_extension(path, wanted)
    {
        return Err(Error::content(path, format!("the output is a .{wanted} file: give it a name that ends so")));
    }
    // Whatever is there would be replaced, a device of /dev too.
    if path.file_name().is_none() || names_folder(path) || path.metadata().is_ok_and(|m| !m.is_file()) {
        return Err(Error::content(path, "the output is a file, and this is the name of something else"));
    }
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
        return Err(Error::content(path, format!("there is no folder {}: create it first", folder.display())));
    }
    let (temporary, _) = temporary(path)?;
    std::fs::remove_file(&temporary).at("remove", &temporary)
}

/// Refuses the name that other programs take for standard output.
fn refuse_stream(path: &Path) -> Result<()> {
    if path == Path::new("-") {
        return Err(Error::content(path, "results are not written to standard output: name a file or folder"));
    }
    Ok(())
}

/// The first eight characters of a hash.
pub fn short(hash: &str) -> String {
    hash.chars().take(8).collect()
}

/// The same of an extractor's weights, and of a last layer that is added to them.
pub fn short_weights(sha256: &str) -> String {
    sha256.split('+').map(short).collect::<Vec<_>>().join("…+")
}

/// How the file begins that stands in the place of a large one in a repository that keeps it elsewhere.
const POINTER: &[u8] = b"version https://git-lfs";

/// Refuses a file of Git LFS that only names the one that is wanted.
///
/// # Errors
/// When it is one.
pub fn refuse_pointer(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(POINTER.len() as u64).read_to_end(&mut start));
    if read.is_ok() && start == POINTER {
        let what = "is a pointer of Git LFS, not the file itself: `git lfs pull` in its repository brings that";
        return Err(Error::content(path, what));
    }
    Ok(())
}

/// Whether a path has this extension, in small letters or capitals.
pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

/// Whether a path ends in a slash, which only folders do.
pub fn names_folder(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// The file that a temporary one was to become.
fn destination(temporary: &Path) -> Option<&str> {
    let (name, process) = temporary.file_name()?.to_str()?.strip_suffix(".tmp")?.rsplit_once('.')?;
    (!process.is_empty() && process.bytes().all(|b| b.is_ascii_digit())).then_some(name)
}

/// Removes what killed writers left below a folder in which the caller alone writes.
///
/// # Errors
/// When a folder cannot be read.
pub fn remove_temporaries(folder: &Path) -> Result<()> {
    for path in walk(folder, |path| destination(path).is_some())? {
        // What cannot be removed is left: it is in nobody's way.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Removes what killed writers of a file left: nobody has written to it for a while.
fn remove_abandoned(path: &Path) {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = entry.metadata().ok().and_then(|m| m.modified().ok()?.elapsed().ok());
        let ours = destination(&entry.path()).is_some_and(|name| path.file_name().is_some_and(|own| own == name));
        if ours && age.is_some_and(|age| age > ABANDONED) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// [`write_atomic`] of bytes.
///
/// # Errors
/// As for [`write_atomic`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |file| file.write_all(bytes).at("write", path))
}

/// A turn at making or changing a file that several processes want: one has it, the others wait.
#[derive(Debug)]
pub struct Turn {
    path: PathBuf,
    _file: File,
}

impl Turn {
    /// Waits until no other process has a turn at `path`, whose folder is created if it is not there. Look once more whether the
    /// file is there before you make it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn take(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            create_folder(folder)?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        loop {
            let file = File::options().append(true).create(true).open(&path).at("create", &path)?;
            match file.lock() {
                // On a file system without locks each process makes its own; the last stays.
                Err(e) if e.kind() == std::io::ErrorKind::Unsupported => return Ok(Self { path, _file: file }),
                Err(e) => return Err(e).at("lock", &path),
                Ok(()) => {}
            }
            // Who had the turn before has removed the file: others may wait at a new one.
            let of = |data: std::io::Result<std::fs::Metadata>| data.map(|data| (data.dev(), data.ino())).ok();
            if of(file.metadata()) == of(path.metadata()) {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Those who wait have it open. A lock that stays is in nobody's way.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Creates a folder and its parents.
///
/// # Errors
/// When it cannot be created.
pub fn create_folder(path: &Path) -> Result<()> {
    refuse_stream(path)?;
    std::fs::create_dir_all(path).at("create folder", path)
}

/// Checks a name for a new folder before the work that fills it starts: nothing is there, or an empty folder.
///
/// # Errors
/// When [`write_folder`] would not write there.
pub fn check_folder(path: &Path) -> Result<()> {
    refuse_stream(path)?;
    if path.file_name().is_none() {
        return Err(Error::content(path, "the output is a new folder: give it a name"));
    }
    let is_empty = || std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if path.symlink_metadata().is_ok() && !is_empty() {
        return Err(Error::content(path, "is there already: name a new folder"));
    }
    Ok(())
}

/// Fills a folder through `write` under another name, then gives it its own: nobody sees half of it.
///
/// # Errors
/// When something but an empty folder has its name, it cannot be written, or `write` fails.
pub fn write_folder(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!("{name}.part"));
    let _turn = Turn::take(&part)?;
    check_folder(path)?;
    if part.exists() {
        std::fs::remove_dir_all(&part).at("empty", &part)?;
    }
    create_folder(&part)?;
    if let Err(e) = write(&part) {
        let _ = std::fs::remove_dir_all(&part);
        return Err(e);
    }
    std::fs::rename(&part, path).at("rename into place", path)
}

/// The files of these names below a folder, in order of path.
///
/// # Errors
/// When a folder cannot be read.
pub fn named(folder: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    walk(folder, |path| path.file_name().is_some_and(|n| names.iter().any(|name| n == *name)) && path.is_file())
}

/// The wanted of all that is below a folder and no folder itself, in order of path. Links to folders are not followed: they may
/// lead in circles.
///
/// # Errors
/// When a folder cannot be read.
pub fn walk(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).at("read", &folder)? {
            let entry = entry.at("read", &folder)?;
            let path = entry.path();
            if entry.file_type().at("read", &path)?.is_dir() {
                open.push(path);
            } else if wanted(&path) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Where files are kept that can be made again: `PGN_BENCH_CACHE`, or `pgn-bench` in the user's cache.
///
/// # Errors
/// When neither that variable nor `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache_folder() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("PGN_BENCH_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("pgn-bench")))
        .or_else(|| set("HOME").map(|p| p.join(".cache/pgn-bench")))
        .ok_or_else(|| Error::invalid("no folder for caches: set PGN_BENCH_CACHE"))
}

/// Lower-case hexadecimal of a digest.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Lower-case hexadecimal SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&sha2::Sha256::digest(bytes))
}

/// Lower-case hexadecimal digest of a file.
///
/// # Errors
/// When it cannot be read.
pub fn file_digest<D: Digest>(path: &Path) -> Result<String> {
    let mut file = File::open(path).at("open", path)?;
    let mut hash = D::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).at("read", path)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_checked_and_nothing_is_left_of_those_that_fail() {
        let folder = std::env::temp_dir().join(format!("pgn-bench-outputs-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("taken.npz")).unwrap();
        check_output(&folder.join("new.NPZ"), Some("npz")).unwrap();
        std::fs::write(folder.join("old.npz"), "kept").unwrap();
        check_output(&folder.join("old.npz"), Some("npz")).unwrap();
        for (name, expected) in [
            ("new.txt", "is a .npz file"),
            ("new", "is a .npz file"),
            ("taken.npz", "the name of something else"),
            ("new.npz/", "the name of something else"),
            ("nowhere/new.npz", "create it first"),
        ] {
            let error = check_output(&folder.join(name), Some("npz")).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
        assert!(check_output(Path::new("/dev/null"), None).is_err(), "it would be replaced");
        assert!(check_output(Path::new(""), None).is_err());
        for refused in [check_output(Path::new("-"), None), check_folder(Path::new("-"))] {
            assert!(refused.unwrap_err().to_string().contains("name a file or folder"));
        }
        assert!(write_bytes(&folder.join("taken.npz"), b"text").is_err());
        let left = walk(&folder, |_| true).unwrap();
        assert_eq!((left.len(), std::fs::read(&left[0]).unwrap()), (1, b"kept".into()));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn links_are_neither_followed_nor_written_through() {
        let folder = std::env::temp_dir().join(format!("pgn-bench-files-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("run")).unwrap();
        let at = |name: &str| folder.join("run").join(name);
        std::fs::write(at("rows"), "").unwrap();
        for name in ["a", "b"] {
            std::os::unix::fs::symlink(".", at(name)).unwrap();
        }
        assert_eq!(named(&folder, &["rows"]).unwrap(), [at("rows")]);

        std::fs::write(at("victim"), "kept").unwrap();
        std::os::unix::fs::symlink(at("victim"), at(&format!("new.{}.tmp", std::process::id()))).unwrap();
        write_bytes(&at("new"), b"text").unwrap();
        assert_eq!(
            (std::fs::read(at("new")).unwrap(), std::fs::read(at("victim")).unwrap()),
            (b"text".into(), b"kept".into())
        );

        let old = std::time::SystemTime::now() - 2 * ABANDONED;
        for name in ["new.17.tmp", "new.notes.tmp", "new..tmp"] {
            File::create(at(name)).unwrap().set_modified(old).unwrap();
        }
        write_bytes(&at("new"), b"text").unwrap();
        let left = || ["new.17.tmp", "new.notes.tmp", "new..tmp"].map(|name| at(name).exists());
        assert_eq!(left(), [false, true, true]);
        File::create(at("new.17.tmp")).unwrap();
        write_bytes(&at("new"), b"text").unwrap();
        assert_eq!(left(), [true, true, true]);
        remove_temporaries(&folder).unwrap();
        assert_eq!(left(), [false, true, true]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
