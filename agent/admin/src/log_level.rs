//! How much is logged.

use serde::{Deserialize, Serialize};

/// How much is logged now, and what it goes back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLevel {
    /// What holds now.
    pub filter: String,
    /// What the agent was started with.
    pub started_with: String,
    /// In how many seconds it goes back to that by itself, if it does.
    pub back_in_seconds: Option<u64>,
}

/// Log so much from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetLogLevel {
    /// A level, and levels for parts of the agent, such as `info,podcreds_exchange=debug`.
    pub filter: String,
    /// For how many seconds; nothing: until it is set again.
    pub for_seconds: Option<u64>,
}
