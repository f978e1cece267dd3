//! The settings of the cache and of exchanges.

use std::time::Duration;

use podcreds_cache as cache;
use podcreds_exchange as exchange;

/// The settings of the cache and of exchanges.
#[derive(Clone, Debug)]
pub struct Config {
    /// How much is kept, and for how long (2,000 pods, 3 h).
    pub cache: cache::Config,
    /// How long requests and exchanges wait, and how many there may be.
    pub exchange: exchange::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache: cache::Config {
                capacity: 2000,
                retention: Duration::from_secs(3 * 60 * 60),
            },
            exchange: exchange::Config::default(),
        }
    }
}
