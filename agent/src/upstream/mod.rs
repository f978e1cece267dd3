//! The last stage: a token becomes the credentials of a role, at EKS Auth.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::types::{Credentials, Token};

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
    /// something (no association, token invalid or expired, access denied).
    #[error("{code}: {message}")]
    Refused {
        /// EKS Auth's error code, such as `ResourceNotFoundException`.
        code: String,
        /// EKS Auth's own words, fit to be shown to the pod.
        message: String,
    },
    /// Too many requests: slow down.
    #[error("EKS Auth is throttling")]
    Throttled {
        /// How long EKS Auth asked to be left alone, if it did.
        retry_after: Option<Duration>,
    },
    /// No usable answer (unreachable, too slow, 5xx, nonsense): worth another try.
    #[error("EKS Auth gave no usable answer: {0}")]
    Unavailable(String),
}
