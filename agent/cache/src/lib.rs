//! Credentials and refusals in memory, by pod. The cache asks nobody for anything: it knows what is
//! there, who may have it, and what is due.
//!
//! 1. [`Cache::get`] is the road of nearly every request: one look into a sharded map.
//! 2. [`Cache::insert`] takes in what an exchange brought, [`Cache::refuse`] what it took away.
//! 3. [`Cache::upkeep`] drops what has expired and names what is to be renewed, and when to look
//!    again.
//! 4. [`Cache::subscribe`] names each subject whose entry changes, for an agent that takes over.
//! 5. [`Cache::inherit`] takes in what the agent before this one had.
//! 6. [`Cache::summaries`] says for people what is there, without a secret.

use podcreds_types::{PodUid, TokenDigest};
use serde::{Deserialize, Serialize};

mod accepted;
mod cache;
mod clock;
mod entry;
mod freshness;
mod inherit;
mod metrics;
mod official;
mod presence;
mod refusals;
mod refused;
mod roles;
mod summary;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod upkeep;

pub use cache::{Cache, Config, Fetched, Lookup};
pub use clock::Clock;
pub use freshness::Ages;
pub use inherit::Snapshot;
pub use metrics::{CacheResult, Metrics};
pub use refused::{Refused, Source, Takes};
pub use summary::Summary;
pub use upkeep::{Renewal, Upkeep};

/// Whose entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A pod that the kernel has identified, or one of the cluster's keys.
    Pod(PodUid),
    /// This one token: claims that nobody has verified must not choose another subject's entry.
    #[serde(rename = "bearer")]
    Token(TokenDigest),
}
