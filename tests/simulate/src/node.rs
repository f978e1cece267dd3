//! One node: the agent's own store, as the agent starts it.

use std::sync::Arc;

use anyhow::Result;
use podcreds_credentials::{Clock, Config, Metrics, Store};
use podcreds_types::Vitals;
use prometheus::Registry;
use tokio::runtime::Handle;

use crate::{eks_auth::SimulatedEksAuth, keys::SimulatedKeys};

/// A store with the default settings that asks `eks_auth`, in the runtime that runs this.
///
/// # Errors
///
/// When two metrics have one name.
pub fn store(eks_auth: &SimulatedEksAuth, clock: Clock) -> Result<Store> {
    let metrics = Metrics::register(&Registry::new())?;
    let store = Store::start(
        Config::default(),
        Arc::new(eks_auth.clone()),
        Some(Arc::new(SimulatedKeys)),
        clock,
        &metrics,
        &Handle::current(),
        Vitals::default().task("exchanging"),
    )?;
    Ok(store)
}
