//! The last stage: EKS Auth exchanges a token for the credentials of a role.
//!
//! 1. [`Outbound`] reads proxies and certificate authorities from the environment.
//! 2. [`EksAuth`] calls `AssumeRoleForPodIdentity` through the AWS SDK, over `http`'s connections.
//! 3. `answer` checks what comes back; `failure` sorts what goes wrong by what a caller can do.
//! 4. [`KeyFetcher`] gets the keys that sign the cluster's tokens.
//! 5. Nothing here waits for its turn, retries or remembers: that is done to the left.

use std::time::Duration;

use futures_util::future::BoxFuture;
use podcreds_types::{Credentials, EksRefusal, Token};

mod answer;
mod eks_auth;
mod failure;
#[cfg(test)]
mod fuzz;
mod http;
mod key_server;
mod metrics;
mod probe;
mod region;
mod rotating;
mod words;

pub use eks_auth::{Config, EksAuth, SetupError};
pub use http::{CertificateError, CertificateProblem, ConnectPart, Outbound};
pub use key_server::{KeyFetcher, KeyServer};
pub use metrics::Metrics;
pub use probe::{Probe, Signer, SignerError};

/// Exchanges a pod's token for the credentials of its role.
///
/// EKS Auth through the AWS SDK in production, a fake in the unit tests of the stage before.
pub trait AssumeRole: Send + Sync + 'static {
    /// One exchange, on the implementation's own deadline. Dropping the future gives it up.
    fn assume_role(&self, token: Token) -> BoxFuture<'static, Result<Credentials, UpstreamError>>;
}

/// Why there are no credentials, sorted by what a caller can do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Final for this pod and token: asking again gives the same answer until somebody changes
    /// something.
    #[error(transparent)]
    Refused(EksRefusal),
    /// EKS Auth takes exception to this one request, which may be the token's fault. It says
    /// nothing about other tokens, and may not be final.
    #[error("EKS Auth rejects the request for this token: {code}: {message}")]
    Rejected {
        /// EKS Auth's error code, such as `InvalidParameterException`, or the HTTP status.
        code: String,
        /// EKS Auth's own words, without secrets.
        message: String,
    },
    /// Too many requests: slow down.
    #[error("EKS Auth is throttling")]
    Throttled {
        /// How long EKS Auth asked to be left alone, if it did.
        retry_after: Option<Duration>,
    },
    /// No usable answer (unreachable, too slow, 5xx, nonsense): worth another try.
    #[error("EKS Auth gave no usable answer: {reason}")]
    Unavailable {
        /// What went wrong, without secrets.
        reason: String,
        /// How long EKS Auth asked to be left alone, if it did.
        retry_after: Option<Duration>,
    },
}

impl UpstreamError {
    /// [`UpstreamError::Unavailable`] where nobody said when to come back.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            reason: reason.into(),
            retry_after: None,
        }
    }
}
