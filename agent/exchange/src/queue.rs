//! The tokens of one subject that wait to be exchanged.
//!
//! Nearly always that is one token. A pod may show several, though: a rotated one, or garbage that
//! one of its containers made up. They take turns, so none of them can keep the others waiting, and
//! each has its own waiters, so none of them gets what another one was given.

use std::time::{Duration, SystemTime};

use podcreds_types::{Origin, Token, TokenDigest};
use tokio::{
    sync::oneshot,
    task::{self, AbortHandle},
    time::Instant,
};

use crate::{
    Refreshed,
    limiter::{CallShare, QueueSlot, Urgency},
    request::Waiter,
};

/// The first pause after a failed attempt; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two attempts with one token.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a token is exchanged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A request asks for credentials.
    Asked,
    /// The ones in memory are to be replaced in time, before they expire then.
    Renewal(SystemTime),
    /// An operator asks for new ones.
    Refresh,
}

/// A token in a queue.
pub(crate) struct QueuedToken {
    pub(crate) token: Token,
    pub(crate) digest: TokenDigest,
    pub(crate) purpose: Purpose,
    /// Whether it has been refused not long ago, or comes from where many were.
    pub(crate) doubtful: bool,
    pub(crate) waiters: Vec<Waiter>,
    /// Operators who wait for new credentials. As long as there are any, only EKS Auth's answer
    /// will do.
    pub(crate) refreshing: Vec<oneshot::Sender<Refreshed>>,
    /// Why the last attempt failed.
    pub(crate) failure: Option<String>,
    failures: u32,
    /// When the next attempt may begin.
    pub(crate) not_before: Instant,
    /// When a request has asked for it last.
    last_asked: Instant,
}

/// The one attempt that a queue has at a time.
pub(crate) enum Attempt {
    /// It waits for the rate limiter.
    Limiter {
        digest: TokenDigest,
        slot: QueueSlot,
        share: CallShare,
        urgency: Urgency,
    },
    /// EKS Auth was asked.
    Call {
        digest: TokenDigest,
        id: task::Id,
        abort: AbortHandle,
        started: Instant,
    },
}

/// What a queue does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Begin an attempt with this token.
    Attempt(TokenDigest),
    /// Wait until then.
    Wait(Instant),
    /// Nothing any more.
    Nothing,
}

/// The queue of one subject.
pub(crate) struct Queue {
    pub(crate) tokens: Vec<QueuedToken>,
    pub(crate) attempt: Option<Attempt>,
    /// Where its first request came from, where nobody knows which pod it is.
    pub(crate) origin: Option<Origin>,
    /// Whose room it takes, for the same reason.
    pub(crate) room: Option<Origin>,
    /// The next look that a timer is set for.
    pub(crate) look_at: Option<Instant>,
}

impl Queue {
    /// An empty queue.
    pub(crate) fn new(room: Option<Origin>) -> Self {
        Self {
            tokens: Vec::new(),
            attempt: None,
            origin: room,
            room,
            look_at: None,
        }
    }

    /// Adds a token. If it is doubtful, the others come before it.
    pub(crate) fn push(
        &mut self,
        token: Token,
        digest: TokenDigest,
        purpose: Purpose,
        doubtful: bool,
        not_before: Instant,
    ) {
        self.tokens.push(QueuedToken {
            token,
            digest,
            purpose,
            doubtful,
            waiters: Vec::new(),
            refreshing: Vec::new(),
            failure: None,
            failures: 0,
            not_before,
            last_asked: not_before,
        });
    }

    pub(crate) fn get(&self, digest: &TokenDigest) -> Option<&QueuedToken> {
        self.tokens.iter().find(|queued| queued.digest == *digest)
    }

    pub(crate) fn get_mut(&mut self, digest: &TokenDigest) -> Option<&mut QueuedToken> {
        self.tokens
            .iter_mut()
            .find(|queued| queued.digest == *digest)
    }

    /// Takes a token out.
    pub(crate) fn remove(&mut self, digest: &TokenDigest) -> Option<QueuedToken> {
        let at = self.tokens.iter().position(|it| it.digest == *digest)?;
        Some(self.tokens.remove(at))
    }

    /// The token for the next attempt.
    pub(crate) fn next(&self, now: Instant) -> Next {
        let ready = self.tokens.iter().filter(|it| it.not_before <= now);
        if let Some(queued) = ready.min_by_key(|it| (it.doubtful, it.not_before)) {
            return Next::Attempt(queued.digest);
        }
        let first = self.tokens.iter().map(|queued| queued.not_before).min();
        first.map_or(Next::Nothing, Next::Wait)
    }

    /// How urgent its attempt is: as urgent as any token that waits behind it.
    pub(crate) fn urgency(&self) -> Option<Urgency> {
        self.tokens.iter().map(QueuedToken::urgency).min()
    }

    /// Whether the last attempt with one of the tokens failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.tokens.iter().any(|queued| queued.failures > 0)
    }
}

impl QueuedToken {
    fn urgency(&self) -> Urgency {
        match self.purpose {
            _ if self.doubtful => Urgency::Doubtful,
            Purpose::Asked | Purpose::Refresh => Urgency::Asked,
            _ if self.is_refresh() => Urgency::Asked,
            Purpose::Renewal(expiration) => Urgency::Renewal(expiration),
        }
    }

    /// Whether what is in memory will not do.
    pub(crate) fn is_refresh(&self) -> bool {
        !self.refreshing.is_empty()
    }

    /// Notes that a request asks for it.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.purpose = Purpose::Asked;
        self.last_asked = self.last_asked.max(now);
    }

    /// Notes a failed attempt, and when the next one may begin. False if there is to be none: no
    /// request has asked for it for longer than `patience`.
    pub(crate) fn retry(&mut self, reason: String, patience: Duration, now: Instant) -> bool {
        let unasked = matches!(self.purpose, Purpose::Renewal(_)) && !self.is_refresh();
        if unasked || now.saturating_duration_since(self.last_asked) >= patience {
            return false;
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST_PAUSE);
        self.failures += 1;
        self.failure = Some(reason);
        self.not_before = now + pause.mul_f64(0.75 + 0.25 * fastrand::f64());
        true
    }
}
