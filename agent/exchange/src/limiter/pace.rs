//! How many calls a second EKS Auth is asked to bear.
//!
//! Nobody knows its quota, and other nodes use it too. So the pace starts high, is halved when EKS
//! Auth throttles, and comes back along a cubic curve, as in the AWS SDKs' adaptive retry mode:
//! fast at first, slowly past the pace that was too much, then faster. Where calls keep waiting for
//! the pace and nothing is throttled, it rises above its start in the same way.

use std::time::Duration;

use tokio::time::Instant;

use super::bucket::until_one;

/// Seconds whose calls may go out at once after a quiet while.
const BURST: f64 = 0.64;
/// What is left of the pace after a throttled call.
const DECREASE: f64 = 0.5;
/// How fast the pace rises, in calls a second per cubic second.
const RISE: f64 = 0.2;
/// A pace below which it rises more slowly, in calls a second: where EKS Auth bears little, most of
/// what is tried too early is throttled.
const SLOW: f64 = 10.0;
/// What is left of the rise at the slowest pace.
const SLOWEST_RISE: f64 = 0.1;
/// The slowest that the pace gets, in calls a second.
const FLOOR: f64 = 0.1;
/// How far the pace can rise above its start.
const MOST: f64 = 10.0;
/// The longest that EKS Auth, or a proxy that answers in its place, can make the agent wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The adaptive token bucket.
#[derive(Debug)]
pub(super) struct Pace {
    /// Calls a second while nothing has been throttled.
    start: f64,
    /// Calls a second at present.
    now: f64,
    /// Calls that may go out at once.
    tokens: f64,
    /// When pace and tokens were last brought up to date.
    updated: Instant,
    lowered: Option<Lowered>,
    /// Whether a call waits for the pace, and nothing else.
    is_pressing: bool,
    /// How long that has been so without a break.
    pressing: Duration,
    blocked_until: Option<Instant>,
}

/// The last time that EKS Auth throttled.
#[derive(Debug)]
struct Lowered {
    /// The pace that was too much.
    from: f64,
    at: Instant,
}

impl Lowered {
    /// The pace to which it has come back.
    fn pace(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        let rise = RISE * (self.from / SLOW).clamp(SLOWEST_RISE, 1.0);
        let back_after = (self.from * (1.0 - DECREASE) / rise).cbrt();
        self.from + rise * (since - back_after).powi(3)
    }
}

impl Pace {
    /// A full bucket, at `start` calls a second.
    pub(super) fn new(start: f64, now: Instant) -> Self {
        Self {
            start,
            now: start,
            tokens: capacity(start),
            updated: now,
            lowered: None,
            is_pressing: false,
            pressing: Duration::ZERO,
            blocked_until: None,
        }
    }

    /// Calls a second at present.
    pub(super) fn per_second(&self) -> f64 {
        self.now
    }

    /// Whether EKS Auth has made the agent slower than it would be.
    pub(super) fn is_lowered(&self) -> bool {
        self.lowered.is_some()
    }

    /// How long EKS Auth still wants to be left alone.
    pub(super) fn block(&self, now: Instant) -> Option<Duration> {
        let until = self.blocked_until.filter(|until| *until > now)?;
        Some(until - now)
    }

    /// Says whether a call may go out.
    ///
    /// # Errors
    ///
    /// When to ask again.
    pub(super) fn ready(&mut self, now: Instant) -> Result<(), Instant> {
        self.update(now);
        if let Some(wait) = self.block(now) {
            self.is_pressing = false;
            return Err(now + wait);
        }
        let wait = until_one(self.tokens, self.now);
        self.is_pressing = wait.is_some();
        wait.map_or(Ok(()), |wait| Err(now + wait))
    }

    /// Notes that a call goes out.
    pub(super) fn spend(&mut self) {
        self.tokens -= 1.0;
    }

    /// Takes that back: it has not gone out after all.
    pub(super) fn refund(&mut self) {
        self.tokens += 1.0;
    }

    /// A call that went out at `started` was throttled. Lowers the pace, unless that was done
    /// since.
    pub(super) fn throttled(&mut self, started: Instant, now: Instant) {
        if self.lowered.as_ref().is_some_and(|it| started < it.at) {
            return;
        }
        self.update(now);
        let from = self.now.min(self.start).max(FLOOR);
        self.lowered = Some(Lowered { from, at: now });
        self.now = (from * DECREASE).max(FLOOR);
        self.tokens = self.tokens.min(0.0);
        self.pressing = Duration::ZERO;
    }

    /// EKS Auth asked to be left alone.
    pub(super) fn blocked(&mut self, now: Instant, wait: Duration) {
        let until = now + wait.min(LONGEST_WAIT);
        self.blocked_until = self.blocked_until.max(Some(until));
    }

    /// Lets time pass: pace and tokens come back.
    pub(super) fn update(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated);
        self.updated = now;
        let full = capacity(self.now);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.now).min(full);
        if self.is_pressing {
            self.pressing += elapsed;
        }
        if self.tokens >= full {
            self.pressing = Duration::ZERO;
        }
        self.now = match &self.lowered {
            Some(lowered) => lowered.pace(now).clamp(FLOOR, self.start),
            None => {
                let risen = RISE * self.pressing.as_secs_f64().powi(3);
                (self.start + risen).min(self.start * MOST)
            }
        };
        if self.lowered.is_some() && self.now >= self.start {
            self.lowered = None;
            self.pressing = Duration::ZERO;
        }
    }
}

