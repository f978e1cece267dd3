//! The cluster's keys: who has signed a token, and for whom.

mod fetch;
mod jwks;
mod verify;

pub use fetch::{FetchKeys, KeysError};
pub use jwks::{ClusterKeys, Issued, TokenOwner};
pub use verify::{Verdict, VerifyToken};
