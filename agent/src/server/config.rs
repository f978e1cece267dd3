//! What an operator may set.

use std::time::Duration;

/// Limits that keep one client from living at the expense of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a client may take over the head of a request. An idle connection is kept as long.
    pub head_timeout: Duration,
    /// How long a client may take to read an answer.
    pub write_timeout: Duration,
    /// The longest head (request line and headers) in bytes; less than 8 KiB counts as 8 KiB.
    pub max_head: usize,
    /// Open connections of one pod, or of one address on the node path.
    pub max_connections_per_pod: usize,
    /// Open connections of all together. Those of unknown pods and on the node path may be half of them.
    pub max_connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            max_head: 16 * 1024,
            max_connections_per_pod: 1024,
            max_connections: 8192,
        }
    }
}
