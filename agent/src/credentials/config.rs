//! How long things are waited for and kept.

use std::time::Duration;

/// The credentials stage's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest that a request waits for a flight before it is told to come back (900 ms).
    /// SDKs hang up after 1 or 2 s, and only a 503 that they have seen makes all of them retry.
    pub client_wait: Duration,
    /// How long a flight goes on trying after somebody last asked for its outcome (30 s).
    pub patience: Duration,
    /// How many different tokens of one pod may wait to be exchanged (4).
    pub tokens_per_pod: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            client_wait: Duration::from_millis(900),
            patience: Duration::from_secs(30),
            tokens_per_pod: 4,
        }
    }
}
