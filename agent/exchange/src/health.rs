//! Whether EKS Auth answers, for the log: one line when it stops, one when it is back.

use tokio::time::Instant;

use crate::Metrics;

/// Single failures happen; so many in a row are a state.
const OUTAGE: u32 = 3;

/// Counts failures in a row.
pub(crate) struct Health {
    /// Since when, and how many.
    failing: Option<(Instant, u32)>,
    metrics: Metrics,
}

impl Health {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            failing: None,
            metrics,
        }
    }

    /// EKS Auth gave an answer, if only a refusal.
    pub(crate) fn answered(&mut self) {
        if let Some((since, failures)) = self.failing.take()
            && failures >= OUTAGE
        {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, failures, "EKS Auth answers again");
        }
        self.metrics.failures_in_a_row.set(0);
    }

    /// EKS Auth gave no usable answer.
    pub(crate) fn failed(&mut self, reason: &str) {
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
