//! A fixed number of calls a second, for the kinds of calls that nobody waits for, or in vain.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that holds one second's calls, and one at least.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    tokens: f64,
    updated: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(per_second: f64, now: Instant) -> Self {
        Self {
            per_second,
            tokens: per_second.max(1.0),
            updated: now,
        }
    }

    /// Says whether a call may go out.
    ///
    /// # Errors
    ///
    /// When to ask again.
    pub(super) fn ready(&mut self, now: Instant) -> Result<(), Instant> {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.per_second.max(1.0));
        until_one(self.tokens, self.per_second).map_or(Ok(()), |wait| Err(now + wait))
    }

    /// Notes that a call goes out.
    pub(super) fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// Takes that back: it has not gone out after all.
    pub(super) fn refund(&mut self) {
        self.tokens += 1.0;
    }
}

/// How long a bucket takes until it holds a whole token, unless it does already.
pub(super) fn until_one(tokens: f64, per_second: f64) -> Option<Duration> {
    // What many fractions add up to may be a hair less than it should be.
    const HAIR: f64 = 1e-9;
    let missing = 1.0 - HAIR - tokens;
    if missing <= 0.0 {
        return None;
    }
    // A nanosecond more: a wait that was rounded down would end before the token is there.
    Some(Duration::from_secs_f64(missing / per_second) + Duration::from_nanos(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn calls(bucket: &mut Bucket, now: &mut Instant, seconds: u32) -> usize {
        let end = *now + SECOND * seconds;
        let mut calls = 0;
        while *now < end {
            match bucket.ready(*now) {
                Ok(()) => {
                    bucket.spend();
                    calls += 1;
                }
                Err(then) => *now = then.min(end),
            }
        }
        calls
    }

    #[test]
    fn the_rate_is_kept_with_one_seconds_calls_at_once() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(3.0, now);
        assert_eq!(calls(&mut bucket, &mut now, 1), 5);
        assert_eq!(calls(&mut bucket, &mut now, 100), 300);
        now += SECOND * 1000;
        assert_eq!(calls(&mut bucket, &mut now, 1), 5, "not a burst of hours");
    }

    #[test]
    fn a_call_that_does_not_go_out_costs_nothing() {
        let now = Instant::now();
        let mut bucket = Bucket::new(0.5, now);
        for _ in 0..10 {
            bucket.ready(now).unwrap();
            bucket.spend();
            bucket.refund();
        }
        bucket.spend();
        assert!(bucket.ready(now + SECOND).is_err());
        assert!(bucket.ready(now + 2 * SECOND).is_ok());
    }
}
