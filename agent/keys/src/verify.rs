//! The seam for whoever can tell a genuine token without asking EKS Auth.

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
    /// Looks at one token with the keys at hand. If there are none for it, they are fetched
    /// meanwhile, and the next look may say more. Called on a tokio runtime.
    fn verify_at_hand(&self, token: &Token) -> Verdict;

    /// Looks at one token, and waits for a key that is not there yet. Never fails, but may not
    /// know.
    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict>;
}
