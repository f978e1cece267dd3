//! The credentials endpoint: HTTP/1.1 for the pods' SDKs.
//!
//! [`Server::serve`] takes over a connection with what the stage before knows of its caller, and
//! answers `GET /v1/credentials` on it. The road of a request that finds its answer in memory is
//! synchronous, copies no credential and ends in one `writev`.

mod answer;
mod config;
mod endpoint;
mod host;
mod limits;
mod metrics;
mod serve;
mod stream;

use crate::{
    credentials::Claimant,
    types::{Origin, PodUid, Token},
};

pub use config::Config;
pub use metrics::Metrics;
pub use serve::{Server, Times};
pub use stream::Transport;

/// What the stage before knows of the process at the other end of a connection.
pub trait Identify: Send + Sync + 'static {
    /// Says whose credentials this token may fetch over this connection.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when the token cannot be read, or is not the caller's to use.
    fn identify(&self, token: &Token) -> Result<Claimant, Refusal>;

    /// Whose credentials these can only be, when the caller is known without a token.
    ///
    /// What is in memory for this pod was fetched with a token that [`Self::identify`] has accepted
    /// for it. The very same token need not be taken apart again.
    fn pod(&self) -> Option<PodUid>;

    /// What counts as one caller where connections are limited.
    fn origin(&self) -> Origin;
}

/// Why a token is turned away before anything is looked up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not a service-account token at all: 400.
    #[error("the Authorization header holds no readable service-account token: {0}")]
    Malformed(&'static str),
    /// Its own claims say that it has expired: 400.
    #[error("the service-account token has expired")]
    Expired,
    /// It is another pod's: 403.
    #[error("the service-account token belongs to another pod")]
    OtherPod,
    /// Nobody knows which pod is calling: 403.
    #[error("the calling process belongs to no pod that is known on this node")]
    UnknownCaller,
    /// It came to an address of the host, and its pod comes by a way of its own: 503, on which SDKs try
    /// again, and a pod that has just been found comes by that way then.
    #[error("the pod of this service-account token is served inside of its own network namespace")]
    Detour,
}

#[cfg(test)]
mod tests;
