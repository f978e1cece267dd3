//! The tokens of one pod that wait to be exchanged.
//!
//! Nearly always that is one token. A pod may show several, though: a rotated one, or garbage that
//! one of its containers made up. They take turns, so none of them can keep the others waiting, and
//! each has its own waiters, so none of them gets what another one was given.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use podcreds_types::{Origin, Token, TokenDigest};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::Instant,
};

use super::{
    CredentialError, jitter,
    limiter::{QueuePlace, Urgency},
    seats::Seat,
};

/// The first pause after a failed exchange; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between two exchanges of one token.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a flight ends with.
pub(super) type Outcome = Result<Bytes, CredentialError>;

/// How far the exchange of a token has come.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// Nothing is known yet.
    Waiting,
    /// An exchange failed, and will be tried again.
    Failing(String),
    /// It is over.
    Done(Outcome),
}

/// What the exchange of a token waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its turn in the line, which does not come before that.
    InLine(Instant),
    /// The limiter, in whose queue it has this place.
    Queued(QueuePlace),
    /// EKS Auth, which was asked then.
    Called(Instant),
}

/// What a token is exchanged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody asks for credentials.
    Asked,
    /// The ones in memory are to be replaced in time, before they expire then.
    Refresh(SystemTime),
}

/// A token in line.
struct Ticket {
    token: Token,
    digest: TokenDigest,
    purpose: Purpose,
    /// Whether EKS Auth has refused it not long ago.
    doubtful: bool,
    progress: watch::Sender<Progress>,
    /// Where its exchange is; nothing while it waits for its turn in the line.
    phase: Option<Phase>,
    failures: u32,
    not_before: Instant,
    last_asked: Instant,
}

impl Ticket {
    fn urgency(&self) -> Urgency {
        match self.purpose {
            _ if self.doubtful => Urgency::Doubtful,
            Purpose::Asked => Urgency::Asked,
            Purpose::Refresh(expiration) => Urgency::Refresh(expiration),
        }
    }
}

/// What the line's task does next.
pub(super) enum Next {
    /// Exchange this token.
    Exchange(Token, TokenDigest),
    /// Wait until then, or until another token joins.
    Pause(Instant),
    /// Nobody waits any more.
    Nothing,
}

/// The line of one pod. Dropped, it ends its task, and its waiters see that.
pub(super) struct Line {
    /// Tells this line from an earlier one of the same pod.
    pub(super) id: u64,
    /// Wakes the task when a token joins.
    pub(super) wake: Arc<Notify>,
    task: AbortHandle,
    tickets: Vec<Ticket>,
    /// Where its first request came from, where nobody knows whose line it is.
    origin: Option<Origin>,
    /// Kept for as long as the line is there, for the same reason.
    _seat: Option<Seat>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A place in line.
pub(super) enum Place {
    /// The token was in line already.
    Joined(watch::Receiver<Progress>),
    /// It is now.
    New(watch::Receiver<Progress>),
    /// Too many others are.
    Full,
}

impl Line {
    /// An empty line that `task` works on.
    pub(super) fn new(id: u64, wake: Arc<Notify>, task: AbortHandle, seat: Option<Seat>) -> Self {
        Self {
            id,
            wake,
            task,
            tickets: Vec::new(),
            origin: None,
            _seat: seat,
        }
    }

    /// Notes where a request comes from. The first one decides with whom the line takes turns.
    pub(super) fn asked_from(&mut self, origin: Option<Origin>) {
        self.origin = self.origin.or(origin);
    }

    /// Where its first request came from.
    pub(super) fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// Puts a token into line that somebody waits for, behind at most `limit - 1` others. If it is
    /// new, its turn does not come before `not_before`, nor, if it is doubtful, before the others'.
    pub(super) fn join(
        &mut self,
        token: Token,
        digest: TokenDigest,
        doubtful: bool,
        limit: usize,
        now: Instant,
        not_before: Instant,
    ) -> Place {
        if let Some(ticket) = self.find(&digest) {
            ticket.last_asked = now;
            ticket.purpose = Purpose::Asked;
            let place = Place::Joined(ticket.progress.subscribe());
            self.wake.notify_one();
            return place;
        }
        if self.tickets.len() >= limit {
            return Place::Full;
        }
        Place::New(self.push(token, digest, Purpose::Asked, doubtful, not_before))
    }

