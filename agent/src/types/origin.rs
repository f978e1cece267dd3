//! Where a connection comes from.

use std::net::IpAddr;

/// Who is one caller where limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The pod with this cgroup id: the kernel has said so.
    Pod(u64),
    /// Whoever calls from this address.
    Address(IpAddr),
    /// One of those of whom nothing is known. They count as one.
    Unknown,
}

impl Origin {
    /// Whether it is a pod that the kernel has identified.
    pub fn is_pod(self) -> bool {
        matches!(self, Self::Pod(_))
    }
}
