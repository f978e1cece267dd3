//! How many calls a second EKS Auth is asked to bear.
//!
//! A token bucket whose rate adapts: halved when EKS Auth throttles, and won back bit by bit from
//! then on. Its owner never has to look up a quota.

use std::time::Duration;

use tokio::time::Instant;

/// Seconds whose calls may go out at once after a quiet while: a node that starts has some thirty
/// pods that want credentials together, and then none for hours.
const BURST: f64 = 10.0;
/// What is left of the rate after a throttled call.
const DECREASE: f64 = 0.5;
/// How long the whole rate would take to be won back; half of it takes half as long.
const RECOVERY: Duration = Duration::from_secs(120);
/// Calls that were in the air when the rate was lowered say nothing new if they are throttled too.
const ONE_DECREASE_PER: Duration = Duration::from_secs(1);
/// The slowest that we get, as a part of the configured rate.
const FLOOR: f64 = 0.02;
/// The longest that EKS Auth, or a proxy that answers in its place, can make us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The adaptive token bucket.
#[derive(Debug)]
pub(super) struct Rate {
    /// Calls a second, never exceeded.
    max: f64,
    /// Calls a second at present.
    now: f64,
    /// Calls that may go out at once.
    tokens: f64,
    /// When rate and tokens were last brought up to date.
    updated: Instant,
    lowered: Option<Instant>,
    blocked_until: Option<Instant>,
}

impl Rate {
    /// A full bucket, which is filled at `max` calls a second.
    pub(super) fn new(max: f64, now: Instant) -> Self {
        Self {
            max,
            now: max,
            tokens: capacity(max),
            updated: now,
            lowered: None,
            blocked_until: None,
        }
    }

    /// Calls a second at present.
    pub(super) fn per_second(&self) -> f64 {
        self.now
    }

    /// Whether EKS Auth has made us slower than we would be.
    pub(super) fn is_lowered(&self) -> bool {
        self.now < self.max
    }

    /// Says whether a call may go out.
    ///
    /// # Errors
    ///
    /// When to ask again.
    pub(super) fn ready(&mut self, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.blocked_until.filter(|until| *until > now) {
            return Err(until);
        }
        self.update(now);
        if self.tokens < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - self.tokens) / self.now);
            // A nanosecond more, lest rounding makes us ask in vain.
            return Err(now + wait + Duration::from_nanos(1));
        }
        Ok(())
    }

    /// Notes that a call goes out.
    pub(super) fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// A call was throttled: lowers the rate.
    pub(super) fn throttled(&mut self, now: Instant) {
        let known = self
            .lowered
            .is_some_and(|last| now.duration_since(last) < ONE_DECREASE_PER);
        if known {
            return;
        }
        self.update(now);
        self.lowered = Some(now);
        self.now = (self.now * DECREASE).max(self.max * FLOOR);
        self.tokens = self.tokens.min(0.0);
    }

    /// EKS Auth asked to be left alone.
    pub(super) fn blocked(&mut self, now: Instant, wait: Duration) {
        let until = now + wait.min(LONGEST_WAIT);
        self.blocked_until = self.blocked_until.max(Some(until));
    }

    /// Lets time pass: rate and tokens come back.
    pub(super) fn update(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        let won_back = self.max * elapsed / RECOVERY.as_secs_f64();
        self.now = (self.now + won_back).min(self.max);
        self.tokens = (self.tokens + elapsed * self.now).min(capacity(self.now));
    }
}

/// How many calls may go out at once, at so many a second.
fn capacity(rate: f64) -> f64 {
    (rate * BURST).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Calls that get through in `seconds`, each answered by `answer`.
    fn run(
        rate: &mut Rate,
        now: &mut Instant,
        seconds: u64,
        mut answer: impl FnMut(&mut Rate, Instant),
    ) -> usize {
        let end = *now + SECOND * seconds as u32;
        let mut calls = 0;
        while *now < end {
            match rate.ready(*now) {
                Ok(()) => {
                    rate.spend();
                    calls += 1;
                    answer(rate, *now);
                }
                Err(then) => *now = then.min(end),
            }
        }
        calls
    }

    #[test]
    fn the_configured_rate_is_kept_after_one_burst() {
        let mut now = Instant::now();
        let mut rate = Rate::new(3.0, now);
        let calls = run(&mut rate, &mut now, 100, |_, _| {});
        assert!((329..=330).contains(&calls), "{calls}");
    }

    #[test]
    fn throttling_halves_the_rate_once_a_second_and_not_to_nothing() {
        let mut now = Instant::now();
        let mut rate = Rate::new(4.0, now);
        rate.throttled(now);
        rate.throttled(now);
        assert_eq!(rate.per_second(), 2.0, "twice the same news");
        for _ in 0..100 {
            now += SECOND;
            rate.throttled(now);
        }
        assert_eq!(rate.per_second(), 0.08);
        assert!(rate.is_lowered());
    }

    #[test]
    fn the_rate_is_won_back_within_a_minute_or_two() {
        let mut now = Instant::now();
        let mut rate = Rate::new(3.0, now);
        rate.throttled(now);
        now += 59 * SECOND;
        rate.update(now);
        assert!(rate.is_lowered());
        now += 2 * SECOND;
        rate.update(now);
        assert!(!rate.is_lowered(), "{}", rate.per_second());
    }

    #[test]
    fn it_settles_near_what_upstream_bears() {
        let mut now = Instant::now();
        let mut rate = Rate::new(10.0, now);
        let mut upstream = Rate::new(2.0, now);
        let mut served = 0;
        run(&mut rate, &mut now, 600, |rate, now| {
            if upstream.ready(now).is_ok() {
                upstream.spend();
                served += 1;
            } else {
                rate.throttled(now);
            }
        });
        // Upstream would have served 1,200.
        assert!(served > 800, "{served}");
        assert!(rate.per_second() < 5.0, "{}", rate.per_second());
    }

    #[test]
    fn retry_after_is_honoured_but_not_for_ever() {
        let now = Instant::now();
        let mut rate = Rate::new(3.0, now);
        rate.blocked(now, SECOND * 7);
        rate.blocked(now, SECOND);
        assert_eq!(rate.ready(now), Err(now + SECOND * 7));
        assert!(rate.ready(now + SECOND * 7).is_ok());
        rate.blocked(now, SECOND * 100_000);
        assert_eq!(rate.ready(now), Err(now + LONGEST_WAIT));
    }
}
