//! Accepts connections on the serving runtime, each with what the kernel knows of its caller.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use nix::{
    errno::Errno,
    time::{ClockId, clock_gettime},
};
use podcreds_common::Caller;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{metrics::Metrics, programs::Callers};
use crate::{identity::Evidence, types::PodUid};

/// How long to wait for resources, such as file descriptors, that ran out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

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

/// A pod as the accept loops need to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownPod {
    pub(super) uid: PodUid,
    /// The cookie of its own network namespace; 0 as long as it has none.
    pub(super) netns: u64,
}

/// The known pods by cgroup id: written by discovery, read for each connection.
pub(super) type Registry = DashMap<u64, KnownPod>;

/// What all accept loops share.
pub(super) struct Acceptor {
    pub(super) callers: Callers,
    pub(super) registry: Arc<Registry>,
    /// The cookie of the host's network namespace.
    pub(super) host_netns: u64,
    pub(super) on_accept: OnAccept,
    pub(super) metrics: Metrics,
}

impl Acceptor {
    /// Serves an in-pod listener until `stop` changes, and then what is in its backlog.
    pub(super) async fn run(
        self: Arc<Self>,
        listener: std::net::TcpListener,
        netns: u64,
        stop: watch::Receiver<bool>,
    ) {
        accept_until(listener, stop, &self.metrics, |stream, _, accepted| {
            let caller = self.callers.of(&stream);
            (self.on_accept)(Accepted {
                evidence: self.evidence(caller.as_ref(), netns),
                connected: caller.and_then(|caller| instant_of(caller.connected_at, accepted)),
                stream,
                accepted,
            });
        })
        .await;
    }

    /// Holds the kernel's record to the listener that accepted the connection.
    fn evidence(&self, caller: Option<&Caller>, netns: u64) -> Evidence {
        let Some(caller) = caller else {
            return Evidence::Unrecorded;
        };
        let stranger = Evidence::Stranger {
            process: caller.tgid,
        };
        let Some(pod) = self.registry.get(&caller.pod) else {
            return stranger;
        };
        // The host's namespace may be used by every pod: who it is was told by the cgroup.
        if caller.netns == netns && (pod.netns == netns || netns == self.host_netns) {
            Evidence::Pod {
                uid: pod.uid,
                cgroup: caller.pod,
            }
        } else {
            stranger
        }
    }
}

/// Accepts until `stop` changes and nothing is left in the backlog.
pub(super) async fn accept_until(
    listener: std::net::TcpListener,
    mut stop: watch::Receiver<bool>,
    metrics: &Metrics,
    mut accept: impl FnMut(TcpStream, SocketAddr, Instant),
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            metrics.errors.inc();
            return tracing::error!(%error, "a listener cannot be served");
        }
    };
    loop {
        // In this order: what is waiting is accepted before a stop is heard. Polled by hand, since there are
        // two such loops for each pod, and the future of `accept` is half of one's memory.
        let result = tokio::select! {
            biased;
            result = poll_fn(|context| listener.poll_accept(context)) => result,
            _ = stop.changed() => return,
        };
        match result {
            Ok((stream, peer)) => accept(stream, peer, Instant::now()),
            Err(error) => match Trouble::of(&error) {
                Trouble::Connection => {}
                Trouble::Machine => {
                    metrics.errors.inc();
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
                Trouble::Listener => {
                    metrics.errors.inc();
                    tracing::warn!(%error, "a listener is dead: it will be opened anew");
                    return;
                }
            },
        }
    }
}

/// Whose trouble a failed accept is.
enum Trouble {
    /// One connection's, which is gone.
    Connection,
    /// The machine's, which is out of something for now.
    Machine,
    /// The listener's. Who has CAP_NET_ADMIN in its namespace can destroy it.
    Listener,
}

impl Trouble {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => Self::Machine,
            // Those that accept(2) names as a new connection's own.
            Some(
                Errno::ECONNABORTED
                | Errno::EINTR
                | Errno::EPERM
                | Errno::EPROTO
                | Errno::ENETDOWN
                | Errno::ENOPROTOOPT
                | Errno::EHOSTDOWN
                | Errno::ENONET
                | Errno::EHOSTUNREACH
                | Errno::EOPNOTSUPP
                | Errno::ENETUNREACH,
            ) => Self::Connection,
            _ => Self::Listener,
        }
    }
}

/// Turns the kernel's time of `connect()` into an [`Instant`]. Both are `CLOCK_MONOTONIC`.
fn instant_of(connected_at: u64, accepted: Instant) -> Option<Instant> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
    let age = now.checked_sub(Duration::from_nanos(connected_at))?;
    accepted.checked_sub(age)
}
