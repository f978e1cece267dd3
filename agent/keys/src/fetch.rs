//! The seam to whoever publishes the keys that sign the cluster's tokens.

use futures_util::future::BoxFuture;

/// Fetches the cluster's JSON Web Key Set.
pub trait FetchKeys: Send + Sync + 'static {
    /// The key set as JSON, on the implementation's own deadline.
    fn fetch(&self) -> BoxFuture<'static, Result<Vec<u8>, KeysError>>;
}

/// Why there is no key set, in words without secrets.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the cluster's keys cannot be had: {0}")]
pub struct KeysError(pub String);
