//! How many calls a second EKS Auth is asked to bear.
//!
//! Nobody knows its quota, and other nodes use it too. So the pace starts high, is lowered when EKS
//! Auth throttles, and comes back along a cubic curve, as in the AWS SDKs' adaptive retry mode:
//! fast at first, slowly past the pace that was too much, then faster. Where calls keep waiting for
//! the pace and nothing is throttled, it rises above its start in the same way.
//!
//! A curve over time alone would ruin a large fleet: where thousands of nodes share a quota, each
//! of them has a call in half a minute, and within seconds all would be back at what was far too
//! much. So calls that are throttled three times in a row, or fail for a minute for several pods,
//! make a node take itself for one of many. Its pace then has a ceiling too, which rises with each
//! call that gets an answer, the more the longer nothing is throttled, and little by little with
//! time. A node that is alone is back after eight answers. `cargo xtask simulate fleet` shows a
//! change's effect.

use std::time::Duration;

use podcreds_cache::Subject;
use tokio::time::Instant;

use super::bucket::until_one;

/// Seconds whose calls may go out at once after a quiet while.
const BURST: f64 = 0.64;
/// What is left of the pace after a throttled call.
const DECREASE: f64 = 0.5;
/// What is left after a second one, with no answer in between, in calls a second. SDKs of the pods
/// of a node that is alone bear that.
const GENTLE: f64 = 1.0;
/// So many calls are throttled in a row before a node takes itself for one of many.
const ALONE: u32 = 2;
/// How fast the pace rises, in calls a second per cubic second.
const RISE: f64 = 0.2;
/// A pace below which it rises more slowly, in calls a second: where EKS Auth bears little, most of
/// what is tried too early is throttled.
const SLOW: f64 = 10.0;
/// What is left of the rise at the slowest pace.
const SLOWEST_RISE: f64 = 0.1;
/// The slowest that the pace gets, in calls a second. Five thousand nodes for which this is too
/// much have one and a half times EKS Auth's usual quota.
const FLOOR: f64 = 0.06;
/// What counts as the pace of a node that shares a quota when it is throttled, if it was faster, in
/// calls a second.
const SHARED: f64 = 2.0;
/// What is left of that; half, if it was reached by many answers in a row. A second throttled call,
/// with no answer in between, leaves the slowest.
const SHARED_DECREASE: f64 = 0.25;
/// So many answers are many.
const MANY: i32 = 4;
/// For so long, or up to twice that, calls that can wait leave the quota to those of other nodes
/// where pods wait.
const CROWDED: Duration = Duration::from_secs(5 * 60);
/// When calls for more than one pod have failed for so long, and none was answered, all nodes wait
/// for the end of it.
const OUTAGE: Duration = Duration::from_secs(60);
/// So many calls have then failed at least.
const OUTAGE_CALLS: u32 = 5;
/// The pace then, in calls a second.
const SLOW_START: f64 = 0.25;
/// Troubles that are further apart have nothing to do with each other. Longer than calls that can
/// wait do so.
const APART: Duration = Duration::from_secs(15 * 60);
/// By how much the first answer raises the ceiling of a pace that was lowered. The next one raises
/// it by the square of that, and so on.
const RAISE: f64 = 1.25;
/// The most by which an answer raises it.
const MOST_RAISE: f64 = 4.0;
/// After so long without any answer the ceiling is twice as high.
const DOUBLE: Duration = Duration::from_secs(60);
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
    /// How many times calls were throttled with no answer in between.
    in_a_row: u32,
    /// When that last was so, or when calls last failed for long.
    throttled_at: Option<Instant>,
    /// The calls that have failed one after the other.
    failing: Option<Failing>,
    /// Until when this node takes itself for one of many that share a quota.
    shared_until: Option<Instant>,
}

/// Calls that fail one after the other.
#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    calls: u32,
    /// What the first one was for.
    first: Subject,
    /// Whether another one was for somebody else. Calls for one alone may fail for what is in them,
    /// as where a proxy looks into them.
    several: bool,
}

/// The last time that the pace was lowered.
#[derive(Debug)]
struct Lowered {
    /// The pace that was too much.
    from: f64,
    /// What was left of it.
    left: f64,
    at: Instant,
    /// The highest that the pace may be, at the time below.
    ceiling: f64,
    raised: Instant,
    /// How many calls have been answered since.
    answers: i32,
}

