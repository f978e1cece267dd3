//! What exchanges and the rate limiter count.

use std::time::Duration;

use podcreds_upstream::UpstreamError;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, core::Collector,
};

use crate::limiter::CallKind;

/// What calls are for: a request, a renewal, and a request with a token that was just refused.
const URGENCIES: [&str; 3] = ["asked", "refresh", "doubtful"];

/// Seconds: no wait to speak of, the pace of renewals, what a request waits, and a throttled
/// cluster.
const WAITS: [f64; 8] = [0.001, 0.01, 0.1, 0.5, 0.9, 5.0, 30.0, 120.0];

/// Counters and gauges of the exchanges and the rate limiter. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Tokens that got credentials without an exchange, by their signature.
    pub(crate) adopted: IntCounter,
    /// Tokens that the cluster has not signed, though they say so.
    pub(crate) forged: IntCounter,
    /// Subjects with a token in a queue.
    pub(crate) exchanges: IntGauge,
    /// Subjects whose last attempt failed.
    pub(crate) backing_off: IntGauge,
    /// Requests that wait for an exchange.
    pub(crate) waiters: IntGauge,
    /// Attempts by their purpose and what came of them.
    attempts: IntCounterVec,
    /// Attempts without a usable answer since the last one with.
    pub(crate) failures_in_a_row: IntGauge,
    /// Renewals that failed, as AWS's agent counts them.
    renewal_errors: IntCounterVec,
    /// Calls a second that the limiter lets through.
    pub(crate) limiter_rate: Gauge,
    /// Calls to EKS Auth that are in flight.
    pub(crate) limiter_in_flight: IntGauge,
    /// How long calls were in the limiter's queue, by their kind.
    pub(crate) waits: [Histogram; 3],
    /// Calls in the limiter's queue that a request waits for.
    pub(crate) queue_asked: IntGauge,
    /// Renewals in the limiter's queue.
    pub(crate) queue_renewals: IntGauge,
    /// Calls in the limiter's queue for tokens that have just been refused.
    pub(crate) queue_doubtful: IntGauge,
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    ///
    /// # Errors
    ///
    /// When one of the names is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| add(registry, IntCounter::new(name, help)?);
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help)?);
        let queue = queue(registry)?;
        Ok(Self {
            adopted: counter(
                "podcreds_tokens_adopted_total",
                "Rotated tokens that were accepted by their signature alone",
            )?,
            forged: counter(
                "podcreds_tokens_forged_total",
                "Tokens that one of the cluster's keys has not signed, though they say so",
            )?,
            exchanges: gauge(
                "podcreds_exchanges",
                "Pods whose tokens are being exchanged",
            )?,
            backing_off: gauge(
                "podcreds_exchanges_backing_off",
                "Pods whose last exchange failed and will be tried again",
            )?,
            waiters: gauge(
                "podcreds_exchange_waiters",
                "Requests that wait for an exchange",
            )?,
            attempts: attempts(registry)?,
            failures_in_a_row: gauge(
                "podcreds_upstream_consecutive_failures",
                "Calls without a usable answer since the last one with",
            )?,
            renewal_errors: add(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "pod_identity_cache_errors",
                        "Renewals that failed: NonRecoverable ones, which took the credentials, and \
                         Recoverable ones.",
                    ),
                    &["type", "code"],
                )?,
            )?,
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
            waits: waits(registry)?,
            queue_asked: queue.with_label_values(&["asked"]),
            queue_renewals: queue.with_label_values(&["refresh"]),
            queue_doubtful: queue.with_label_values(&["doubtful"]),
        })
    }

    /// Counts an attempt by its purpose and what came of it.
    pub(crate) fn attempt(&self, asked: bool, outcome: &str) {
        let purpose = if asked { "asked" } else { "refresh" };
        self.attempts.with_label_values(&[purpose, outcome]).inc();
    }

    /// Notes how long a call has waited for its turn.
    pub(crate) fn waited(&self, kind: CallKind, wait: Duration) {
        let [asked, renewals, doubtful] = &self.waits;
        let waits = match kind {
            CallKind::Asked => asked,
            CallKind::Renewal => renewals,
            CallKind::Doubtful => doubtful,
        };
        waits.observe(wait.as_secs_f64());
    }

    /// Counts a renewal that failed.
    pub(crate) fn renewal_failed(&self, error: &UpstreamError) {
        let labels = match error {
            UpstreamError::Refused(refusal) => ["NonRecoverable", &refusal.code],
            UpstreamError::Rejected { code, .. } => ["Recoverable", code],
            UpstreamError::Throttled { .. } => ["Recoverable", "ThrottlingException"],
            UpstreamError::Unavailable { .. } => ["Recoverable", "ServiceUnavailableException"],
        };
        self.renewal_errors.with_label_values(&labels).inc();
    }

    /// Nothing is in flight and nobody waits: the task starts.
    pub(crate) fn reset(&self) {
        self.exchanges.set(0);
        self.backing_off.set(0);
        self.waiters.set(0);
    }
}

fn waits(registry: &Registry) -> prometheus::Result<[Histogram; 3]> {
    let opts = HistogramOpts::new(
        "podcreds_limiter_wait_duration_seconds",
        "Time that calls to EKS Auth have waited for their turn, by urgency",
    );
    let waits = HistogramVec::new(opts.buckets(WAITS.to_vec()), &["urgency"])?;
    let waits = add(registry, waits)?;
    Ok(URGENCIES.map(|urgency| waits.with_label_values(&[urgency])))
}

fn queue(registry: &Registry) -> prometheus::Result<IntGaugeVec> {
    let opts = Opts::new(
        "podcreds_limiter_queue",
        "Calls to EKS Auth that wait for their turn, by urgency",
    );
    add(registry, IntGaugeVec::new(opts, &["urgency"])?)
}

fn attempts(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let opts = Opts::new(
        "podcreds_exchange_attempts_total",
        "Attempts to exchange tokens, by purpose and by what came of them",
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
