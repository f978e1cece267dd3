//! Which pod is calling, and where its listener is.

use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_pid_tgid, bpf_get_netns_cookie,
        bpf_ktime_get_ns,
    },
    programs::SockAddrContext,
};
use podcreds_common::{EVENT_UNKNOWN_POD, KernelEvent, MAX_POD_LEVEL, NestedKey, PodEndpoint};

use crate::maps::{HOST, NESTED, PODS, report};

/// The least time between two events of one pod, in units of 2^20 ns.
const PAUSE: u32 = 4;

/// The same of all processes of no pod together: they are for people to read, and nothing waits for
/// them.
const PAUSE_OF_STRANGERS: u32 = 64;

/// The outermost known pod above the current process.
pub(crate) struct Pod {
    /// Its cgroup id.
    pub(crate) id: u64,
    /// The listeners in its network namespace.
    pub(crate) endpoint: PodEndpoint,
    /// Where that stands in the map.
    entry: *mut PodEndpoint,
}

/// Finds the current process's pod.
///
/// The walk goes from the root downwards, so that a cgroup which a pod makes below its own,
/// whatever its name, is never reached: the pod above it is found first.
#[inline(always)]
pub(crate) fn of_current_process() -> Option<Pod> {
    let mut level = 1;
    while level <= MAX_POD_LEVEL {
        // SAFETY: the helper takes any level and answers 0 for one below the process's own.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            return None;
        }
        if let Some(entry) = PODS.get_ptr_mut(id) {
            return Some(Pod {
                id,
                // SAFETY: the entry is copied at once; user space replaces entries as a whole.
                endpoint: unsafe { *entry },
                entry,
            });
        }
        level += 1;
    }
    None
}

/// The id of the calling thread in the initial PID namespace.
#[inline(always)]
pub(crate) fn current_thread() -> u32 {
    // SAFETY: the helper takes nothing.
    (unsafe { bpf_get_current_pid_tgid() }) as u32
}

/// The id of the calling process in the initial PID namespace, which is that of its first thread.
#[inline(always)]
pub(crate) fn current_process() -> u32 {
    // SAFETY: as above.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

/// The cookie of the network namespace of the hook's socket.
#[inline(always)]
pub(crate) fn netns(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the context.
    unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) }
}

/// The listeners in the namespace `netns`, when it is the host's.
#[inline(always)]
pub(crate) fn host_endpoint(netns: u64) -> Option<PodEndpoint> {
    let host = *HOST.get(0)?;
    (host.netns == netns).then_some(host)
}

impl Pod {
    /// The listeners that the pod may use from the namespace `netns`.
    ///
    /// That is its own, or the host's: a hostNetwork pod has no other. In a third one it may have
    /// listeners too, once the agent has seen a process of the pod in it.
    #[inline(always)]
    pub(crate) fn endpoint_in(&self, netns: u64) -> Option<PodEndpoint> {
        if self.endpoint.netns == netns {
            return Some(self.endpoint);
        }
        if let Some(host) = host_endpoint(netns) {
            return Some(host);
        }
        let key = NestedKey {
            pod: self.id,
            netns,
        };
        // SAFETY: as for `PODS`.
        unsafe { NESTED.get(key) }.copied()
    }

    /// Reports a call of this pod's, unless another was reported a moment ago: a
    /// pod must not take the room of others.
    #[inline(always)]
    pub(crate) fn report(&self, netns: u64, kind: u16) {
        // SAFETY: the entry was there a moment ago, and its memory is a map's for as long as this
        // runs.
        if !unsafe { is_due(self.entry, PAUSE) } {
            return;
        }
        report(KernelEvent {
            pod: self.id,
            netns,
            thread: current_thread(),
            port: 0,
            kind,
        });
    }
}

/// Reports a call by a process of no known pod, unless another was reported a moment ago.
#[inline(always)]
pub(crate) fn report_stranger() {
    let Some(host) = HOST.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the slot is there for as long as the map is.
    if !unsafe { is_due(host, PAUSE_OF_STRANGERS) } {
        return;
    }
    report(KernelEvent {
        pod: 0,
        netns: 0,
        thread: current_process(),
        port: 0,
        kind: EVENT_UNKNOWN_POD,
    });
}

/// Whether an event may be reported now of what stands there, and notes that it is. Two CPUs may
/// both report one at once.
///
/// # Safety
///
/// `entry` is a map's entry.
#[inline(always)]
unsafe fn is_due(entry: *mut PodEndpoint, pause: u32) -> bool {
    // SAFETY: the helper takes nothing.
    let now = (unsafe { bpf_ktime_get_ns() } >> 20) as u32;
    // SAFETY: as the caller promises.
    unsafe {
        if now.wrapping_sub((*entry).reported_at) < pause {
            return false;
        }
        (*entry).reported_at = now;
    }
    true
}
