//! Redirected connects that no listener has accepted: what the kernel has sent away, less what has
//! come.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use podcreds_common::Counter;
use prometheus::IntGauge;

use crate::programs::ProgramCounters;

/// Compares what was redirected with what has arrived.
pub(crate) struct Arrivals {
    counters: ProgramCounters,
    arrived: Arc<AtomicU64>,
    balance: Balance,
    /// When that was.
    looked_at: Instant,
    gauge: IntGauge,
}

#[derive(Default)]
struct Balance {
    /// How many had been redirected at the last look.
    redirected: u64,
    /// How many were missing then.
    missing: u64,
}

impl Arrivals {
    /// Nothing has been redirected yet.
    pub(crate) fn new(counters: ProgramCounters, gauge: IntGauge) -> Self {
        Self {
            counters,
            arrived: Arc::default(),
            balance: Balance::default(),
            looked_at: Instant::now(),
            gauge,
        }
    }

    /// To be counted up for each redirected connection that is accepted.
    pub(crate) fn arrived(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.arrived)
    }

    /// How long ago the last look was.
    pub(crate) fn age(&self) -> Duration {
        self.looked_at.elapsed()
    }

    /// Whether more have gone missing since the last look. What was redirected since then may be on
    /// its way.
    pub(crate) fn has_more_missing(&mut self) -> bool {
        self.looked_at = Instant::now();
        let redirected = [Counter::RedirectedV4, Counter::RedirectedV6];
        let redirected = redirected.map(|counter| self.counters.total(counter));
        let arrived = self.arrived.load(Ordering::Relaxed);
        let more = self.balance.update(redirected.iter().sum(), arrived);
        let missing = i64::try_from(self.balance.missing).unwrap_or(i64::MAX);
        self.gauge.set(missing);
        more
    }
}

impl Balance {
    fn update(&mut self, redirected: u64, arrived: u64) -> bool {
        let missing = self.redirected.saturating_sub(arrived);
        let more = missing > self.missing;
        *self = Self {
            redirected,
            missing,
        };
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_not_missing_yet() {
        let mut balance = Balance::default();
        assert!(!balance.update(10, 7));
        assert!(balance.update(10, 8));
        assert_eq!(balance.missing, 2);
        // Said once, and again when there is more of it.
        assert!(!balance.update(20, 8));
        assert!(balance.update(20, 17));
        // One was only late.
        assert!(!balance.update(20, 18));
        assert_eq!(balance.missing, 2);
        assert!(!balance.update(20, 21));
        assert_eq!(balance.missing, 0);
    }
}
