//! What fetches the keys that sign the cluster's tokens, as a trait.

use std::{error::Error, sync::Arc};

use futures_util::future::BoxFuture;

/// Fetches the cluster's JSON Web Key Set.
pub trait FetchKeys: Send + Sync + 'static {
    /// The key set as JSON, on the implementation's own deadline.
    fn fetch(&self) -> BoxFuture<'static, Result<Vec<u8>, KeysError>>;
}

/// Why there is no key set. Its words have no secrets.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the cluster's keys cannot be had: {0}")]
pub struct KeysError(#[source] Arc<dyn Error + Send + Sync>);

impl KeysError {
    /// It cannot be had for this reason.
    pub fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(reason.into()))
    }
}
