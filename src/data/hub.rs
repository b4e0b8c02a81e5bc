//! Files of the Hugging Face Hub at a pinned revision, checked against a pinned SHA-256.

use std::path::{Component, Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use sha2::Sha256;

use crate::error::{AtPath, Error, Result};
use crate::files::file_digest;
use crate::guard::caught;

/// A repository at a revision.
#[derive(Clone, Copy, Debug)]
pub struct Repository {
    /// `owner/name`.
    pub repo: &'static str,
    /// Kind of the repository.
    pub kind: Kind,
    /// Commit, or a branch.
    pub revision: &'static str,
}

/// One file at one revision.
#[derive(Clone, Copy, Debug)]
pub struct Pinned {
    /// Repository, `owner/name`.
    pub repo: &'static str,
    /// Kind of the repository.
    pub kind: Kind,
    /// Commit, or a branch where only the SHA-256 pins the content.
    pub revision: &'static str,
    /// Path in the repository.
    pub file: &'static str,
    /// SHA-256 of the file.
    pub sha256: &'static str,
}

/// Kind of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A data set.
    Dataset,
    /// A model.
    Model,
}

/// Whether the network is off, by the words that huggingface_hub takes for yes.
fn offline() -> bool {
    std::env::var("HF_HUB_OFFLINE").is_ok_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()))
}

/// Removes a file that fails its check, which must not be found again under its final name.
fn refuse(path: &Path, found: &str, expected: &str) -> Error {
    let blob = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    for path in [path, &blob] {
        if let Err(e) = std::fs::remove_file(path)
            && path.exists()
        {
            return Error::content(path, format!("sha256 is {found}, expected {expected}; remove the file ({e})"));
        }
    }
    Error::content(path, format!("sha256 is {found}, expected {expected}; the file was removed, fetch it again"))
}

/// Checks the content of a file.
fn check(path: &Path, expected: &str) -> Result<()> {
    let found = file_digest::<Sha256>(path)?;
    if found == expected { Ok(()) } else { Err(refuse(path, &found, expected)) }
}

/// Checks the content of cached files against the SHA-256 that the Hub stores each under, which is its name in the cache.
///
/// # Errors
/// When one is damaged, or nothing says what its SHA-256 should be.
pub fn check_stored(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let stored = std::fs::canonicalize(path).at("resolve", path)?;
        let expected = stored.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if expected.len() != 64 || !expected.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::content(
                path,
                "cannot be checked: the cache does not keep it under its SHA-256; remove it and fetch it again, from the Hub itself",
            ));
        }
        check(path, &expected.to_lowercase())?;
    }
    Ok(())
}

/// `…-of-00004.parquet`: four.
fn parts(path: &Path) -> Option<usize> {
    let name = path.file_name()?.to_str()?;
    let digits: String = name.split_once("-of-")?.1.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

impl Repository {
    fn handle(&self) -> Repo {
        let kind = match self.kind {
            Kind::Dataset => RepoType::Dataset,
            Kind::Model => RepoType::Model,
        };
        Repo::with_revision(self.repo.to_owned(), kind, self.revision.to_owned())
    }

    /// Where the cache keeps the files of the revision.
    fn snapshot(&self) -> PathBuf {
        let folder = Cache::from_env().path().join(self.handle().folder_name());
        // A branch is a file that names its commit.
        let commit = std::fs::read_to_string(folder.join("refs").join(self.revision));
        folder.join("snapshots").join(commit.as_deref().map_or(self.revision, str::trim))
    }

    /// The files of a set such as `data/train-`, in order, when all of them are in the user's cache; else none.
    pub fn cached(&self, prefix: &str) -> Vec<PathBuf> {
        let (folder, start) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let entries = std::fs::read_dir(self.snapshot().join(folder)).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(start)))
            .collect();
        files.sort();
        if files.iter().all(|path| parts(path) == Some(files.len())) { files } else { Vec::new() }
    }

    /// Downloads the sets that start with these prefixes, unless they are in the cache. The content of each file must have
    /// the SHA-256 that the Hub stores it under.
    ///
    /// # Errors
    /// When the network is off or fails, a set is not there, or a file is damaged.
    pub fn fetch(&self, prefixes: &[String]) -> Result<Vec<PathBuf>> {
        let what = format!("{} at {}", self.repo, self.revision);
        let mut files = Vec::new();
        for prefix in prefixes {
            if self.cached(prefix).is_empty() {
                let info = self.api(&what, |api| api.info())?;
                let wanted = info.siblings.iter().filter(|file| file.rfilename.starts_with(prefix.as_str()));
                for file in wanted {
                    if !Path::new(&file.rfilename).components().all(|part| matches!(part, Component::Normal(_))) {
                        return Err(Error::invalid(format!("{what} lists {:?}, no path inside it", file.rfilename)));
                    }
                    self.api(&file.rfilename, |api| api.download(&file.rfilename))?;
                }
            }
            let cached = self.cached(prefix);
            if cached.is_empty() {
                return Err(Error::invalid(format!("{what} has no whole set of files {prefix}…")));
            }
            check_stored(&cached)?;
            files.extend(cached);
        }
        Ok(files)
    }

    fn api<T>(&self, what: &str, call: impl FnOnce(ApiRepo) -> Result<T, ApiError>) -> Result<T> {
        let what = format!("{what} of {} at {}", self.repo, self.revision);
        if offline() {
            return Err(Error::invalid(format!("{what} is not in the cache and HF_HUB_OFFLINE is set")));
        }
        // The repositories are public. A token, also one that the client finds by itself, would follow a redirect to any host.
        let builder = ApiBuilder::from_env().with_token(None).with_retries(3);
        // The client panics on some answers.
        let answer = caught(|| builder.build().and_then(|api| call(api.repo(self.handle()))));
        answer.and_then(|answer| answer.map_err(|e| e.to_string())).map_err(|e| {
            Error::invalid(format!("cannot download {what}: {e}; check the network, or HF_ENDPOINT for a mirror"))
        })
    }
}

impl Pinned {
    fn repository(&self) -> Repository {
        Repository { repo: self.repo, kind: self.kind, revision: self.revision }
    }

    /// The file in the user's cache, wherever it was downloaded by this or another tool.
    pub fn cached(&self) -> Option<PathBuf> {
        Some(self.repository().snapshot().join(self.file)).filter(|path| path.is_file())
    }

    /// The file, downloaded unless it is in the cache. Its SHA-256 is checked either way.
    ///
    /// # Errors
    /// When the network is off (`HF_HUB_OFFLINE`) or fails, or the file is not the pinned one.
    pub fn fetch(&self) -> Result<PathBuf> {
        let path = match self.cached() {
            Some(path) => path,
            None => self.repository().api(self.file, |api| api.download(self.file))?,
        };
        self.check(&path)?;
        Ok(path)
    }

    /// Checks the content of what [`Pinned::cached`] found.
    ///
    /// # Errors
    /// When it is not the pinned file.
    pub fn check(&self, path: &Path) -> Result<()> {
        check(path, self.sha256)
    }
}
