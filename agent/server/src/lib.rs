//! The credentials endpoint: HTTP/1.1 for the pods' SDKs.
//!
//! 1. [`Server::serve`] takes a connection over, with its caller ([`Identify`]), if its
//!    `limits` have room for it.
//! 2. The `scheduler` lets the connections of each caller run in their share of the thread, and
//!    `answer_limit` gives one answer each time.
//! 3. The `endpoint` looks at a request: the host, the target, the token, then the caller.
//! 4. Credentials in memory are answered at once: nothing is copied, and one `writev` ends it.
//!    Others are fetched, and the request waits.
//! 5. Whatever is refused is told in the words of [`podcreds_types::Refusal`].

mod accounts;
mod answer;
mod answer_limit;
mod config;
mod connection_state;
mod endpoint;
#[cfg(test)]
mod fuzz;
mod host;
mod limits;
mod metrics;
mod road;
mod scheduler;
mod serve;
mod stream;
mod target;

use podcreds_types::{Claimant, Evidence, Origin, PodUid, Refusal, Route, Token};

pub use config::Config;
pub use metrics::Metrics;
pub use serve::{Server, Times};
pub use stream::Transport;

/// What the stage before knows about the process at the other end of a connection.
pub trait Identify: Send + Sync + 'static {
    /// Says for which claimant this token may fetch credentials over this connection. The `route`
    /// that a request says it has come by decides only how a refusal is told and counted.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] when the token cannot be read, or is not the caller's to use.
    fn identify(&self, token: &Token, route: Route) -> Result<Claimant, Refusal>;

    /// The pod that this caller can only get credentials of, when it is known without a token.
    ///
    /// What is in memory for this pod was fetched with a token that [`Self::identify`] has accepted
    /// for it. The very same token need not be taken apart again.
    fn pod(&self) -> Option<PodUid> {
        match self.evidence() {
            Evidence::Pod { uid, .. } => Some(uid),
            Evidence::Stranger { .. } | Evidence::Unrecorded | Evidence::NodePath { .. } => None,
        }
    }

    /// What counts as one caller where connections are limited.
    fn origin(&self) -> Origin {
        self.evidence().origin()
    }

    /// What the datapath says about it.
    fn evidence(&self) -> Evidence;
}

#[cfg(test)]
mod tests;
