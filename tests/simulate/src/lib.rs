//! Simulated nodes over the agent's own credentials stage, on tokio's paused clock: a day takes
//! seconds, and the same seed makes the same pods do the same things at the same moments.
//!
//! - [`eks_auth`]: what stands for EKS Auth. It has one quota for all, and its bad hours.
//! - [`keys`]: what stands for the cluster's keys.
//! - [`node`]: one node: the agent's store, and its pods.
//! - [`client`]: how a pod asks, and asks again.
//! - [`day`]: one node's day, beside the rule that AWS's agent follows ([`other_rule`]).
//! - [`fleet`]: thousands of nodes against one quota, in good and bad hours.
//! - [`day_report`], [`fleet_report`]: what came of it, as a table, JSON and a page of plots.

pub mod client;
pub mod day;
pub mod day_report;
pub mod eks_auth;
pub mod fleet;
pub mod fleet_report;
pub mod keys;
pub mod node;
pub mod other_rule;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// A minute of simulated time.
pub const MINUTE: Duration = Duration::from_secs(60);
/// An hour of it.
pub const HOUR: Duration = Duration::from_secs(3600);

/// A runtime whose clock stands still while there is work, and else goes on to the next timer.
/// The agent's own dice fall as `seed` says.
///
/// # Errors
///
/// When the kernel has no room for it.
pub fn paused_runtime(seed: u64) -> std::io::Result<Runtime> {
    fastrand::seed(seed);
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
}
