//! Whose credentials a request's token may have, and its place in that subject's queue.
//!
//! The kernel names the pod of most callers. Of the others nothing is known but the token, and what
//! a token says counts only once one of the cluster's keys has verified it. Then it stands for its
//! pod, with which it shares everything. Until then an exchange at EKS Auth and what comes of it
//! belong to this one token, whatever it claims.

use podcreds_cache::{CacheResult, Lookup, Refused, Source, Subject, Takes};
use podcreds_keys::Verdict;
use podcreds_types::{
    Claimant, CredentialError, EksRefusal, Origin, RefusalKind, Token, TokenDigest,
};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    RequestResult,
    queue::Purpose,
    request::{Request, Waiter},
    task::Task,
    verification::Owner,
};

/// Single tokens whose refusals are remembered. Unidentified callers can make up any number of
/// them.
const REFUSED_TOKENS: usize = 1024;

impl Task {
    /// Finds out whose credentials a request may have.
    pub(crate) fn admit(&mut self, request: Request) {
        if request.reply.is_closed() {
            return;
        }
        let cache = &self.parts.cache;
        let (subject, origin) = own_subject(&request);
        let Some(origin) = origin else {
            let is_rotated = self.parts.keys.is_some()
                && cache.has_for_others(&subject, &request.digest)
                && cache.refusal(&subject, &request.digest).is_none();
            if !is_rotated || !self.verify(&request, Owner::Pod(subject)) {
                return self.join(subject, None, request);
            }
            return self.wait_for_verdict(request);
        };
        let claimed = match request.claimant {
            Claimant::Bearer { claims, .. } => claims.map(Subject::Pod),
            Claimant::Pod(_) => None,
        };
        if let Some(pod) = claimed.filter(|pod| cache.accepts(pod, &request.digest)) {
            return self.join(pod, Some(origin), request);
        }
        if self.parts.keys.is_none() {
            return self.join(subject, Some(origin), request);
        }
        if let Some(refused) = cache.refusal(&subject, &request.digest) {
            return self.turn_away(request.reply, refused);
        }
        match self.verify(&request, Owner::Origin(origin)) {
            true => self.wait_for_verdict(request),
            false => self.turn_away(request.reply, too_many("being verified")),
        }
    }

    /// Goes on with a request once its token was looked at, or that took too long.
    pub(crate) fn decide(&mut self, request: Request, verdict: &Verdict) {
        let (subject, origin) = own_subject(&request);
        if let Some(refused) = self.refuse_locally(subject, request.digest, verdict) {
            return self.turn_away(request.reply, refused);
        }
        let subject = match verdict {
            Verdict::Genuine { pod, .. } if origin.is_some() => Subject::Pod(*pod),
            _ => subject,
        };
        self.adopt(&subject, &request.token, verdict);
        self.join(subject, origin, request);
    }

    /// Puts a request's token into its subject's queue, unless its credentials have just come.
    fn join(&mut self, subject: Subject, origin: Option<Origin>, request: Request) {
        let Request {
            token,
            digest,
            deadline,
            reply,
            ..
        } = request;
        let (now, cache) = (Instant::now(), &self.parts.cache);
        let stale = match cache.get(&subject, &digest) {
            Lookup::Fresh(body, age) => {
                cache.metrics().hit(age);
                // The client may have hung up.
                let _ = reply.send(Ok(body));
                return;
            }
            Lookup::Stale(body) => Some(body),
            Lookup::Refused(refused) => return self.turn_away(reply, refused),
            Lookup::Nothing => None,
        };
        let queued = match cache.refusal(&subject, &digest) {
            Some(refused) => Err(refused),
            None => self.enqueue(subject, origin, token, digest, now),
        };
        let has_stale = stale.is_some();
        let served = match (queued, stale) {
            (Ok(served), _) => served,
            (Err(_), Some(body)) => {
                self.parts.cache.metrics().count(CacheResult::Stale);
                let _ = reply.send(Ok(body));
                return;
            }
            (Err(error), None) => return self.turn_away(reply, error),
        };
        let deadline = match has_stale {
            true => now + deadline.saturating_duration_since(now) / 3,
            false => deadline,
        };
        let waiter = Waiter {
            reply,
            deadline,
            has_stale,
            served,
        };
        self.parts.metrics.waiters.inc();
        let Some(queued) = self.queue(subject, None).get_mut(&digest) else {
            return;
        };
        queued.asked(now);
        match queued.failure.clone().filter(|_| has_stale) {
            // Those who have something that will do wait for no upstream in trouble.
            Some(failure) => {
                let error = CredentialError::not_ready(failure);
                self.answer(&subject, &digest, waiter, Err(error));
            }
            None => {
                queued.waiters.push(waiter);
                self.look_later(subject, deadline);
            }
        }
        self.advance(subject);
    }

