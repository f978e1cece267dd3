//! Why a request gets no credentials, once its token is known to be its caller's.

use std::time::Duration;

use super::EksRefusal;

/// Why there are no credentials for a request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialError {
    /// EKS Auth's last word about this token: tell the pod, which gains nothing by retrying.
    #[error(transparent)]
    Refused(EksRefusal),
    /// Not yet: the agent goes on trying, and the pod should ask again.
    #[error("credentials are not ready yet: {reason}")]
    NotReady {
        /// What is being waited for.
        reason: String,
        /// When it is worth asking again.
        retry_after: Duration,
        /// Whether it is what is in the request that keeps EKS Auth from answering.
        is_clients_fault: bool,
    },
}

impl CredentialError {
    /// [`CredentialError::NotReady`], worth asking again in a second, as SDKs do anyway.
    pub fn not_ready(reason: impl Into<String>) -> Self {
        Self::NotReady {
            reason: reason.into(),
            retry_after: Duration::from_secs(1),
            is_clients_fault: false,
        }
    }

    /// The same for a request that is itself to blame.
    pub fn not_ready_by_clients_fault(reason: impl Into<String>) -> Self {
        Self::NotReady {
            reason: reason.into(),
            retry_after: Duration::from_secs(1),
            is_clients_fault: true,
        }
    }
}
