//! What verifies a token without a call to EKS Auth, as a trait.

use futures_util::future::BoxFuture;
use podcreds_types::{PodUid, Token};

/// What a look at a token's signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The cluster has signed it for this pod, for this audience, and it has not expired.
    Genuine {
        /// The pod that it was issued to.
        pod: PodUid,
        /// The namespace that the pod is in.
        namespace: String,
    },
    /// It names one of the cluster's keys, and that key has not signed it.
    Forged,
    /// The cluster has signed it, for somebody else than us.
    OtherAudience,
    /// Nothing can be said: let EKS Auth decide.
    Unknown,
}

/// Checks tokens against the cluster's keys.
pub trait VerifyToken: Send + Sync + 'static {
    /// Verifies one token with the keys that are in memory. If its key is not there, it is fetched
    /// meanwhile, and the next try may say more. Called on a tokio runtime.
    fn verify_now(&self, token: &Token) -> Verdict;

    /// Verifies one token, and waits for a key that is not there yet.
    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict>;
}
