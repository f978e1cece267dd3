//! What this stage counts.

use std::time::Duration;

use podcreds_types::Credentials;
use prometheus::{HistogramOpts, HistogramVec, Registry};

use super::UpstreamError;

/// Seconds. EKS Auth answers in tens of milliseconds; the last bucket is what a call may take
/// without the look-up of the node's credentials.
const BUCKETS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// The latency of calls to EKS Auth, by how they ended.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: HistogramVec,
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    ///
    /// # Errors
    ///
    /// When one of the names is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let calls = HistogramVec::new(
            HistogramOpts::new(
                "podcreds_upstream_request_duration_seconds",
                "Duration of AssumeRoleForPodIdentity calls, by outcome",
            )
            .buckets(BUCKETS.to_vec()),
            &["outcome"],
        )?;
        registry.register(Box::new(calls.clone()))?;
        for outcome in ["ok", "refused", "rejected", "throttled", "unavailable"] {
            calls.with_label_values(&[outcome]);
        }
        Ok(Self { calls })
    }

    /// Notes one call.
    pub(super) fn called(&self, took: Duration, outcome: &Result<Credentials, UpstreamError>) {
        let label = match outcome {
            Ok(_) => "ok",
            Err(UpstreamError::Refused(_)) => "refused",
            Err(UpstreamError::Rejected { .. }) => "rejected",
            Err(UpstreamError::Throttled { .. }) => "throttled",
            Err(UpstreamError::Unavailable { .. }) => "unavailable",
        };
        self.calls
            .with_label_values(&[label])
            .observe(took.as_secs_f64());
    }
}
