//! One attempt: whether it is needed, its turn, and the call.

use std::panic::{AssertUnwindSafe, catch_unwind};

use podcreds_cache::{Lookup, Subject};
use podcreds_keys::{Verdict, VerifyToken};
use podcreds_types::{Origin, Token, TokenDigest};
use tokio::{task, time::Instant};

use crate::{
    RequestResult,
    limiter::{CallShare, LimiterStep, Party, QueueSlot},
    queue::{Attempt, Next, Purpose},
    task::{Done, Job, Task},
};

/// A call to EKS Auth.
pub(crate) struct Call {
    pub(crate) subject: Subject,
    pub(crate) token: Token,
    pub(crate) digest: TokenDigest,
    /// When it went out.
    pub(crate) started: Instant,
}

impl Task {
    /// Sees that a subject's queue has an attempt, if it is time for one.
    pub(crate) fn advance(&mut self, subject: Subject) {
        loop {
            let Some(queue) = self.queues.get_mut(&subject) else {
                return;
            };
            match &queue.attempt {
                // Its token was served from memory meanwhile.
                Some(Attempt::Limiter { digest, slot, .. }) if queue.get(digest).is_none() => {
                    let slot = *slot;
                    queue.attempt = None;
                    self.limiter.leave(slot);
                    continue;
                }
                Some(_) => return self.move_up(subject),
                None => {}
            }
            match queue.next(Instant::now()) {
                Next::Attempt(digest) => {
                    if self.begin(subject, digest) {
                        return;
                    }
                }
                Next::Wait(until) => return self.look_later(subject, until),
                Next::Nothing => {
                    self.close(&subject);
                    return;
                }
            }
        }
    }

    /// Begins an attempt, unless that turns out not to be needed.
    fn begin(&mut self, subject: Subject, digest: TokenDigest) -> bool {
        let queue = self.queues.get(&subject);
        let Some(token) = queue.and_then(|queue| Some(queue.get(&digest)?.token.clone())) else {
            return false;
        };
        let verdict = self.verdict(&token);
        if self.is_settled(subject, &token, digest, verdict.as_ref()) {
            return false;
        }
        let Some(queue) = self.queues.get_mut(&subject) else {
            return false;
        };
        let Some(urgency) = queue.urgency() else {
            return false;
        };
        let share = share(&subject, verdict, queue.origin);
        let slot = self.limiter.join(&share, urgency, subject);
        queue.attempt = Some(Attempt::Limiter {
            digest,
            slot,
            share,
            urgency,
        });
        true
    }

    /// What the keys in memory say of a token, if there are keys.
    pub(crate) fn verdict(&self, token: &Token) -> Option<Verdict> {
        let keys = self.parts.keys.as_ref()?;
        Some(verify_now(&**keys, token))
    }

    /// Has an attempt join the limiter's queue again where it has become more urgent.
    fn move_up(&mut self, subject: Subject) {
        let Some(queue) = self.queues.get_mut(&subject) else {
            return;
        };
        let now = queue.urgency();
        if let (
            Some(Attempt::Limiter {
                slot,
                share,
                urgency,
                ..
            }),
            Some(now),
        ) = (&mut queue.attempt, now)
            && *urgency != now
        {
            *slot = self.limiter.move_up(*slot, share, now, subject);
            *urgency = now;
        }
    }

    /// Lets all calls go out that may. When the next one may, if there is one that waits.
    pub(crate) fn start_calls(&mut self) -> Option<Instant> {
        loop {
            match self.limiter.step(Instant::now()) {
                LimiterStep::Go(slot, subject) => self.start_call(slot, subject),
                LimiterStep::At(when) => return Some(when),
                LimiterStep::Idle => return None,
            }
        }
    }

    fn start_call(&mut self, slot: QueueSlot, subject: Subject) {
        let kind = slot.kind();
        let Some(queue) = self.queues.get_mut(&subject) else {
            return self.limiter.refund(kind);
        };
        let digest = match &queue.attempt {
            Some(Attempt::Limiter {
                digest, slot: own, ..
            }) if *own == slot => *digest,
            Some(_) | None => return self.limiter.refund(kind),
        };
        queue.attempt = None;
        let Some(token) = queue.get(&digest).map(|queued| queued.token.clone()) else {
            self.limiter.refund(kind);
            return self.advance(subject);
        };
        // Another token of the pod may have got newer ones meanwhile.
        if self.is_settled(subject, &token, digest, None) {
            self.limiter.refund(kind);
            return self.advance(subject);
        }
        let started = Instant::now();
        let (upstream, asked) = (self.parts.upstream.clone(), token.clone());
        let call = async move { Done::Call(upstream.assume_role(asked).await) };
        let abort = self.jobs.spawn(call);
        let id: task::Id = abort.id();
        let call = Call {
            subject,
            token,
            digest,
            started,
        };
        self.running.insert(id, Job::Call(call));
        if let Some(queue) = self.queues.get_mut(&subject) {
            queue.attempt = Some(Attempt::Call {
                digest,
                id,
                abort,
                started,
            });
        }
    }

