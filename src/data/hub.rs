//! Files of the Hugging Face Hub at a pinned revision, checked against a pinned SHA-256.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use crate::error::{AtPath, Error, Result};

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

impl Pinned {
    fn repo(&self) -> Repo {
        let kind = match self.kind {
            Kind::Dataset => RepoType::Dataset,
            Kind::Model => RepoType::Model,
        };
        Repo::with_revision(self.repo.to_owned(), kind, self.revision.to_owned())
    }

    /// The file in the user's cache, wherever it was downloaded by this or another tool.
    pub fn cached(&self) -> Option<PathBuf> {
        let cache = Cache::from_env();
        let commit = cache.path().join(self.repo().folder_name()).join("snapshots").join(self.revision).join(self.file);
        if commit.is_file() { Some(commit) } else { cache.repo(self.repo()).get(self.file) }
    }

    /// The file, downloaded unless it is in the cache. Its SHA-256 is checked either way.
    ///
    /// # Errors
    /// When the network is off (`HF_HUB_OFFLINE`) or fails, or the file is not the pinned one.
    pub fn fetch(&self) -> Result<PathBuf> {
        let path = match self.cached() {
            Some(path) => path,
            None => self.download()?,
        };
        let found = file_sha256(&path)?;
        if found != self.sha256 {
            // A file that fails the check must not be found again under its final name.
            let blob = std::fs::canonicalize(&path).at("resolve", &path)?;
            std::fs::remove_file(&path).at("remove", &path)?;
            if blob != path {
                std::fs::remove_file(&blob).at("remove", &blob)?;
            }
            return Err(Error::content(
                path,
                format!("sha256 is {found}, expected {}; the file was removed, fetch it again", self.sha256),
            ));
        }
        Ok(path)
    }

    fn download(&self) -> Result<PathBuf> {
        let what = format!("{} of {} at {}", self.file, self.repo, self.revision);
        if std::env::var("HF_HUB_OFFLINE").is_ok_and(|v| !["", "0", "false"].contains(&v.to_lowercase().as_str())) {
            return Err(Error::invalid(format!("{what} is not in the cache and HF_HUB_OFFLINE is set")));
        }
        let mut builder = ApiBuilder::from_env().with_retries(3);
        if let Ok(token) = std::env::var("HF_TOKEN") {
            builder = builder.with_token(Some(token));
        }
        builder.build().and_then(|api| api.repo(self.repo()).download(self.file)).map_err(|e| {
            Error::invalid(format!("cannot download {what}: {e}; check the network, or HF_ENDPOINT for a mirror"))
        })
    }
}

/// Lower-case hexadecimal SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn file_sha256(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).at("open", path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).at("read", path)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
