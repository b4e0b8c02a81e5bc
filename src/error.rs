//! The errors of the library: whole sentences that say what is wrong, where, and what to do.

use std::path::{Path, PathBuf};

/// Anything that can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried, as a verb ("read", "write").
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's word.
        cause: std::io::Error,
    },
    /// A file's content is not what it should be.
    #[error("{}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        message: String,
    },
    /// Faults of a configuration, all at once.
    #[error("{file}: {} fault{}\n{}", faults.len(), if faults.len() == 1 { "" } else { "s" }, faults.join("\n"))]
    Config {
        /// The configuration's name.
        file: String,
        /// One line each: path, value, what is allowed.
        faults: Vec<String>,
    },
    /// A request that cannot be served as it stands.
    #[error("{0}")]
    Invalid(String),
    /// What a network gave is of no use.
    #[error("{0} are not finite")]
    NotFinite(&'static str),
    /// A signal asked for the end.
    #[error("interrupted")]
    Interrupted,
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// An [`Error::Content`].
    pub fn content(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Content { path: path.as_ref().to_path_buf(), message: message.into() }
    }
}

/// Names the path of an IO error.
pub trait AtPath<T> {
    /// `action` is a verb: "read", "write", "create".
    ///
    /// # Errors
    /// The IO error, with the path.
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|cause| Error::Io { action, path: path.as_ref().to_path_buf(), cause })
    }
}
