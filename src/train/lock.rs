//! One process a run: a lock on its folder, which the system holds for as long as the process lives, so a killed process leaves
//! none behind.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::{AtPath, Error, Result};
use crate::files::create_folder;

/// Name of the lock in a run's folder.
pub const FILE: &str = "lock";

/// A held lock.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a run's folder, which is created if it is not there, and leaves process and host in it.
    ///
    /// # Errors
    /// When another process holds it, or the folder cannot be written.
    pub fn acquire(folder: &Path) -> Result<Self> {
        create_folder(folder)?;
        let path = folder.join(FILE);
        if path.is_symlink() {
            return Err(Error::content(&path, "is a symbolic link, whose target would be overwritten: remove it"));
        }
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).at("open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                return Err(Error::content(
                    folder,
                    format!("another process works in it ({}); wait for it, or name another --output", holder.trim()),
                ));
            }
            // A file system without locks: two processes are then not told apart.
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(e)) => return Err(e).at("lock", &path),
        }
        file.set_len(0).at("write", &path)?;
        file.rewind().at("write", &path)?;
        writeln!(file, "process {} on host {}", std::process::id(), host()).at("write", &path)?;
        Ok(Self { _file: file })
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_lets_go() {
        let folder = std::env::temp_dir().join(format!("pgn-bench-lock-{}", std::process::id()));
        let first = Lock::acquire(&folder).unwrap();
        let refused = Lock::acquire(&folder).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {} on host", std::process::id())), "{refused}");
        drop(first);
        Lock::acquire(&folder).unwrap();

        let (link, target) = (folder.join(FILE), folder.join("target"));
        std::fs::write(&target, "kept").unwrap();
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(Lock::acquire(&folder).unwrap_err().to_string().contains("lock: is a symbolic link"));
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