impl Lowered {
    /// The pace to which it has come back.
    fn pace(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        let rise = RISE * (self.from / SLOW).clamp(SLOWEST_RISE, 1.0);
        let back_after = ((self.from - self.left).max(0.0) / rise).cbrt();
        let curve = self.from + rise * (since - back_after).powi(3);
        curve.min(self.ceiling(now))
    }

    fn ceiling(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.raised);
        self.ceiling * (since.as_secs_f64() / DOUBLE.as_secs_f64()).exp2()
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
            in_a_row: 0,
            throttled_at: None,
            failing: None,
            shared_until: None,
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

    /// How long calls that can wait should still do so.
    pub(super) fn crowded(&self, now: Instant) -> Option<Duration> {
        let until = self.shared_until.filter(|until| *until > now)?;
        Some(until - now)
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

    /// A call that went out at `started` was answered: EKS Auth bears the pace, and may bear a
    /// higher one. Calls from before the pace was lowered say nothing about that.
    pub(super) fn answered(&mut self, started: Instant, now: Instant) {
        self.failing = None;
        if let Some(lowered) = self.lowered.as_mut() {
            if started < lowered.at {
                return;
            }
            lowered.answers += 1;
            let raise = RAISE.powi(lowered.answers).min(MOST_RAISE);
            lowered.ceiling = lowered.ceiling(now).min(self.start) * raise;
            lowered.raised = now;
        }
        self.in_a_row = 0;
    }

    /// A call that went out at `started` was throttled. Lowers the pace, unless that was done
    /// since.
    pub(super) fn throttled(&mut self, started: Instant, now: Instant) {
        self.failing = None;
        if self.lowered.as_ref().is_some_and(|it| started < it.at) {
            return;
        }
        self.update(now);
        let last = self.throttled_at.replace(now);
        if last.is_some_and(|last| now.saturating_duration_since(last) >= APART) {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row > ALONE || self.crowded(now).is_some() {
            self.share(now);
            let answers = self.lowered.as_ref().map_or(0, |last| last.answers);
            let left = match self.in_a_row {
                1 if answers >= MANY => self.now.min(SHARED) * DECREASE,
                1 => self.now.min(SHARED) * SHARED_DECREASE,
                _ => FLOOR,
            };
            self.lower(now, left, left);
        } else if self.in_a_row > 1 {
            self.lower(now, GENTLE, GENTLE);
        } else {
            self.lower(now, self.now * DECREASE, f64::INFINITY);
        }
    }

    /// A call for a subject got no answer, or one that says that EKS Auth is in trouble. Says
    /// whether that makes an outage, for which the pace has just been lowered.
    pub(super) fn failed(&mut self, subject: Subject, now: Instant) -> bool {
        let begins = Failing {
            since: now,
            last: now,
            calls: 0,
            first: subject,
            several: false,
        };
        let goes_on = |it: &Failing| now.saturating_duration_since(it.last) < APART;
        let mut failing = self.failing.take().filter(goes_on).unwrap_or(begins);
        failing.calls = failing.calls.saturating_add(1);
        failing.last = now;
        failing.several |= failing.first != subject;
        let lasts = now.saturating_duration_since(failing.since);
        let is_outage = lasts >= OUTAGE && failing.calls >= OUTAGE_CALLS && failing.several;
        self.failing = Some(failing);
        if !is_outage {
            return false;
        }
        self.update(now);
        self.share(now);
        self.in_a_row = ALONE;
        self.throttled_at = Some(now);
        if self.now > 2.0 * SLOW_START {
            self.lower(now, SLOW_START, SLOW_START);
            return true;
        }
        // It stays there: no answer has raised it.
        if let Some(lowered) = &mut self.lowered {
            lowered.ceiling = lowered.ceiling(now).min(SLOW_START);
            lowered.raised = now;
        }
        false
    }

    fn share(&mut self, now: Instant) {
        self.shared_until = Some(now + CROWDED.mul_f64(1.0 + fastrand::f64()));
    }

    fn lower(&mut self, now: Instant, left: f64, ceiling: f64) {
        let from = self.now.min(self.start).max(FLOOR);
        let left = left.clamp(FLOOR, from);
        self.lowered = Some(Lowered {
            from,
            left,
            at: now,
            ceiling: ceiling.max(left),
            raised: now,
            answers: 0,
        });
        self.now = left;
        // Nodes that were told at once shall not come back at once.
        self.tokens = self.tokens.min(-fastrand::f64() / 2.0);
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
mod tests;