    /// Takes a token out of its queue if there is an answer without asking EKS Auth.
    fn is_settled(
        &mut self,
        subject: Subject,
        token: &Token,
        digest: TokenDigest,
        verdict: Option<&Verdict>,
    ) -> bool {
        let queue = self.queues.get(&subject);
        let Some(queued) = queue.and_then(|queue| queue.get(&digest)) else {
            return true;
        };
        let outcome = match queued.purpose {
            _ if queued.is_refresh() => None,
            // Those who wanted it have been told.
            Purpose::Refresh => return false,
            Purpose::Renewal(expiration) => self.parts.cache.later(&subject, expiration).map(Ok),
            Purpose::Asked => self.known(subject, token, digest, verdict),
        };
        let is_settled = outcome.is_some();
        if let Some(outcome) = outcome {
            self.finish(&subject, &digest, outcome);
        }
        is_settled
    }

    /// What a token can be told without asking EKS Auth: a rotated one gets what the pod has, and a
    /// forged one gets nothing.
    fn known(
        &mut self,
        subject: Subject,
        token: &Token,
        digest: TokenDigest,
        verdict: Option<&Verdict>,
    ) -> Option<RequestResult> {
        if let Some(verdict) = verdict
            && let Some(refused) = self.refuse_locally(subject, digest, verdict)
        {
            return Some(Err(refused));
        }
        if self.parts.cache.is_off() {
            return None;
        }
        if let Some(verdict) = verdict {
            self.adopt(&subject, token, verdict);
        }
        match self.parts.cache.get(&subject, &digest) {
            Lookup::Fresh(body, _) => Some(Ok(body)),
            Lookup::Stale(_) | Lookup::Refused(_) | Lookup::Nothing => None,
        }
    }
}

/// What the keys in memory say. A fault in the verification of one pod's token must not end the
/// task that serves all of them.
fn verify_now(keys: &dyn VerifyToken, token: &Token) -> Verdict {
    let verdict = catch_unwind(AssertUnwindSafe(|| keys.verify_now(token)));
    verdict.unwrap_or_else(|_| {
        tracing::error!("the verification of a token has panicked: EKS Auth decides about it");
        Verdict::Unknown
    })
}

/// Whose share of the calls a subject's attempt takes. What a token says of itself does not count:
/// a pod could choose a share of its own.
fn share(subject: &Subject, verdict: Option<Verdict>, origin: Option<Origin>) -> CallShare {
    let party = match subject {
        Subject::Pod(pod) => Party::Pod(*pod),
        Subject::Token(_) => Party::Origin(origin.unwrap_or(Origin::Unknown)),
    };
    match verdict {
        Some(Verdict::Genuine { namespace, .. }) => CallShare::Own(Party::Namespace(namespace)),
        Some(_) => CallShare::Unverified(party),
        None => CallShare::Own(party),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(namespace: &str) -> Verdict {
        Verdict::Genuine {
            pod: "1".repeat(32).parse().unwrap(),
            namespace: namespace.to_owned(),
        }
    }

    #[test]
    fn the_share_of_a_call_follows_from_what_is_verified_and_from_where_it_comes() {
        let pod = "2".repeat(32).parse().unwrap();
        let token = Subject::Token(Token::new("x").digest());
        let origin = Origin::Address([10, 0, 0, 1].into());
        let namespace = CallShare::Own(Party::Namespace("shop".to_owned()));
        for subject in [Subject::Pod(pod), token] {
            let share = share(&subject, Some(verified("shop")), Some(origin));
            assert_eq!(share, namespace);
        }
        let of_pod = |verdict| share(&Subject::Pod(pod), verdict, None);
        assert_eq!(of_pod(None), CallShare::Own(Party::Pod(pod)));
        let unverified = CallShare::Unverified(Party::Pod(pod));
        assert_eq!(of_pod(Some(Verdict::Unknown)), unverified);
        let of_token = |origin| share(&token, None, origin);
        assert_eq!(
            of_token(Some(origin)),
            CallShare::Own(Party::Origin(origin))
        );
        let unknown = CallShare::Own(Party::Origin(Origin::Unknown));
        assert_eq!(of_token(None), unknown);
    }
}
