//! The cache's metrics once more, under the names that AWS's agent gives them.

use std::sync::{Mutex, PoisonError};

use podcreds_upstream::UpstreamError;
use prometheus::{
    IntCounter, IntCounterVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Refreshes that failed. The others are read from our own counters.
#[derive(Clone, Debug)]
pub(super) struct CacheErrors(pub(super) IntCounterVec);

impl CacheErrors {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let errors = IntCounterVec::new(
            Opts::new(
                "pod_identity_cache_errors",
                "Refreshes that failed: NonRecoverable ones, which took the credentials, and \
                 Recoverable ones.",
            ),
            &["type", "code"],
        )?;
        registry.register(Box::new(errors.clone()))?;
        Ok(Self(errors))
    }

    /// Notes a refresh that failed.
    pub(super) fn failed(&self, error: &UpstreamError) {
        let labels = match error {
            UpstreamError::Refused(refusal) => ["NonRecoverable", &refusal.code],
            UpstreamError::Rejected { code, .. } => ["Recoverable", code],
            UpstreamError::Throttled { .. } => ["Recoverable", "ThrottlingException"],
            UpstreamError::Unavailable { .. } => ["Recoverable", "ServiceUnavailableException"],
        };
        self.0.with_label_values(&labels).inc();
    }
}

/// What the cache did for requests, whenever the metrics are asked for.
pub(super) struct CacheState {
    states: IntCounterVec,
    /// Our own counters that make up each state.
    parts: [(&'static str, Vec<IntCounter>); 3],
    /// Keeps two scrapes from filling in the values at once.
    scrape: Mutex<()>,
}

impl CacheState {
    pub(super) fn register(
        registry: &Registry,
        hits: [&IntCounter; 2],
        misses: [&IntCounter; 2],
        evictions: &IntCounter,
    ) -> prometheus::Result<()> {
        let states = IntCounterVec::new(
            Opts::new(
                "pod_identity_cache_state",
                "Requests that were answered from memory (hit) or waited for EKS Auth (miss), and \
                 credentials that made room for others (evicted).",
            ),
            &["state"],
        )?;
        registry.register(Box::new(Self {
            states,
            parts: [
                ("hit", hits.map(IntCounter::clone).to_vec()),
                ("miss", misses.map(IntCounter::clone).to_vec()),
                ("evicted", vec![evictions.clone()]),
            ],
            scrape: Mutex::default(),
        }))
    }
}

impl Collector for CacheState {
    fn desc(&self) -> Vec<&Desc> {
        self.states.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _scrape = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        for (state, counters) in &self.parts {
            let metric = self.states.with_label_values(&[*state]);
            metric.reset();
            metric.inc_by(counters.iter().map(IntCounter::get).sum());
        }
        self.states.collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn states_are_sums_of_our_own_counters() {
        let registry = Registry::new();
        let counters = [1, 2, 4, 8, 16].map(|count| {
            let counter = IntCounter::new("own", "own").unwrap();
            counter.inc_by(count);
            counter
        });
        let [hits, stale, misses, joined, evictions] = &counters;
        CacheState::register(&registry, [hits, stale], [misses, joined], evictions).unwrap();
        hits.inc();
        for _ in 0..2 {
            let text = TextEncoder::new().encode_to_string(&registry.gather());
            let text = text.unwrap();
            for state in ["hit\"} 4", "miss\"} 12", "evicted\"} 16"] {
                let line = format!("\npod_identity_cache_state{{state=\"{state}\n");
                assert!(text.contains(&line), "{text}");
            }
        }
    }
}
