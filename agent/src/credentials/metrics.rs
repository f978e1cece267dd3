//! What this stage counts.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

/// Counters of the cache and of the flights.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests that were answered from memory.
    pub(super) hits: IntCounter,
    /// Requests that started a flight.
    pub(super) misses: IntCounter,
    /// Requests that joined a flight.
    pub(super) joined: IntCounter,
    /// Pods with credentials in memory.
    pub(super) entries: IntGauge,
    /// Pods with a token in line.
    pub(super) flights: IntGauge,
    /// Requests that wait for a flight.
    pub(super) waiters: IntGauge,
    /// Exchanges by what came of them.
    pub(super) attempts: IntCounterVec,
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    ///
    /// # Errors
    ///
    /// When one of the names is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = add(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "podcreds_cache_requests_total",
                    "Requests for credentials, by what the cache did for them",
                ),
                &["result"],
            )?,
        )?;
        let attempts = IntCounterVec::new(
            Opts::new(
                "podcreds_flight_attempts_total",
                "Exchanges of tokens, by what came of them",
            ),
            &["outcome"],
        )?;
        for outcome in ["ok", "refused", "failed"] {
            attempts.with_label_values(&[outcome]);
        }
        Ok(Self {
            hits: requests.with_label_values(&["hit"]),
            misses: requests.with_label_values(&["miss"]),
            joined: requests.with_label_values(&["joined"]),
            entries: add(
                registry,
                IntGauge::new("podcreds_cache_entries", "Pods with credentials in memory")?,
            )?,
            flights: add(
                registry,
                IntGauge::new("podcreds_flights", "Pods whose tokens are being exchanged")?,
            )?,
            waiters: add(
                registry,
                IntGauge::new(
                    "podcreds_flight_waiters",
                    "Requests that wait for an exchange",
                )?,
            )?,
            attempts: add(registry, attempts)?,
        })
    }
}

/// Registers a metric and hands it back.
fn add<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