/// How many calls may go out at once, at so many a second.
fn capacity(pace: f64) -> f64 {
    (pace * BURST).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::{super::bucket::Bucket, *};

    const SECOND: Duration = Duration::from_secs(1);
    const START: f64 = 100.0;

    /// Has `most` calls go out as soon as they may, each answered by `answer`. Says how many went
    /// out in
    /// `seconds`.
    fn run(
        pace: &mut Pace,
        now: &mut Instant,
        seconds: f64,
        most: usize,
        mut answer: impl FnMut(&mut Pace, Instant),
    ) -> usize {
        let end = *now + Duration::from_secs_f64(seconds);
        let mut calls = 0;
        while *now < end && calls < most {
            match pace.ready(*now) {
                Ok(()) => {
                    pace.spend();
                    calls += 1;
                    answer(pace, *now);
                }
                Err(then) => *now = then.min(end),
            }
        }
        calls
    }

    #[test]
    fn a_node_that_starts_has_its_first_calls_out_at_once_and_300_within_two_and_a_half_seconds() {
        let mut now = Instant::now();
        let started = now;
        let mut pace = Pace::new(START, now);
        assert_eq!(run(&mut pace, &mut now, 0.001, 300, |_, _| {}), 64);
        run(&mut pace, &mut now, 60.0, 236, |_, _| {});
        let took = now - started;
        assert!(took < SECOND * 5 / 2, "{took:?}");
    }

    #[test]
    fn an_upstream_that_bears_as_much_as_the_start_is_not_asked_for_more_by_300_pods() {
        let mut now = Instant::now();
        let mut pace = Pace::new(START, now);
        let mut upstream = Bucket::new(START, now);
        run(&mut pace, &mut now, 60.0, 300, |_, now| {
            assert!(upstream.ready(now).is_ok(), "throttled");
            upstream.spend();
        });
    }

    #[test]
    fn the_pace_rises_while_calls_wait_and_nothing_is_throttled() {
        let mut now = Instant::now();
        let mut pace = Pace::new(START, now);
        run(&mut pace, &mut now, 10.0, usize::MAX, |_, _| {});
        assert!(pace.per_second() > 2.5 * START, "{}", pace.per_second());
        run(&mut pace, &mut now, 60.0, usize::MAX, |_, _| {});
        assert_eq!(pace.per_second(), MOST * START);
        now += SECOND * 60;
        pace.update(now);
        pace.update(now);
        assert_eq!(pace.per_second(), START, "nobody has waited");
    }

    #[test]
    fn throttling_halves_the_pace_once_for_all_calls_in_flight_and_not_to_nothing() {
        let mut now = Instant::now();
        let started = now;
        let mut pace = Pace::new(START, now);
        now += SECOND;
        pace.throttled(started, now);
        pace.throttled(started, now + SECOND);
        assert!((50.0..55.0).contains(&pace.per_second()), "twice the same");
        for _ in 0..100 {
            now += SECOND / 10;
            pace.throttled(now, now);
        }
        let slowest = pace.per_second();
        assert!((FLOOR..0.5).contains(&slowest), "{slowest}");
        assert!(pace.is_lowered());
    }

    #[test]
    fn the_pace_comes_back_within_seconds() {
        let mut now = Instant::now();
        let mut pace = Pace::new(START, now);
        pace.throttled(now, now);
        now += SECOND * 3;
        pace.update(now);
        assert!(pace.is_lowered());
        now += SECOND * 4;
        pace.update(now);
        assert!(!pace.is_lowered(), "{}", pace.per_second());
        assert_eq!(pace.per_second(), START);
    }

    #[test]
    fn the_pace_settles_near_the_quota() {
        for bears in [2.0, 30.0] {
            let mut now = Instant::now();
            let mut pace = Pace::new(START, now);
            let mut upstream = Bucket::new(bears, now);
            let mut served = 0;
            let calls = run(&mut pace, &mut now, 600.0, usize::MAX, |pace, now| {
                if upstream.ready(now).is_ok() {
                    upstream.spend();
                    served += 1;
                } else {
                    pace.throttled(now, now);
                }
            });
            println!(
                "of {} that it bears: {served} in {calls} calls",
                bears * 600.0
            );
            assert!(
                f64::from(served) > bears * 600.0 * 0.6,
                "{served} of {calls}"
            );
            assert!(calls < served as usize * 3 / 2, "{served} of {calls}");
        }
    }

    #[test]
    fn retry_after_is_honoured_but_not_for_ever() {
        let now = Instant::now();
        let mut pace = Pace::new(START, now);
        pace.blocked(now, SECOND * 7);
        pace.blocked(now, SECOND);
        assert_eq!(pace.ready(now), Err(now + SECOND * 7));
        assert!(pace.ready(now + SECOND * 7).is_ok());
        pace.blocked(now, SECOND * 100_000);
        assert_eq!(pace.ready(now), Err(now + LONGEST_WAIT));
    }
}
