//! When the task looks at something again.

use std::{cmp::Reverse, collections::BinaryHeap};

use podcreds_cache::Subject;
use podcreds_types::TokenDigest;
use tokio::time::Instant;

/// What is looked at. A look too many does no harm, so no timer is ever taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A queue: a request's time is up, or an attempt is due.
    Queue(Subject),
    /// A verification: a request has waited long enough for it, or it is to be forgotten.
    Verification(TokenDigest),
}

/// Timers in the order of their times.
#[derive(Default)]
pub(crate) struct Timers {
    order: BinaryHeap<Reverse<(Instant, u64)>>,
    timers: std::collections::HashMap<u64, Timer>,
    last: u64,
}

impl Timers {
    /// Has something looked at then.
    pub(crate) fn add(&mut self, at: Instant, timer: Timer) {
        self.last += 1;
        self.order.push(Reverse((at, self.last)));
        self.timers.insert(self.last, timer);
    }

    /// When the first of them is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((at, _))| *at)
    }

    /// The next one that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let Reverse((at, id)) = *self.order.peek()?;
        if at > now {
            return None;
        }
        self.order.pop();
        self.timers.remove(&id)
    }
}
