//! The agent's own rate limiter: no call goes to EKS Auth without having passed here.
//!
//! Renewals are held to a rate of their own as well, `--max-service-qps`, and so are calls for
//! tokens that were refused. First fetches, for which a request waits, are held to the pace alone.

use std::{mem, time::Duration};

use podcreds_cache::Subject;
use tokio::time::Instant;

use crate::{Config, LimiterReport, Metrics};

mod bucket;
mod pace;
mod queue;
mod round_robin;
#[cfg(test)]
mod tests;

use bucket::Bucket;
use pace::Pace;
use queue::{Allowed, CallQueue, Waiting};
pub(crate) use queue::{CallKind, CallShare, Party, Urgency};

/// Calls that may be in flight at once. Each takes a connection, here and at EKS Auth.
const IN_FLIGHT: usize = 100;
/// Calls a second for tokens that were refused within the last minute, or come from where many
/// were.
const DOUBTFUL: f64 = 20.0;
/// With more calls than this in the queue, nobody is told a place in it: finding one takes time.
const LONG: usize = 256;
/// How often the pace is looked at while EKS Auth throttles, for the log.
const LOOK: Duration = Duration::from_secs(5);
/// The same where no call waits.
const IDLE_LOOK: Duration = Duration::from_secs(60);

/// Lets calls pass one by one, in the order of the queue, at the pace that EKS Auth bears. It is a
/// state alone: [`Limiter::step`] says which call goes out, or when to ask again.
pub(crate) struct Limiter {
    pace: Pace,
    renewals: Bucket,
    doubtful: Bucket,
    queue: CallQueue<WaitingCall>,
    slots: u64,
    in_flight: usize,
    /// Whether the log says that EKS Auth is throttling.
    throttled: bool,
    metrics: Metrics,
}

/// A call that waits.
struct WaitingCall {
    slot: QueueSlot,
    subject: Subject,
}

/// A call's slot in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueSlot {
    id: u64,
    kind: CallKind,
    /// When it first joined, less urgent perhaps.
    joined: Instant,
}

impl QueueSlot {
    /// What kind of call it is for.
    pub(crate) fn kind(self) -> CallKind {
        self.kind
    }
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CallWait {
    /// What kind of call it is.
    pub(crate) kind: CallKind,
    /// How many calls of its kind go first, unless the queue is long.
    pub(crate) ahead: Option<usize>,
    /// How many calls of its kind wait.
    pub(crate) waiting: usize,
    /// How many calls are in flight.
    pub(crate) in_flight: usize,
    /// How many calls go out in a second at present.
    pub(crate) per_second: f64,
    /// Whether that is because EKS Auth throttles.
    pub(crate) is_throttled: bool,
    /// Whether it is less than usual, for that reason or since no call has succeeded for long.
    pub(crate) is_lowered: bool,
    /// How long EKS Auth still wants to be left alone.
    pub(crate) block: Option<Duration>,
}

/// What the limiter does next.
#[derive(Debug, PartialEq)]
pub(crate) enum LimiterStep {
    /// This call goes out now. It counts as in flight until it is done.
    Go(QueueSlot, Subject),
    /// Ask again then.
    At(Instant),
    /// Ask again when something has happened.
    Idle,
}

impl Limiter {
    /// A limiter with the rates in `config`.
    pub(crate) fn new(config: &Config, metrics: Metrics, now: Instant) -> Self {
        let limiter = Self {
            pace: Pace::new(config.calls_per_second, now),
            renewals: Bucket::new(config.max_renewals_per_second, now),
            doubtful: Bucket::new(DOUBTFUL, now),
            queue: CallQueue::new(),
            slots: 0,
            in_flight: 0,
            throttled: false,
            metrics,
        };
        limiter.gauge();
        limiter
    }

    /// Has a call join the queue.
    pub(crate) fn join(
        &mut self,
        share: &CallShare,
        urgency: Urgency,
        subject: Subject,
    ) -> QueueSlot {
        self.join_since(Instant::now(), share, urgency, subject)
    }

    /// Has a call join the queue again, since it has become more urgent.
    pub(crate) fn move_up(
        &mut self,
        slot: QueueSlot,
        share: &CallShare,
        urgency: Urgency,
        subject: Subject,
    ) -> QueueSlot {
        self.leave(slot);
        self.join_since(slot.joined, share, urgency, subject)
    }

    fn join_since(
        &mut self,
        joined: Instant,
        share: &CallShare,
        urgency: Urgency,
        subject: Subject,
    ) -> QueueSlot {
        self.slots += 1;
        let kind = urgency.kind();
        let slot = QueueSlot {
            id: self.slots,
            kind,
            joined,
        };
        self.queue
            .push(share, urgency, WaitingCall { slot, subject });
        self.gauge();
        slot
    }

    /// Takes a call out of the queue.
    pub(crate) fn leave(&mut self, slot: QueueSlot) {
        self.queue.retain(|entry| entry.slot != slot);
        self.gauge();
    }

    /// What a call waits for. `None` if it does not wait here any more.
    pub(crate) fn standing(&self, slot: QueueSlot, now: Instant) -> Option<CallWait> {
        let waiting = *self.queue.waiting().of(slot.kind);
        let ahead = match waiting <= LONG {
            true => Some(self.queue.ahead(slot.kind, |entry| entry.slot == slot)?),
            false => None,
        };
        Some(CallWait {
            kind: slot.kind,
            ahead,
            waiting,
            in_flight: self.in_flight,
            per_second: self.pace.per_second(),
            is_throttled: self.throttled,
            is_lowered: self.pace.is_lowered(),
            block: self.pace.block(now),
        })
    }

