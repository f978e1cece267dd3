//! Where listeners are, and what is heard of it.

use std::net::SocketAddr;

use super::netns::NetnsId;

/// Where listeners are: in a namespace, for all of its pods or for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Location {
    pub(super) netns: NetnsId,
    /// A pod's cgroup id, in a namespace whose pods must not wait in one queue.
    pub(super) only: Option<u64>,
}

/// News of a location.
pub(super) enum News {
    /// Links or addresses there have changed.
    Changed(Location),
    /// A listener has died in the namespace with this cookie.
    Died(u64),
    /// The agent has tried whether one of its listeners can be reached.
    Tried(ReachabilityResult),
}

/// The result of such a try.
pub(super) struct ReachabilityResult {
    pub(super) location: Location,
    pub(super) address: SocketAddr,
    pub(super) is_reached: bool,
}
