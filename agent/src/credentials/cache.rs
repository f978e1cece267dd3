//! The credentials at hand, by pod.

use std::time::SystemTime;

use bytes::Bytes;
use dashmap::DashMap;

use super::{Metrics, Subject};
use crate::types::{PodUid, TokenDigest};

/// One pod's credentials, ready to be sent.
pub(super) struct Entry {
    /// The token that they were fetched with. Nobody else may have them.
    pub(super) digest: TokenDigest,
    /// The body of the response.
    pub(super) body: Bytes,
    /// When AWS stops accepting them.
    pub(super) expiration: SystemTime,
}

/// The map of all entries.
pub(super) struct Cache {
    entries: DashMap<Subject, Entry>,
    metrics: Metrics,
}

impl Cache {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            entries: DashMap::new(),
            metrics,
        }
    }

    /// The body for whoever proves to be `subject` and to hold the token that it was fetched with.
    pub(super) fn get(
        &self,
        subject: &Subject,
        digest: &TokenDigest,
        now: SystemTime,
    ) -> Option<Bytes> {
        let entry = self.entries.get(subject)?;
        (entry.digest == *digest && entry.expiration > now).then(|| entry.body.clone())
    }

    /// Puts `entry` in the place of what was there.
    pub(super) fn insert(&self, subject: Subject, entry: Entry) {
        if self.entries.insert(subject, entry).is_none() {
            self.metrics.entries.inc();
        }
    }

    /// Drops what was fetched with a token that EKS Auth no longer accepts.
    pub(super) fn remove_if_fetched_with(&self, subject: &Subject, digest: &TokenDigest) {
        let removed = self
            .entries
            .remove_if(subject, |_, entry| entry.digest == *digest);
        if removed.is_some() {
            self.metrics.entries.dec();
        }
    }

    /// Drops a pod's entry.
    pub(super) fn forget(&self, pod: PodUid) {
        if self.entries.remove(&Subject::Pod(pod)).is_some() {
            self.metrics.entries.dec();
        }
    }
}
