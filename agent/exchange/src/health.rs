//! Whether EKS Auth answers, for the log: one line when it stops, one when it is back.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::{Metrics, UpstreamReport};

/// Single failures happen; so many in a row are a state.
const OUTAGE: u32 = 3;

/// Counts failures in a row.
pub(crate) struct UpstreamHealth {
    /// Since when, and how many.
    failing: Option<(Instant, u32)>,
    /// When the last usable answer came, and the last failure with its reason.
    last_answer: Option<SystemTime>,
    last_failure: Option<(SystemTime, String)>,
    metrics: Metrics,
}

impl UpstreamHealth {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            failing: None,
            last_answer: None,
            last_failure: None,
            metrics,
        }
    }

    /// How many failures in a row there are, when the last answer came, and the last failure.
    pub(crate) fn trouble(&self) -> UpstreamReport {
        UpstreamReport {
            failures_in_a_row: self.failing.map_or(0, |(_, failures)| failures),
            last_answer: self.last_answer,
            last_failure: self.last_failure.clone(),
        }
    }

    /// EKS Auth gave an answer, if only a refusal.
    pub(crate) fn answered(&mut self, now: SystemTime) {
        self.last_answer = Some(now);
        if let Some((since, failures)) = self.failing.take()
            && failures >= OUTAGE
        {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, failures, "EKS Auth answers again");
        }
        self.metrics.failures_in_a_row.set(0);
    }

    /// EKS Auth gave no usable answer.
    pub(crate) fn failed(&mut self, reason: &str, now: SystemTime) {
        self.last_failure = Some((now, reason.to_owned()));
        let (_, failures) = self.failing.get_or_insert_with(|| (Instant::now(), 0));
        *failures += 1;
        self.metrics.failures_in_a_row.set(i64::from(*failures));
        if *failures == OUTAGE {
            tracing::warn!(
                reason,
                "EKS Auth gives no usable answers: what is still valid is served, and it is \
                 tried again"
            );
        }
    }
}
