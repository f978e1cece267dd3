//! Accepted connections, each with what the kernel knows of its caller.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use podcreds_common::{ASKED_LISTENER, CallerRecord, NestedKey};
use podcreds_types::{Evidence, SharedMap};
use prometheus::IntCounter;
use rustix::{
    io::Errno,
    time::{ClockId, clock_gettime},
};
use tokio::net::TcpStream;

use super::{pods::known_pods::KnownPods, programs::Callers};

/// How long to wait for resources, such as file descriptors, that ran out.
pub(super) const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A connection that a caller made to a listener.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// What the kernel says of the caller.
    pub evidence: Evidence,
    /// When it was accepted.
    pub accepted: Instant,
    /// When the caller called `connect()`, if the kernel noted it.
    pub connected: Option<Instant>,
}

/// Takes accepted connections. Called on the serving runtime; must not block.
pub type OnAccept = Arc<dyn Fn(Accepted) + Send + Sync>;

/// Where pods have listeners in namespaces that are not their own: written and read as
/// [`KnownPods`] is.
pub(super) type NestedRegistry = SharedMap<NestedKey, ()>;

/// Holds what is accepted to what the kernel and discovery know.
pub(super) struct Acceptor {
    pub(super) callers: Callers,
    pub(super) pods: Arc<KnownPods>,
    pub(super) nested: Arc<NestedRegistry>,
    /// The cookie of the host's network namespace.
    pub(super) host_netns: u64,
    /// How many redirected connections have come.
    pub(super) arrived: Arc<AtomicU64>,
    pub(super) on_accept: OnAccept,
}

impl Acceptor {
    /// Passes on a connection that an in-pod listener, in the namespace with this cookie, has
    /// accepted.
    pub(super) fn pass_on(&self, stream: TcpStream, netns: u64) {
        let accepted = Instant::now();
        let caller = self.callers.of(&stream);
        if caller.is_none_or(|caller| caller.asked != ASKED_LISTENER) {
            self.arrived.fetch_add(1, Ordering::Relaxed);
        }
        (self.on_accept)(Accepted {
            evidence: self.evidence(caller.as_ref(), netns),
            connected: caller.and_then(|caller| instant_of(caller.connected_at, accepted)),
            stream,
            accepted,
        });
    }

    /// Holds the kernel's record to the listener that accepted the connection.
    fn evidence(&self, caller: Option<&CallerRecord>, netns: u64) -> Evidence {
        let Some(caller) = caller else {
            return Evidence::Unrecorded;
        };
        let stranger = Evidence::Stranger {
            process: caller.tgid,
        };
        let Some(pod) = self.pods.get(caller.pod) else {
            return stranger;
        };
        // The host's namespace may be used by every pod: the cgroup said which one it is. A nested
        // one by the pod that the listener was opened for.
        let is_nested = || {
            let pod = caller.pod;
            self.nested.contains_key(&NestedKey { pod, netns })
        };
        let may_use = pod.netns == netns || netns == self.host_netns || is_nested();
        if caller.netns == netns && may_use {
            Evidence::Pod {
                uid: pod.uid,
                cgroup: caller.pod,
            }
        } else {
            stranger
        }
    }
}

/// What a failed accept concerns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AcceptFailure {
    /// Nothing: there is no connection after all.
    None,
    /// One connection's, which is gone.
    Connection,
    /// The machine's, which is out of something for now.
    Machine,
    /// The listener's. A process with CAP_NET_ADMIN in its namespace can destroy it.
    Listener,
}

impl AcceptFailure {
    pub(super) fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::AGAIN) => Self::None,
            // A security module that says EPERM leaves the connection where it is.
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::PERM) => {
                Self::Machine
            }
            // Those that accept(2) names as a new connection's own.
            Some(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                // Not of accept(2), but of waiting for news of what was accepted.
                | Errno::NOSPC,
            ) => Self::Connection,
            _ => Self::Listener,
        }
    }
}

/// Passes a connection on. A mistake that shows in one of them must not cost the pods all others.
pub(super) fn guarded(errors: &IntCounter, pass_on: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(pass_on)).is_err() {
        errors.inc();
        tracing::error!("serving a connection has panicked");
    }
}

/// Turns the kernel's time of `connect()` into an [`Instant`]. Both are `CLOCK_MONOTONIC`.
fn instant_of(connected_at: u64, accepted: Instant) -> Option<Instant> {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).ok()?;
    let age = now.checked_sub(Duration::from_nanos(connected_at))?;
    accepted.checked_sub(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listener_that_is_dead_is_taken_for_dead() {
        for (errno, trouble) in [
            (Errno::AGAIN, AcceptFailure::None),
            (Errno::CONNABORTED, AcceptFailure::Connection),
            (Errno::NOSPC, AcceptFailure::Connection),
            (Errno::MFILE, AcceptFailure::Machine),
            (Errno::PERM, AcceptFailure::Machine),
            (Errno::INVAL, AcceptFailure::Listener),
            (Errno::BADF, AcceptFailure::Listener),
        ] {
            assert_eq!(AcceptFailure::of(&errno.into()), trouble, "{errno}");
        }
    }
}
