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
    /// No address of `--bind-hosts` can be listened on. These are the reasons.
    #[error(
        "cannot listen on {0}: name addresses of this host with --bind-hosts (`podcreds initialize` \
         makes the usual ones), and a free port with --port"
    )]
    Bind(String),
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
    /// Whether it is eBPF that cannot be had, and not something that keeps everything from running.
    pub fn is_about_ebpf(&self) -> bool {
        matches!(self, Self::Unsupported(_) | Self::NotPermitted(_))
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
