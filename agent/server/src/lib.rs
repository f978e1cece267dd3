//! The credentials endpoint: HTTP/1.1 for the pods' SDKs.
//!
//! [`Server::serve`] takes over a connection with what the stage before knows of its caller, and
//! answers `GET /v1/credentials` on it. The road of a request that finds its answer in memory is
//! synchronous, copies no credential and ends in one `writev`.

mod answer;
mod config;
mod endpoint;
mod fixed;
mod host;
mod limits;
mod metrics;
mod progress;
mod rationed;
mod serve;
mod stream;
mod target;
mod turns;

use podcreds_credentials::Claimant;
use podcreds_types::{Origin, PodUid, Token, Unreadable};

pub use config::Config;
pub use metrics::Metrics;
pub use serve::{Server, Times};
pub use stream::Transport;
pub use target::Route;

/// What the stage before knows of the process at the other end of a connection.
pub trait Identify: Send + Sync + 'static {
    /// Says whose credentials this token may fetch over this connection. The `route` that a request says it has
    /// come by decides only how a refusal is told and counted.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when the token cannot be read, or is not the caller's to use.
    fn identify(&self, token: &Token, route: Route) -> Result<Claimant, Refusal>;

    /// Whose credentials these can only be, when the caller is known without a token.
    ///
    /// What is in memory for this pod was fetched with a token that [`Self::identify`] has accepted
    /// for it. The very same token need not be taken apart again.
    fn pod(&self) -> Option<PodUid>;

    /// What counts as one caller where connections are limited.
    fn origin(&self) -> Origin;
}

/// Why a token is turned away before anything is looked up. What pods are told is in [`fixed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not a service-account token at all: 400.
    Malformed(Unreadable),
    /// Its own claims say that it has expired: 400.
    Expired,
    /// It is another pod's: 403.
    OtherPod,
    /// It is another pod's, or one that is redirected, and the request has the marks of an HTTP proxy, which
    /// would have brought it from there: 403, since the next request would take the same way. A thief could
    /// write such marks, too.
    Proxied,
    /// Nobody knows which pod is calling: 403.
    UnknownCaller,
    /// It is another pod's, and whether the caller may use it is not known yet: 503.
    Undecided(Undecided),
    /// The kernel has no record of who made the connection: 503.
    NoRecord,
    /// It came to an address of the host, and its pod comes by a way of its own: 503, on which SDKs try
    /// again, and a pod that has just been found comes by that way then.
    Detour,
}

/// Why it is not known yet whether a pod is a delegate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// Its service account is being looked up.
    LookUp,
    /// Kubelet may not have mounted its token yet.
    NotMounted,
    /// The cluster's keys, or the one that its token names, cannot be had.
    NoKeys,
    /// Kubelet's folder of the pod is not there or cannot be read.
    NoFolder,
    /// The agent may not read the pod's token.
    NotPermitted,
}

#[cfg(test)]
mod tests;
