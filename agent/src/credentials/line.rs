//! The tokens of one pod that wait to be exchanged.
//!
//! Nearly always that is one token. A pod may show several, though: a rotated one, or garbage that
//! one of its containers made up. They take turns, so none of them can keep the others waiting, and
//! each has its own waiters, so none of them gets what another one was given.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::Instant,
};

use super::CredentialError;
use crate::types::{Token, TokenDigest};

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

/// A token in line.
struct Ticket {
    token: Token,
    digest: TokenDigest,
    progress: watch::Sender<Progress>,
    failures: u32,
    not_before: Instant,
    last_asked: Instant,
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
    pub(super) fn new(id: u64, wake: Arc<Notify>, task: AbortHandle) -> Self {
        Self {
            id,
            wake,
            task,
            tickets: Vec::new(),
        }
    }

    /// Puts a token into line, behind at most `limit - 1` others.
    pub(super) fn join(
        &mut self,
        token: Token,
        digest: TokenDigest,
        limit: usize,
        now: Instant,
    ) -> Place {
        if let Some(ticket) = self.find(&digest) {
            ticket.last_asked = now;
            return Place::Joined(ticket.progress.subscribe());
        }
        if self.tickets.len() >= limit {
            return Place::Full;
        }
        let (progress, receiver) = watch::channel(Progress::Waiting);
        self.tickets.push(Ticket {
            token,
            digest,
            progress,
            failures: 0,
            not_before: now,
            last_asked: now,
        });
        self.wake.notify_one();
        Place::New(receiver)
    }

    /// The token whose turn it is.
    pub(super) fn next(&self, now: Instant) -> Next {
        match self.tickets.iter().min_by_key(|ticket| ticket.not_before) {
            None => Next::Nothing,
            Some(ticket) if ticket.not_before <= now => {
                Next::Exchange(ticket.token.clone(), ticket.digest)
            }
            Some(ticket) => Next::Pause(ticket.not_before),
        }
    }

    /// Takes a token out of line and tells its waiters why.
    pub(super) fn finish(&mut self, digest: &TokenDigest, outcome: Outcome) {
        if let Some(at) = self.position(digest) {
            let ticket = self.tickets.remove(at);
            ticket.progress.send_replace(Progress::Done(outcome));
        }
    }

    /// Sends a token whose exchange failed to the back of the line, or home if nobody has asked
    /// for it for longer than `patience`. The next try is not before `retry_after`.
    pub(super) fn failed(
        &mut self,
        digest: &TokenDigest,
        reason: String,
        retry_after: Option<Duration>,
        patience: Duration,
        now: Instant,
    ) {
        let Some(ticket) = self.find(digest) else {
            return;
        };
        if now.duration_since(ticket.last_asked) >= patience {
            return self.finish(digest, Err(CredentialError::not_ready(reason)));
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << ticket.failures.min(16))
            .min(LONGEST_PAUSE);
        ticket.failures += 1;
        ticket.not_before = now + pause.max(retry_after.unwrap_or_default());
        ticket.progress.send_replace(Progress::Failing(reason));
    }

    fn position(&self, digest: &TokenDigest) -> Option<usize> {
        self.tickets
            .iter()
            .position(|ticket| ticket.digest == *digest)
    }

    fn find(&mut self, digest: &TokenDigest) -> Option<&mut Ticket> {
        self.tickets
            .iter_mut()
            .find(|ticket| ticket.digest == *digest)
    }
}
