//! Why a folder will not do for handing credentials over.

use std::{
    io,
    path::{Path, PathBuf},
};

/// What is wrong with `--handover-dir`.
#[derive(Debug, thiserror::Error)]
#[error("--handover-dir {path}: {problem}", path = path.display())]
pub struct HandoverError {
    path: PathBuf,
    #[source]
    problem: HandoverProblem,
}

/// What is wrong with the folder, or with a file in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandoverProblem {
    #[error("only root hands credentials over; run as root, or name none")]
    NotRoot,
    #[error("cannot be made ({0}); name another folder, or none")]
    Make(#[source] io::Error),
    #[error("cannot be opened ({0})")]
    Open(#[source] io::Error),
    #[error("{0}")]
    Io(#[source] io::Error),
    #[error("is no folder; a symbolic link to one will not do")]
    NoFolder,
    /// A symbolic link, or what is no file at all.
    #[error("{0}")]
    NoFile(#[source] io::Error),
    #[error("is no socket (a symbolic link will not do); remove it")]
    NoSocket,
    #[error("is not a file of root's alone; remove it")]
    Shared,
    #[error("belongs to user {0}, not to root; remove it")]
    OtherOwner(u32),
    #[error("others than root can write to it (mode {0:04o}); make that 0700")]
    Writable(u32),
}

impl HandoverError {
    /// The folder, or the file in it, has this problem.
    pub(super) fn new(path: &Path, problem: HandoverProblem) -> Self {
        let path = path.to_owned();
        Self { path, problem }
    }

    /// Whether somebody else may have prepared what is there, so that it must not be used.
    pub(super) fn is_unsafe(&self) -> bool {
        match self.problem {
            HandoverProblem::NotRoot
            | HandoverProblem::Make(_)
            | HandoverProblem::Open(_)
            | HandoverProblem::Io(_) => false,
            HandoverProblem::NoFolder
            | HandoverProblem::NoFile(_)
            | HandoverProblem::NoSocket
            | HandoverProblem::Shared
            | HandoverProblem::OtherOwner(_)
            | HandoverProblem::Writable(_) => true,
        }
    }
}
