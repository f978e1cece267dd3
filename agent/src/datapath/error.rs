//! What can keep the datapath from starting.

use std::{io, path::PathBuf};

/// Why the datapath cannot start. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The kernel lacks something that no privilege gives.
    #[error("{0}")]
    Unsupported(String),
    /// The kernel could, but the agent may not.
    #[error("{0}")]
    NotPermitted(String),
    /// `--cgroup-root` does not name a cgroup2 directory.
    #[error("--cgroup-root {path}: {reason}", path = path.display())]
    CgroupRoot {
        /// The value of the flag.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An address of `--bind-hosts` cannot be listened on.
    #[error("--bind-hosts {address}: {source}")]
    Bind {
        /// The address and port.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else: the machine is out of something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl DatapathError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
