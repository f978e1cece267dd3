//! Accepts connections on the serving runtime, each with what the kernel knows of its caller.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use nix::time::{ClockId, clock_gettime};
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
        accept_until(listener, stop, &self.metrics, |stream, accepted| {
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
    mut accept: impl FnMut(TcpStream, Instant),
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            metrics.errors.inc();
            return tracing::error!(%error, "a listener cannot be served");
        }
    };
    loop {
        // In this order: what is waiting is accepted before a stop is heard.
        let result = tokio::select! {
            biased;
            result = listener.accept() => result,
            _ = stop.changed() => return,
        };
        match result {
            Ok((stream, _)) => accept(stream, Instant::now()),
            Err(error) if is_exhaustion(&error) => {
                metrics.errors.inc();
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The client took it back while it waited.
            Err(_) => {}
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// Turns the kernel's time of `connect()` into an [`Instant`]. Both are `CLOCK_MONOTONIC`.
fn instant_of(connected_at: u64, accepted: Instant) -> Option<Instant> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
    let age = now.checked_sub(Duration::from_nanos(connected_at))?;
    accepted.checked_sub(age)
}