    /// Sees that a token is in its subject's queue. Says whether it was, by how the request counts.
    fn enqueue(
        &mut self,
        subject: Subject,
        origin: Option<Origin>,
        token: Token,
        digest: TokenDigest,
        now: Instant,
    ) -> Result<CacheResult, CredentialError> {
        let queue = self.queues.get(&subject);
        if queue.is_some_and(|queue| queue.get(&digest).is_some()) {
            return Ok(CacheResult::Joined);
        }
        let limit = self.parts.config.tokens_per_pod;
        if queue.is_some_and(|queue| queue.tokens.len() >= limit) {
            return Err(CredentialError::not_ready(format!(
                "{limit} other tokens of this pod wait to be exchanged, and EKS Auth has not been \
                 asked about this one"
            )));
        }
        let room = origin.filter(|_| matches!(subject, Subject::Token(_)));
        if queue.is_none() && room.is_some_and(|owner| !self.room.take(owner)) {
            return Err(too_many("waiting for EKS Auth"));
        }
        let is_suspect = room.is_some_and(|origin| self.origins.is_suspect(origin, now));
        let doubtful = is_suspect || self.parts.cache.was_refused(&subject, &digest);
        let not_before = now + self.parts.cache.pause(&subject);
        let queue = self.queue(subject, room);
        queue.origin = queue.origin.or(origin);
        queue.push(token, digest, Purpose::Asked, doubtful, not_before);
        Ok(CacheResult::Miss)
    }

    /// Gives a pod's credentials to another token that the cluster has signed for it.
    pub(crate) fn adopt(&self, subject: &Subject, token: &Token, verdict: &Verdict) {
        let Verdict::Genuine { pod, .. } = verdict else {
            return;
        };
        if *subject != Subject::Pod(*pod) {
            return;
        }
        let cache = &self.parts.cache;
        let is_news = cache.has_for_others(subject, &token.digest());
        if cache.adopt(subject, token.clone()) && is_news {
            self.parts.metrics.adopted.inc();
        }
    }

    /// What a token is told that EKS Auth need not be asked about. It is remembered for seconds, so
    /// that the same token is not looked at each time that it comes.
    pub(crate) fn refuse_locally(
        &mut self,
        subject: Subject,
        digest: TokenDigest,
        verdict: &Verdict,
    ) -> Option<CredentialError> {
        let message = match verdict {
            Verdict::Genuine { .. } | Verdict::Unknown => return None,
            Verdict::Forged => {
                self.parts.metrics.forged.inc();
                "the cluster has not signed this token"
            }
            Verdict::OtherAudience => "this token is for another audience",
        };
        let error = CredentialError::Refused(EksRefusal {
            kind: RefusalKind::BadToken,
            code: "InvalidTokenException".to_owned(),
            message: message.to_owned(),
        });
        let refused = Refused {
            source: Source::Agent,
            takes: Takes::Nothing,
            error: error.clone(),
        };
        self.remember(subject, digest, refused);
        Some(error)
    }

    /// Remembers a refusal. True if it is news.
    pub(crate) fn remember(
        &mut self,
        subject: Subject,
        digest: TokenDigest,
        refused: Refused,
    ) -> bool {
        let is_news = self.parts.cache.refuse(subject, digest, refused);
        if let (Subject::Token(token), true) = (subject, is_news) {
            self.refused_tokens.push_back(token);
            if self.refused_tokens.len() > REFUSED_TOKENS
                && let Some(oldest) = self.refused_tokens.pop_front()
            {
                self.parts
                    .cache
                    .drop_refusal(&Subject::Token(oldest), &oldest);
            }
        }
        is_news
    }

    /// Tells a request at once that there is nothing for it.
    fn turn_away(&self, reply: oneshot::Sender<RequestResult>, error: CredentialError) {
        self.parts.cache.metrics().count(match error {
            CredentialError::Refused(_) => CacheResult::Refused,
            CredentialError::NotReady { .. } => CacheResult::Overloaded,
        });
        // The client may have hung up.
        let _ = reply.send(Err(error));
    }
}

/// Whose credentials a request asks for while its token is unverified, and where it comes from if
/// the kernel has not identified its caller.
fn own_subject(request: &Request) -> (Subject, Option<Origin>) {
    match request.claimant {
        Claimant::Pod(pod) => (Subject::Pod(pod), None),
        Claimant::Bearer { origin, .. } => (Subject::Token(request.digest), Some(origin)),
    }
}

/// There is no room for another token from this origin.
fn too_many(what: &str) -> CredentialError {
    CredentialError::not_ready(format!(
        "the agent has no room for this token yet: too many that nobody has verified are {what}, from \
         this address or from all"
    ))
}
