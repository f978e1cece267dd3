//! What this stage counts.

use std::time::Duration;

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

use super::official::{CacheErrors, CacheState};

/// Seconds: one minute, ten minutes, then the ages at which 59-minute and 6-hour credentials are
/// refreshed and grow stale.
const AGES: [f64; 7] = [60.0, 600.0, 2400.0, 3540.0, 10800.0, 18000.0, 21600.0];

/// Counters and gauges of the cache, the flights and the limiter.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests that were answered from memory. Each request counts once, here or below.
    pub(super) hits: IntCounter,
    /// Requests that got credentials near their end, because there were none newer.
    pub(super) stale: IntCounter,
    /// Requests that waited for an exchange of their own.
    pub(super) misses: IntCounter,
    /// Requests that waited for an exchange that others waited for.
    pub(super) joined: IntCounter,
    /// Requests that were refused from memory.
    pub(super) refused: IntCounter,
    /// Requests that found no room to wait.
    pub(super) overloaded: IntCounter,
    /// Age of credentials when they were handed out from memory, in seconds.
    pub(super) hit_age: Histogram,
    /// Pods with credentials in memory.
    pub(super) entries: IntGauge,
    /// Bytes that these take.
    pub(super) bytes: IntGauge,
    /// Entries that made room for others.
    pub(super) evictions: IntCounter,
    /// Seconds until the first of the credentials in memory expires that are asked for, or NaN.
    pub(super) nearest_expiry: Gauge,
    /// Tokens that got credentials without an exchange, by their signature.
    pub(super) adopted: IntCounter,
    /// Tokens that the cluster has not signed, though they say so.
    pub(super) forged: IntCounter,
    /// Refused tokens that are remembered.
    pub(super) refusals: IntGauge,
    /// Pods with a token in line.
    pub(super) flights: IntGauge,
    /// Pods whose last exchange or refresh failed.
    pub(super) backing_off: IntGauge,
    /// Requests that wait for a flight.
    pub(super) waiters: IntGauge,
    /// Exchanges by their purpose and what came of them.
    pub(super) attempts: IntCounterVec,
    /// Exchanges without a usable answer since the last one with.
    pub(super) failures_in_a_row: IntGauge,
    /// Refreshes that failed, as AWS's agent counts them.
    pub(super) cache_errors: CacheErrors,
    /// Calls a second that the limiter lets through.
    pub(super) limiter_rate: Gauge,
    /// Calls to EKS Auth that are in flight.
    pub(super) limiter_in_flight: IntGauge,
    /// Calls in the limiter's queue that a request waits for.
    pub(super) queue_asked: IntGauge,
    /// Refreshes in the limiter's queue.
    pub(super) queue_refreshes: IntGauge,
    /// Calls in the limiter's queue for tokens that have just been refused.
    pub(super) queue_doubtful: IntGauge,
}

impl Metrics {
    /// Notes a request that was answered from memory, with credentials of that age.
    pub(super) fn hit(&self, age: Duration) {
        self.hits.inc();
        self.hit_age.observe(age.as_secs_f64());
    }

    /// Makes the metrics known to `registry`.
    ///
    /// # Errors
    ///
    /// When one of the names is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| add(registry, IntCounter::new(name, help)?);
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help)?);
        let requests = requests(registry)?;
        let queue = queue(registry)?;
        let metrics = Self {
            hits: requests.with_label_values(&["hit"]),
            stale: requests.with_label_values(&["stale"]),
            misses: requests.with_label_values(&["miss"]),
            joined: requests.with_label_values(&["joined"]),
            refused: requests.with_label_values(&["refused"]),
            overloaded: requests.with_label_values(&["overloaded"]),
            hit_age: hit_age(registry)?,
            entries: gauge("podcreds_cache_entries", "Pods with credentials in memory")?,
            bytes: gauge("podcreds_cache_bytes", "Memory that credentials take")?,
            evictions: counter(
                "podcreds_cache_evictions_total",
                "Credentials that made room for those of other pods",
            )?,
            nearest_expiry: add(
                registry,
                Gauge::new(
                    "podcreds_cache_nearest_expiry_seconds",
                    "Time until the first of the credentials in memory expires that are asked for (NaN: there are none)",
                )?,
            )?,
            adopted: counter(
                "podcreds_tokens_adopted_total",
                "Rotated tokens that were accepted by their signature alone",
            )?,
            forged: counter(
                "podcreds_tokens_forged_total",
                "Tokens that one of the cluster's keys has not signed, though they say so",
            )?,
            refusals: gauge(
                "podcreds_refusals_remembered",
                "Tokens that are refused from memory for a few seconds",
            )?,
            flights: gauge("podcreds_flights", "Pods whose tokens are being exchanged")?,
            backing_off: gauge(
                "podcreds_flights_backing_off",
                "Pods whose last exchange failed and will be tried again",
            )?,
            waiters: gauge(
                "podcreds_flight_waiters",
                "Requests that wait for an exchange",
            )?,
            attempts: attempts(registry)?,
            failures_in_a_row: gauge(
                "podcreds_upstream_consecutive_failures",
                "Exchanges without a usable answer since the last one with",
            )?,
            cache_errors: CacheErrors::register(registry)?,
            limiter_rate: add(
                registry,
                Gauge::new(
                    "podcreds_limiter_calls_per_second",
                    "Calls to EKS Auth that are let through each second",
                )?,
            )?,
            limiter_in_flight: gauge(
                "podcreds_limiter_calls_in_flight",
                "Calls to EKS Auth that have not ended yet",
            )?,
            queue_asked: queue.with_label_values(&["asked"]),
            queue_refreshes: queue.with_label_values(&["refresh"]),
            queue_doubtful: queue.with_label_values(&["doubtful"]),
        };
        CacheState::register(
            registry,
            [&metrics.hits, &metrics.stale],
            [&metrics.misses, &metrics.joined],
            &metrics.evictions,
        )?;
        Ok(metrics)
    }
}

fn requests(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let opts = Opts::new(
        "podcreds_cache_requests_total",
        "Requests for credentials, by what the cache did for them",
    );
    add(registry, IntCounterVec::new(opts, &["result"])?)
}

fn queue(registry: &Registry) -> prometheus::Result<IntGaugeVec> {
    let opts = Opts::new(
        "podcreds_limiter_queue",
        "Calls to EKS Auth that wait for their turn, by urgency",
    );
    add(registry, IntGaugeVec::new(opts, &["urgency"])?)
}

fn hit_age(registry: &Registry) -> prometheus::Result<Histogram> {
    let opts = HistogramOpts::new(
        "podcreds_cache_hit_age_seconds",
        "Age of credentials that were handed out from memory",
    );
    add(registry, Histogram::with_opts(opts.buckets(AGES.to_vec()))?)
}

fn attempts(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let opts = Opts::new(
        "podcreds_flight_attempts_total",
        "Exchanges of tokens, by purpose and by what came of them",
    );
    let attempts = add(registry, IntCounterVec::new(opts, &["purpose", "outcome"])?)?;
    for purpose in ["asked", "refresh"] {
        for outcome in ["ok", "refused", "rejected", "failed"] {
            attempts.with_label_values(&[purpose, outcome]);
        }
    }
    Ok(attempts)
}

/// Registers a metric and hands it back.
fn add<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
