//! Why a folder will not do for handing credentials over.

use std::{
    io,
    path::{Path, PathBuf},
};

use podcreds_local::FolderProblem;

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
    #[error(transparent)]
    Folder(#[from] FolderProblem),
    /// A symbolic link, or what is no file at all.
    #[error("{0}")]
    NoFile(#[source] io::Error),
    #[error("is no socket (a symbolic link will not do); remove it")]
    NoSocket,
    #[error("is not a file of root's alone; remove it")]
    Shared,
}

impl HandoverError {
    /// The folder, or the file in it, has this problem.
    pub(super) fn new(path: &Path, problem: impl Into<HandoverProblem>) -> Self {
        Self {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }

    /// Whether somebody else may have prepared what is there, so that it must not be used.
    pub(super) fn is_unsafe(&self) -> bool {
        match &self.problem {
            HandoverProblem::Folder(problem) => problem.is_unsafe(),
            HandoverProblem::NoFile(_) | HandoverProblem::NoSocket | HandoverProblem::Shared => {
                true
            }
        }
    }
}