    /// Puts a token into line for a refresh, unless it is there already.
    pub(super) fn refresh(&mut self, token: Token, expiration: SystemTime, now: Instant) {
        let digest = token.digest();
        if self.find(&digest).is_none() {
            self.push(token, digest, Purpose::Refresh(expiration), false, now);
        }
    }

    fn push(
        &mut self,
        token: Token,
        digest: TokenDigest,
        purpose: Purpose,
        doubtful: bool,
        not_before: Instant,
    ) -> watch::Receiver<Progress> {
        let (progress, receiver) = watch::channel(Progress::Waiting);
        self.tickets.push(Ticket {
            token,
            digest,
            purpose,
            doubtful,
            progress,
            phase: None,
            failures: 0,
            not_before,
            last_asked: not_before,
        });
        self.wake.notify_one();
        receiver
    }

    /// The token whose turn it is.
    pub(super) fn next(&self, now: Instant) -> Next {
        let ready = self.tickets.iter().filter(|it| it.not_before <= now);
        if let Some(ticket) = ready.min_by_key(|it| (it.doubtful, it.not_before)) {
            return Next::Exchange(ticket.token.clone(), ticket.digest);
        }
        match self.tickets.iter().map(|ticket| ticket.not_before).min() {
            Some(first) => Next::Pause(first),
            None => Next::Nothing,
        }
    }

    /// How urgent the exchange of a token is, as of now: as urgent as any token's that waits behind
    /// it. `None` if nobody waits for it any more.
    pub(super) fn urgency(&self, digest: &TokenDigest) -> Option<Urgency> {
        self.purpose(digest)?;
        self.tickets.iter().map(Ticket::urgency).min()
    }

    /// What a token in line is to be exchanged for, as of now.
    pub(super) fn purpose(&self, digest: &TokenDigest) -> Option<Purpose> {
        let ticket = self.tickets.iter().find(|it| it.digest == *digest)?;
        Some(ticket.purpose)
    }

    /// Notes what the exchange of a token waits for.
    pub(super) fn enter(&mut self, digest: &TokenDigest, phase: Phase) {
        if let Some(ticket) = self.find(digest) {
            ticket.phase = Some(phase);
        }
    }

    /// What the exchange of a token waits for. `None` if it is in no line.
    pub(super) fn phase(&self, digest: &TokenDigest) -> Option<Phase> {
        let ticket = self.tickets.iter().find(|it| it.digest == *digest)?;
        Some(ticket.phase.unwrap_or(Phase::InLine(ticket.not_before)))
    }

    /// Whether the last exchange of one of the tokens has failed.
    pub(super) fn is_failing(&self) -> bool {
        self.tickets.iter().any(|ticket| ticket.failures > 0)
    }

    /// How many wait for a token's credentials.
    pub(super) fn waiters(&self, digest: &TokenDigest) -> usize {
        let ticket = self.tickets.iter().find(|it| it.digest == *digest);
        ticket.map_or(0, |ticket| ticket.progress.receiver_count())
    }

    /// Takes a token out of line and tells its waiters why.
    pub(super) fn finish(&mut self, digest: &TokenDigest, outcome: Outcome) {
        if let Some(at) = self.tickets.iter().position(|it| it.digest == *digest) {
            let ticket = self.tickets.remove(at);
            ticket.progress.send_replace(Progress::Done(outcome));
            self.wake.notify_one();
        }
    }

    /// Sends a token whose exchange failed to the back of the line, or home if nobody has asked
    /// for it for longer than `patience`.
    pub(super) fn failed(
        &mut self,
        digest: &TokenDigest,
        reason: String,
        patience: Duration,
        now: Instant,
    ) {
        let Some(ticket) = self.find(digest) else {
            return;
        };
        let unasked = ticket.purpose != Purpose::Asked;
        if unasked || now.saturating_duration_since(ticket.last_asked) >= patience {
            self.finish(digest, Err(CredentialError::not_ready(reason)));
            return;
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << ticket.failures.min(16))
            .min(LONGEST_PAUSE);
        ticket.failures += 1;
        ticket.phase = None;
        ticket.not_before = now + jitter::between(pause, 0.75, 1.0);
        ticket.progress.send_replace(Progress::Failing(reason));
    }

    fn find(&mut self, digest: &TokenDigest) -> Option<&mut Ticket> {
        self.tickets
            .iter_mut()
            .find(|ticket| ticket.digest == *digest)
    }
}
