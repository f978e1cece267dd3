//! The folder that the sockets are in. Only root can have prepared it.
//!
//! Its descriptor is kept, and all that is in it is reached through that: whatever becomes of the
//! path, the folder stays the one that was looked at.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use libc::{O_DIRECTORY, O_NOFOLLOW};
use nix::unistd::geteuid;

/// Why there is no socket for operators.
#[derive(Debug, thiserror::Error)]
#[error("--admin-dir {path}: {problem}", path = path.display())]
pub struct FolderError {
    path: PathBuf,
    #[source]
    problem: FolderProblem,
}

/// What is wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderProblem {
    /// The agent is not root's.
    #[error("only root may be asked there; run as root, or name none")]
    NotRoot,
    /// It cannot be made, opened or used.
    #[error("{0}; name another folder, or none")]
    Io(#[from] io::Error),
    /// Another user could have prepared it.
    #[error("must belong to root, and others must not be able to write to it")]
    OtherOwner,
}

/// A folder that only root can have prepared.
pub(crate) struct AdminFolder(File);

impl AdminFolder {
    /// Opens the folder, and makes it if need be.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        open(path).map_err(|problem| FolderError::new(path, problem))
    }

    /// The path of a file in it.
    pub(crate) fn inside(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }

    /// The names in it that begin with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.inside("."))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }
}

impl FolderError {
    pub(crate) fn new(path: &Path, problem: FolderProblem) -> Self {
        let path = path.to_owned();
        Self { path, problem }
    }
}

fn open(path: &Path) -> Result<AdminFolder, FolderProblem> {
    if !geteuid().is_root() {
        return Err(FolderProblem::NotRoot);
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(O_DIRECTORY | O_NOFOLLOW)
        .open(path)?;
    let metadata = folder.metadata()?;
    if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(FolderProblem::OtherOwner);
    }
    Ok(AdminFolder(folder))
}
