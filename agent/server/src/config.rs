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
    /// Open connections of all together. Those of unknown pods and on the node path may be half of
    /// them. One more takes the place of another caller's that has more.
    pub max_connections: usize,
    /// Service accounts whose requests are counted one by one; 0: none are.
    pub service_account_metrics: usize,
}

impl Config {
    /// Leaves half of the files that the process may open to everything that is no connection: each
    /// pod's listeners, first of all.
    pub fn fit_into(&mut self, open_files: u64) {
        let half = usize::try_from(open_files / 2).unwrap_or(usize::MAX);
        self.max_connections = self.max_connections.min(half).max(1);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            max_head: 16 * 1024,
            max_connections_per_pod: 512,
            max_connections: 768,
            service_account_metrics: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_to_listeners() {
        let mut config = Config::default();
        let wanted = config.max_connections;
        config.fit_into(1 << 20);
        assert_eq!(config.max_connections, wanted);
        config.fit_into(1000);
        assert_eq!(config.max_connections, 500);
    }
}
