//! What EKS Auth bears from one node.

use std::time::Instant;

use super::Fault;

/// A token bucket that holds one second's calls.
pub(crate) struct Quota {
    calls_per_second: f64,
    left: f64,
    updated: Instant,
}

impl Quota {
    /// One that is full.
    pub(crate) fn new(calls_per_second: usize, now: Instant) -> Self {
        let calls_per_second = calls_per_second as f64;
        Self {
            calls_per_second,
            left: calls_per_second,
            updated: now,
        }
    }

    /// Counts a call, or says how it fails.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Fault> {
        let won = (now - self.updated).as_secs_f64() * self.calls_per_second;
        self.left = (self.left + won).min(self.calls_per_second);
        self.updated = now;
        if self.left < 1.0 {
            return Some(Fault::Throttle { retry_after: None });
        }
        self.left -= 1.0;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_goes_beyond_a_seconds_calls_is_throttled() {
        let mut now = Instant::now();
        let mut quota = Quota::new(10, now);
        let good = |quota: &mut Quota, now| (0..100).filter(|_| quota.take(now).is_none()).count();
        assert_eq!(good(&mut quota, now), 10);
        now += Duration::from_millis(310);
        assert_eq!(good(&mut quota, now), 3);
        now += Duration::from_secs(5);
        assert_eq!(good(&mut quota, now), 10);
    }
}
