//! Why a folder will not do for handing credentials over.

use std::path::{Path, PathBuf};

/// What is wrong with `--handover-dir`.
#[derive(Debug, thiserror::Error)]
#[error("--handover-dir {path}: {reason}", path = path.display())]
pub struct HandoverError {
    path: PathBuf,
    reason: String,
    /// Whether somebody else may have prepared it.
    is_unsafe: bool,
}

impl HandoverError {
    /// Something is there that must not be used.
    pub(super) fn unsafe_place(path: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.into(),
            is_unsafe: true,
        }
    }

    /// It cannot be had.
    pub(super) fn unavailable(path: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.into(),
            is_unsafe: false,
        }
    }

    /// Whether somebody else may have prepared what is there.
    pub(super) fn is_unsafe(&self) -> bool {
        self.is_unsafe
    }
}
