//! How long requests and exchanges wait, and how many there may be.

use std::time::Duration;

/// The settings of exchanges.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest that a request waits for an exchange before it is told to come back (900 ms).
    /// SDKs hang up after 1 or 2 s, and only a 503 that they have seen makes all of them retry.
    pub client_wait: Duration,
    /// How long an exchange goes on trying after a request last asked for its outcome (60 s):
    /// longer than a program pauses that goes on trying.
    pub patience: Duration,
    /// How many different tokens of one pod may wait to be exchanged (4).
    pub tokens_per_pod: usize,
    /// How many tokens of unidentified callers may wait (512). Anyone on the node path can
    /// make up such tokens.
    pub unidentified: usize,
    /// How many of these may come from one place (128): as many as a delegate shows for the pods of
    /// a node that has just started.
    pub unidentified_each: usize,
    /// Renewals of credentials a second (3): `--max-service-qps`. First fetches, for which a
    /// request waits, are not held to it.
    pub max_renewals_per_second: f64,
    /// Calls to EKS Auth a second while it throttles nothing (100), of which 64 may go out at once.
    /// The limiter goes below that while EKS Auth throttles, and above where calls go on waiting
    /// for it.
    pub calls_per_second: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            client_wait: Duration::from_millis(900),
            patience: Duration::from_secs(60),
            tokens_per_pod: 4,
            unidentified: 512,
            unidentified_each: 128,
            max_renewals_per_second: 3.0,
            calls_per_second: 100.0,
        }
    }
}
