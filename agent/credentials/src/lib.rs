//! Credentials in memory: what has been fetched, kept ready to be sent.
//!
//! [`Store::at_hand`] is the road of nearly every request: a look into a map of ready-made bodies, and
//! into what was refused within the last seconds.
//! What is not there is fetched by [`Store::fetch`]. Each pod has a [line](line) of the tokens that
//! wait to be exchanged, and one task that takes them one by one, so however many requests wait,
//! one call goes out. The task belongs to the agent, not to a client: clients may hang up.

use podcreds_types::{PodUid, TokenDigest};
use serde::{Deserialize, Serialize};

mod accepted;
mod adopt;
mod at_hand;
mod body;
mod cache;
mod claimant;
mod clock;
mod config;
mod error;
mod exchange;
mod flight;
mod freshness;
mod health;
mod jitter;
mod limiter;
mod line;
mod metrics;
mod official;
mod refusals;
mod seats;
mod steady;
mod store;
mod succession;
#[cfg(test)]
mod tests;
mod upkeep;
mod waiting;

pub use clock::Clock;
pub use config::Config;
pub use error::CredentialError;
pub use metrics::Metrics;
pub use store::Store;
pub use succession::{Change, Changes};

/// Whose credentials they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A pod's that the kernel has identified, or one of the cluster's keys.
    Pod(PodUid),
    /// Whoever's who holds this token: claims that nobody has verified must not choose somebody
    /// else's entry.
    Bearer(TokenDigest),
}
