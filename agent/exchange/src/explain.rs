//! Requests whose time is up, and what they are told: in words that blame what keeps them waiting.

use std::{mem, time::Duration};

use podcreds_cache::Subject;
use podcreds_types::{CredentialError, TokenDigest};
use tokio::time::Instant;

use crate::{
    limiter::{CallKind, CallWait},
    queue::{Attempt, Queue, QueuedToken},
    task::Task,
};

impl Task {
    /// Answers those in a subject's queue whose time is up.
    pub(crate) fn expire(&mut self, subject: &Subject, now: Instant) {
        let Some(queue) = self.queues.get_mut(subject) else {
            return;
        };
        let mut expired = Vec::new();
        for queued in &mut queue.tokens {
            let waiting = mem::take(&mut queued.waiters);
            let (late, others) = waiting.into_iter().partition(|it| it.deadline <= now);
            queued.waiters = others;
            let late: Vec<_> = late;
            if !late.is_empty() {
                expired.push((queued.digest, late));
            }
        }
        for (digest, waiters) in expired {
            let error = self.not_yet(subject, &digest, now);
            for waiter in waiters {
                self.answer(subject, &digest, waiter, Err(error.clone()));
            }
        }
    }

    /// What a request is told whose time is up.
    fn not_yet(&self, subject: &Subject, digest: &TokenDigest, now: Instant) -> CredentialError {
        let queue = self.queues.get(subject);
        let queued = queue.and_then(|queue| Some((queue, queue.get(digest)?)));
        let Some((queue, queued)) = queued else {
            return CredentialError::not_ready("the exchange has ended without an answer");
        };
        let waits_for = self.waits_for(queue, queued, now);
        CredentialError::not_ready(match &queued.failure {
            Some(failure) => format!("{failure}; {waits_for}"),
            None => waits_for,
        })
    }

    fn waits_for(&self, queue: &Queue, queued: &QueuedToken, now: Instant) -> String {
        match &queue.attempt {
            Some(Attempt::Call { digest, started, .. }) if *digest == queued.digest => {
                called(now - *started)
            }
            Some(Attempt::Limiter { digest, slot, .. }) if *digest == queued.digest => {
                match self.limiter.standing(*slot, now) {
                    Some(standing) => waits_for_limiter(&standing),
                    // It leaves the limiter this very moment.
                    None => called(Duration::ZERO),
                }
            }
            Some(_) | None if queued.not_before > now => {
                let wait = seconds(queued.not_before - now);
                match &queued.failure {
                    Some(_) => format!("the agent tries again in {wait}"),
                    None => format!(
                        "EKS Auth has lately refused several tokens of this pod, so the agent tries \
                         another one only in {wait}"
                    ),
                }
            }
            Some(_) | None => {
                "another token of this pod is exchanged first, and EKS Auth has not been asked about \
                 this one"
                    .to_owned()
            }
        }
    }
}

/// EKS Auth was asked.
fn called(since: Duration) -> String {
    format!(
        "EKS Auth has not answered yet: it was asked {} ago",
        seconds(since)
    )
}

/// The call waits in the agent's own limiter.
fn waits_for_limiter(standing: &CallWait) -> String {
    if let Some(block) = standing.block {
        return format!(
            "EKS Auth has asked this node by Retry-After to be left alone for {} more, so the agent has \
             not asked it about this token",
            seconds(block)
        );
    }
    let reason = match standing.kind {
        _ if standing.is_throttled => " since EKS Auth throttles this node",
        _ if standing.is_lowered => " since calls to EKS Auth have been failing",
        CallKind::Doubtful => {
            " at most, and fewer for tokens like this one, which EKS Auth has refused"
        }
        CallKind::Asked | CallKind::Renewal => " at present",
    };
    let place = match standing.ahead {
        Some(ahead) => format!("number {}", ahead + 1),
        None => "one".to_owned(),
    };
    format!(
        "the call for this token waits in the agent's own rate limiter, and EKS Auth has not been \
         asked: it is {place} of {} in the queue, {} calls are in flight, and {}{reason} (a \
         request waits for --max-request-wait; --max-service-qps holds renewals only)",
        standing.waiting,
        standing.in_flight,
        rate(standing.per_second),
    )
}

/// How many calls go out in a second, or how many seconds pass for one.
fn rate(per_second: f64) -> String {
    if per_second < 1.0 {
        return format!("one goes out every {:.0} s", per_second.recip());
    }
    format!("{per_second:.1} go out in a second")
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
