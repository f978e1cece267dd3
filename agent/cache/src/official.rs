//! What the cache did for requests once more, under the name that AWS's agent gives it.

use prometheus::{
    IntCounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{CacheResult, Metrics};

/// Sums of the cache's own counters, made whenever the metrics are asked for.
pub(crate) struct CacheState {
    /// Never counted in: it describes the metric.
    desc: IntCounterVec,
    metrics: Metrics,
}

impl CacheState {
    pub(crate) fn new(metrics: Metrics) -> prometheus::Result<Self> {
        let desc = counters()?;
        Ok(Self { desc, metrics })
    }
}

fn counters() -> prometheus::Result<IntCounterVec> {
    let opts = Opts::new(
        "pod_identity_cache_state",
        "Requests by what the cache did for them, and entries that were evicted.",
    );
    IntCounterVec::new(opts, &["state"])
}

impl Collector for CacheState {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(states) = counters() else {
            return Vec::new();
        };
        let total = |served: [CacheResult; 2]| served.map(|it| self.metrics.total(it)).iter().sum();
        for (state, count) in [
            ("hit", total([CacheResult::Hit, CacheResult::Stale])),
            ("miss", total([CacheResult::Miss, CacheResult::Joined])),
            ("evicted", self.metrics.evictions.get()),
        ] {
            states.with_label_values(&[state]).inc_by(count);
        }
        states.collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn states_are_sums_of_our_own_counters() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let counts = [
            (CacheResult::Hit, 2),
            (CacheResult::Stale, 2),
            (CacheResult::Miss, 4),
            (CacheResult::Joined, 8),
        ];
        for (served, count) in counts {
            (0..count).for_each(|_| metrics.count(served));
        }
        metrics.evictions.inc_by(16);
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
