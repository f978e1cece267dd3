//! Which pod is calling, and where its listener is.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie},
    programs::SockAddrContext,
};
use podcreds_common::{Endpoint, MAX_POD_LEVEL};

use crate::maps::{HOST, PODS};

/// The outermost known pod above the current process.
pub(crate) struct Pod {
    /// Its cgroup id.
    pub(crate) id: u64,
    /// The listeners in its network namespace.
    pub(crate) endpoint: Endpoint,
}

/// Finds the current process's pod.
///
/// The walk goes from the root downwards, so that a cgroup which a pod makes below its own, whatever
/// its name, is never reached: the pod above it is found first.
#[inline(always)]
pub(crate) fn of_current_process() -> Option<Pod> {
    let mut level = 1;
    while level <= MAX_POD_LEVEL {
        // SAFETY: the helper takes any level and answers 0 for one below the process's own.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            return None;
        }
        // SAFETY: the entry is copied at once; user space replaces entries as a whole.
        if let Some(endpoint) = unsafe { PODS.get(id) } {
            return Some(Pod {
                id,
                endpoint: *endpoint,
            });
        }
        level += 1;
    }
    None
}

/// The cookie of the network namespace of the hook's socket.
#[inline(always)]
pub(crate) fn netns(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the context.
    unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) }
}

/// The listeners in the namespace `netns`, when it is the host's.
#[inline(always)]
pub(crate) fn host_endpoint(netns: u64) -> Option<Endpoint> {
    let host = *HOST.get(0)?;
    (host.netns == netns).then_some(host)
}

impl Pod {
    /// The listeners that the pod may use from the namespace `netns`.
    ///
    /// That is its own, or the host's: a hostNetwork pod has no other. A socket of any third
    /// namespace is not the pod's, whoever holds it.
    #[inline(always)]
    pub(crate) fn endpoint_in(&self, netns: u64) -> Option<Endpoint> {
        if self.endpoint.netns == netns {
            return Some(self.endpoint);
        }
        host_endpoint(netns)
    }
}
