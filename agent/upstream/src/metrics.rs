//! What this stage counts.

use std::time::Duration;

use podcreds_types::{Credentials, EksRefusal};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::UpstreamError;

/// Seconds. EKS Auth answers in tens of milliseconds; the last bucket is what a call may take
/// without the look-up of the node's credentials.
const BUCKETS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// EKS Auth's error codes about one token. What else it may say counts as [`OTHER`].
const CODES: [&str; 6] = [
    "AccessDeniedException",
    "ExpiredTokenException",
    "InvalidParameterException",
    "InvalidRequestException",
    "InvalidTokenException",
    "ResourceNotFoundException",
];
const OTHER: &str = "other";

/// The latency of calls to EKS Auth, by how they ended, and why tokens were refused.
#[derive(Clone, Debug)]
pub struct Metrics {
    calls: HistogramVec,
    refusals: IntCounterVec,
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
        let refusals = IntCounterVec::new(
            Opts::new(
                "podcreds_upstream_refusals_total",
                "Tokens that EKS Auth has refused, or whose requests it has rejected, by its error \
                 code",
            ),
            &["code"],
        )?;
        registry.register(Box::new(refusals.clone()))?;
        for code in CODES.into_iter().chain([OTHER]) {
            refusals.with_label_values(&[code]);
        }
        Ok(Self { calls, refusals })
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
        if let Err(
            UpstreamError::Refused(EksRefusal { code, .. }) | UpstreamError::Rejected { code, .. },
        ) = outcome
        {
            let known = CODES.into_iter().find(|known| known == code);
            let code = known.unwrap_or(OTHER);
            self.refusals.with_label_values(&[code]).inc();
        }
        self.calls
            .with_label_values(&[label])
            .observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_codes_that_are_known() {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        for code in ["InvalidParameterException", "Whatever", "502"] {
            let error = UpstreamError::Rejected {
                code: code.to_owned(),
                message: String::new(),
            };
            metrics.called(Duration::ZERO, &Err(error));
        }
        metrics.called(Duration::ZERO, &Err(UpstreamError::unavailable("down")));
        let count = |code| metrics.refusals.with_label_values(&[code]).get();
        assert_eq!(count("InvalidParameterException"), 1);
        assert_eq!(count(OTHER), 2);
    }
}
