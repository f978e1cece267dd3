//! Whether the cluster's keys can be had.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counts fetches of the keys. Clones are the same counters.
#[derive(Clone, Debug)]
pub struct Metrics {
    keys: IntGauge,
    ok: IntCounter,
    failed: IntCounter,
    failures_in_a_row: IntGauge,
    last_fetch: Gauge,
}

impl Metrics {
    /// Registers the metrics of this stage.
    ///
    /// # Errors
    ///
    /// When a metric of the same name is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let fetches = IntCounterVec::new(
            Opts::new(
                "podcreds_key_fetches_total",
                "Fetches of the cluster's keys: ok, failed. They are fetched when a token needs it.",
            ),
            &["outcome"],
        )?;
        let metrics = Self {
            keys: IntGauge::new(
                "podcreds_keys",
                "Keys of the cluster that are known. 0: rotated tokens are exchanged at EKS Auth.",
            )?,
            ok: fetches.with_label_values(&["ok"]),
            failed: fetches.with_label_values(&["failed"]),
            failures_in_a_row: IntGauge::new(
                "podcreds_keys_consecutive_failures",
                "Fetches of the cluster's keys that failed since the last one that did not.",
            )?,
            last_fetch: Gauge::new(
                "podcreds_keys_last_fetch_timestamp_seconds",
                "When the cluster's keys were last fetched, as a Unix time (0: never).",
            )?,
        };
        registry.register(Box::new(fetches))?;
        registry.register(Box::new(metrics.keys.clone()))?;
        registry.register(Box::new(metrics.failures_in_a_row.clone()))?;
        registry.register(Box::new(metrics.last_fetch.clone()))?;
        Ok(metrics)
    }

    /// So many keys have come.
    pub(super) fn fetched(&self, keys: usize) {
        self.ok.inc();
        self.failures_in_a_row.set(0);
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.last_fetch.set(now.unwrap_or_default().as_secs_f64());
    }

    /// None have come.
    pub(super) fn failed(&self) {
        self.failed.inc();
        self.failures_in_a_row.inc();
    }
}