    /// How it is going, for people to read.
    pub(crate) fn report(&mut self, now: Instant) -> LimiterReport {
        self.log_recovery(now);
        self.refresh(now);
        let waiting = self.queue.waiting();
        LimiterReport {
            calls_per_second: self.pace.per_second(),
            is_throttled: self.throttled,
            in_flight: self.in_flight,
            waiting: waiting.asked,
            waiting_renewals: waiting.renewals,
            waiting_doubtful: waiting.doubtful,
            blocked: self.pace.block(now),
        }
    }

    /// Lets the next call go out, if the rates allow.
    pub(crate) fn step(&mut self, now: Instant) -> LimiterStep {
        let step = self.next_call(now);
        self.log_recovery(now);
        match step {
            LimiterStep::Idle if self.throttled => LimiterStep::At(now + IDLE_LOOK),
            LimiterStep::At(when) if self.throttled => LimiterStep::At(when.min(now + LOOK)),
            step => step,
        }
    }

    fn next_call(&mut self, now: Instant) -> LimiterStep {
        let waiting = self.queue.waiting();
        if waiting == Waiting::default() || self.in_flight >= IN_FLIGHT {
            return LimiterStep::Idle;
        }
        if let Err(when) = self.pace.ready(now) {
            return LimiterStep::At(when);
        }
        let renewals = self.renewals.ready(now);
        let doubtful = self.doubtful.ready(now);
        let allowed = Allowed {
            renewal: renewals.is_ok(),
            doubtful: doubtful.is_ok(),
        };
        let Some((kind, entry)) = self.queue.pop(allowed) else {
            let renewals = renewals.err().filter(|_| waiting.renewals > 0);
            let doubtful = doubtful.err().filter(|_| waiting.doubtful > 0);
            let first = renewals.into_iter().chain(doubtful).min();
            return first.map_or(LimiterStep::Idle, LimiterStep::At);
        };
        self.pace.spend();
        if let Some(bucket) = self.bucket(kind) {
            bucket.spend();
        }
        self.in_flight += 1;
        self.metrics.waited(kind, now - entry.slot.joined);
        self.gauge();
        LimiterStep::Go(entry.slot, entry.subject)
    }

    /// Notes that a call has ended.
    pub(crate) fn done(&mut self) {
        self.in_flight -= 1;
        self.gauge();
    }

    /// Takes back that a call goes out: it is not needed after all.
    pub(crate) fn refund(&mut self, kind: CallKind) {
        self.pace.refund();
        if let Some(bucket) = self.bucket(kind) {
            bucket.refund();
        }
        self.done();
    }

    /// Notes that a call which went out at `started` was throttled.
    pub(crate) fn throttled(&mut self, started: Instant) {
        self.pace.throttled(started, Instant::now());
        let known = mem::replace(&mut self.throttled, true);
        self.gauge();
        if !known {
            tracing::warn!(
                calls_per_second = self.pace.per_second(),
                "EKS Auth is throttling: calls go out slower"
            );
        }
    }

    /// Notes that a call which went out at `started` got an answer.
    pub(crate) fn answered(&mut self, started: Instant) {
        self.pace.answered(started, Instant::now());
    }

    /// Notes that a call for a subject failed.
    pub(crate) fn failed(&mut self, subject: Subject) {
        if self.pace.failed(subject, Instant::now()) {
            self.throttled = false;
            self.gauge();
            tracing::warn!(
                calls_per_second = self.pace.per_second(),
                "no call to EKS Auth has succeeded for a minute: calls go out slower until some do"
            );
        }
    }

    /// Notes that EKS Auth asked to be left alone for a while.
    pub(crate) fn blocked(&mut self, wait: Duration) {
        self.pace.blocked(Instant::now(), wait);
    }

    /// How long renewals that can wait should still do so, since EKS Auth has more to do than it
    /// bears.
    pub(crate) fn crowded(&self, now: Instant) -> Option<Duration> {
        self.pace.crowded(now)
    }

    /// Brings the gauges up to date: the pace falls back by itself while nothing waits.
    pub(crate) fn refresh(&mut self, now: Instant) {
        self.pace.update(now);
        self.gauge();
    }

    /// Notices that the pace is back.
    fn log_recovery(&mut self, now: Instant) {
        if !self.throttled {
            return;
        }
        self.pace.update(now);
        if !self.pace.is_lowered() {
            self.throttled = false;
            tracing::info!("EKS Auth no longer throttles: calls go out as fast as before");
        }
        self.gauge();
    }

    /// The rate of its own that a kind of calls is held to.
    fn bucket(&mut self, kind: CallKind) -> Option<&mut Bucket> {
        match kind {
            CallKind::Asked => None,
            CallKind::Renewal => Some(&mut self.renewals),
            CallKind::Doubtful => Some(&mut self.doubtful),
        }
    }

    fn gauge(&self) {
        let waiting = self.queue.waiting();
        self.metrics.limiter_rate.set(self.pace.per_second());
        self.metrics.limiter_in_flight.set(self.in_flight as i64);
        self.metrics.queue_asked.set(waiting.asked as i64);
        self.metrics.queue_renewals.set(waiting.renewals as i64);
        self.metrics.queue_doubtful.set(waiting.doubtful as i64);
    }
}
