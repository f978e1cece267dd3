//! The seam for whoever can tell a genuine token without asking EKS Auth.

use futures_util::future::BoxFuture;

use crate::types::{PodUid, Token};

/// What a look at a token's signature says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The cluster has signed it for this pod, for this audience, and it has not expired.
    Genuine {
        /// The pod that it was issued to.
        pod: PodUid,
    },
    /// It names one of the cluster's keys, and that key has not signed it.
    Forged,
    /// Nothing can be said: let EKS Auth decide.
    Unknown,
}

/// Checks tokens against the cluster's keys.
pub trait VerifyToken: Send + Sync + 'static {
    /// Looks at one token. May fetch keys; never fails, but may not know.
    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict>;
}
