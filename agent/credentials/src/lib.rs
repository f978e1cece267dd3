//! Credentials for requests: from the cache, or by an exchange.
//!
//! [`Store::look_up`] is the road of nearly every request: one look into the cache, which also has
//! what was refused within the last seconds. What is not there is fetched by [`Store::fetch`].

mod config;
mod store;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use podcreds_cache::{Cache, Clock, Subject, Summary};
pub use podcreds_exchange::{ExchangeReport, LastError, Refreshed, Told};
pub use store::{Metrics, Store};
