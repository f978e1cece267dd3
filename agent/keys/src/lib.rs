//! The cluster's token signing keys, and what they say about a token: whether the cluster has
//! signed it, for which pod, and for which audience.

mod fetch;
mod jwks;
mod metrics;
mod verify;

pub use fetch::{FetchKeys, KeysError};
pub use jwks::{ClusterKeys, Issued, TokenOwner};
pub use metrics::Metrics;
pub use verify::{Verdict, VerifyToken};
