//! Whether EKS Auth answers, for the log: one line when it stops, one when it is back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::Metrics;

/// Single failures happen; so many in a row are a state.
const OUTAGE: u32 = 3;

/// Counts failures in a row.
pub(super) struct Health {
    failing: Mutex<Option<(Instant, u32)>>,
    metrics: Metrics,
}

impl Health {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            failing: Mutex::new(None),
            metrics,
        }
    }

    /// EKS Auth gave an answer, if only a refusal.
    pub(super) fn answered(&self) {
        let before = self.lock().take();
        // Whoever reads the log may be slow: nothing is written with the lock held.
        if let Some((since, failures)) = before
            && failures >= OUTAGE
        {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, failures, "EKS Auth answers again");
        }
        self.metrics.failures_in_a_row.set(0);
    }

    /// EKS Auth gave no usable answer.
    pub(super) fn failed(&self, reason: &str) {
        let failures = {
            let mut failing = self.lock();
            let (_, failures) = failing.get_or_insert_with(|| (Instant::now(), 0));
            *failures += 1;
            *failures
        };
        self.metrics.failures_in_a_row.set(i64::from(failures));
        if failures == OUTAGE {
            tracing::warn!(
                reason,
                "EKS Auth gives no usable answers: what is still valid is served, and it is \
                 tried again"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, u32)>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
