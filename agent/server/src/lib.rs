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
mod progress;
mod rationed;
mod serve;
mod stream;
mod target;
mod turns;

use podcreds_types::{Claimant, Origin, PodUid, Refusal, Route, Token};

pub use config::Config;
pub use metrics::Metrics;
pub use serve::{Server, Times};
pub use stream::Transport;

/// What the stage before knows of the process at the other end of a connection.
pub trait Identify: Send + Sync + 'static {
    /// Says whose credentials this token may fetch over this connection. The `route` that a request
    /// says it has come by decides only how a refusal is told and counted.
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

#[cfg(test)]
mod tests;
