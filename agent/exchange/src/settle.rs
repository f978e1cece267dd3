//! What becomes of what a call brought: in the cache, for those who wait, and for the limiter.

use std::{mem, sync::Arc, time::SystemTime};

use bytes::Bytes;
use podcreds_cache::{Fetched, Refused, Source, Subject, Takes};
use podcreds_keys::Verdict;
use podcreds_types::{CredentialError, Credentials, EksRefusal, RefusalKind, Token, TokenDigest};
use podcreds_upstream::UpstreamError;
use tokio::{task, time::Instant};

use crate::{
    RequestResult,
    attempt::Call,
    body::body,
    queue::{Attempt, Purpose, QueuedToken},
    task::Task,
};

/// What a call brought.
type CallAnswer = Result<Usable, UpstreamError>;

/// Credentials that a pod can use.
struct Usable {
    /// The response's body.
    body: Bytes,
    expiration: SystemTime,
    role: Arc<str>,
}

impl Task {
    /// A call to EKS Auth has ended.
    pub(crate) fn call_ended(
        &mut self,
        call: Call,
        id: task::Id,
        answer: Result<Credentials, UpstreamError>,
    ) {
        self.limiter.done();
        let answer = answer.and_then(|credentials| self.usable(&credentials));
        self.note_health(&answer, call.subject, call.started);
        let subject = call.subject;
        if self.end_attempt(&subject, id) {
            self.settle(subject, call.token, call.digest, answer);
            self.advance(subject);
        }
    }

    /// A call has panicked, by a fault in the agent or a library.
    pub(crate) fn call_panicked(&mut self, call: Call, id: task::Id) {
        self.limiter.done();
        let subject = call.subject;
        tracing::error!(
            ?subject,
            "an exchange has panicked; the next request begins it again"
        );
        if self.end_attempt(&subject, id) {
            let told =
                "the agent has given up the exchange, by a fault of its own; it begins again";
            self.finish(
                &subject,
                &call.digest,
                Err(CredentialError::not_ready(told)),
            );
            self.advance(subject);
        }
    }

    /// Notes that a queue's attempt is over. False if it is none of this queue's.
    fn end_attempt(&mut self, subject: &Subject, ended: task::Id) -> bool {
        let queue = self.queues.get_mut(subject);
        let attempt = queue.and_then(|queue| {
            queue
                .attempt
                .take_if(|it| matches!(it, Attempt::Call { id, .. } if *id == ended))
        });
        attempt.is_some()
    }

    /// The response for credentials that a pod can use.
    fn usable(&self, credentials: &Credentials) -> CallAnswer {
        if credentials.expiration <= self.parts.cache.clock().now() {
            return Err(UpstreamError::unavailable("the credentials have expired"));
        }
        let body = body(credentials)
            .ok_or_else(|| UpstreamError::unavailable("the expiration is no date"))?;
        Ok(Usable {
            body,
            expiration: credentials.expiration,
            role: credentials.role.as_str().into(),
        })
    }

    /// Lets the limiter and the log know how EKS Auth is doing, by a call for a subject that went
    /// out at `started`.
    fn note_health(&mut self, answer: &CallAnswer, subject: Subject, started: Instant) {
        let now = self.parts.cache.clock().now();
        match answer {
            Ok(_) | Err(UpstreamError::Refused(_)) => {
                self.limiter.answered(started);
                self.health.answered(now);
            }
            // Whatever is wrong with one request says nothing about EKS Auth, good or bad.
            Err(UpstreamError::Rejected { .. }) => {}
            Err(UpstreamError::Throttled { retry_after }) => {
                self.limiter.throttled(started);
                self.limiter.blocked(retry_after.unwrap_or_default());
                self.health.answered(now);
            }
            Err(UpstreamError::Unavailable {
                reason,
                retry_after,
            }) => {
                self.limiter.failed(subject);
                self.limiter.blocked(retry_after.unwrap_or_default());
                self.health.failed(reason, now);
            }
        }
    }

    /// Keeps what a call brought, and tells those who wait for it.
    fn settle(&mut self, subject: Subject, token: Token, digest: TokenDigest, answer: CallAnswer) {
        let queue = self.queues.get(&subject);
        let queued = queue.and_then(|queue| queue.get(&digest));
        let asked = !queued.is_some_and(|it| matches!(it.purpose, Purpose::Renewal(_)));
        let is_refresh = queued.is_some_and(|it| it.purpose == Purpose::Refresh);
        if let (Err(error), false) = (&answer, asked) {
            self.parts.metrics.renewal_failed(error);
            if !matches!(error, UpstreamError::Refused(_)) {
                self.parts.cache.postpone(&subject);
            }
        }
        self.judge_origin(&subject, &answer);
        if let Err(error) = &answer {
            self.note_error(subject, &token, error);
        }
        let outcome = match answer {
            Ok(usable) => {
                let fetched = Fetched {
                    body: usable.body,
                    expiration: usable.expiration,
                    role: Some(usable.role),
                    token,
                    digest,
                    asked: asked && !is_refresh,
                };
                self.accepted(subject, fetched)
            }
            Err(UpstreamError::Refused(refusal)) => {
                self.refused(subject, digest, refusal);
                "refused"
            }
            Err(error @ UpstreamError::Rejected { .. }) => {
                self.rejected(subject, &token, digest, &error);
                "rejected"
            }
            Err(error) => {
                self.failed(subject, digest, error.to_string());
                "failed"
            }
        };
        self.parts.metrics.attempt(asked, outcome);
    }

    /// A token got its credentials. What came of it, for the metrics.
    fn accepted(&mut self, subject: Subject, fetched: Fetched) -> &'static str {
        let (cache, digest) = (&self.parts.cache, fetched.digest);
        if cache.forgive(&subject, &digest) {
            tracing::info!(?subject, "EKS Auth accepts a token that it had refused");
        }
        let queue = self.queues.get(&subject);
        let queued = queue.and_then(|queue| queue.get(&digest));
        // An operator wants them whatever they are.
        let is_wanted = queued.is_some_and(QueuedToken::is_refresh);
        let longer_lived = cache.longer_lived(&subject, fetched.expiration);
        if let Some(body) = longer_lived.filter(|_| !is_wanted) {
            // The token is good, its credentials are not: they would not last until the next try.
            cache.adopt(&subject, fetched.token);
            cache.postpone(&subject);
            self.finish(&subject, &digest, Ok(body));
            return "failed";
        }
        let body = fetched.body.clone();
        // Where the cache is off, it is kept only for a client that comes back.
        let is_awaited = queued.is_some_and(|it| it.waiters.iter().any(|it| !it.reply.is_closed()));
        if !(cache.is_off() && is_awaited) {
            cache.insert(subject, fetched);
        }
        self.finish(&subject, &digest, Ok(body));
        "ok"
    }

    /// A token got EKS Auth's last word.
    fn refused(&mut self, subject: Subject, digest: TokenDigest, refusal: EksRefusal) {
        let takes = match (refusal.kind, subject) {
            // The pod may hold a newer token already, and will show it.
            (RefusalKind::BadToken, Subject::Pod(_)) => Takes::Token,
            (_, _) => Takes::All,
        };
        let error = CredentialError::Refused(refusal);
        let refused = Refused {
            source: Source::EksAuth,
            takes,
            error: error.clone(),
        };
        if self.remember(subject, digest, refused) {
            tracing::warn!(?subject, %error, "EKS Auth refuses a pod's token");
        }
        self.finish(&subject, &digest, Err(error));
    }

    /// EKS Auth rejected the request for a token, which it may do for good, or not. So nothing is
    /// taken from the pod, and this token alone is left alone for a while.
    fn rejected(
        &mut self,
        subject: Subject,
        token: &Token,
        digest: TokenDigest,
        error: &UpstreamError,
    ) {
        // The pod has chosen what is in the request, unless the cluster has signed it just so.
        let error = match self.verdict(token) {
            Some(Verdict::Genuine { .. }) => CredentialError::not_ready(error.to_string()),
            Some(_) | None => CredentialError::not_ready_by_clients_fault(error.to_string()),
        };
        let refused = Refused {
            source: Source::EksAuth,
            takes: Takes::Nothing,
            error: error.clone(),
        };
        if self.remember(subject, digest, refused) {
            tracing::warn!(?subject, %error, "EKS Auth rejects the request for a pod's token");
        }
        self.finish(&subject, &digest, Err(error));
    }

    /// An attempt failed. The next one follows soon if a request waits, else some time later.
    fn failed(&mut self, subject: Subject, digest: TokenDigest, reason: String) {
        let patience = self.parts.config.patience;
        let queue = self.queues.get_mut(&subject);
        let Some(queued) = queue.and_then(|queue| queue.get_mut(&digest)) else {
            return;
        };
        if !queued.retry(reason.clone(), patience, Instant::now()) {
            return self.finish(&subject, &digest, Err(CredentialError::not_ready(reason)));
        }
        // Those who have something that will do wait for no upstream in trouble.
        let waiting = mem::take(&mut queued.waiters);
        let (with_stale, others) = waiting.into_iter().partition(|waiter| waiter.has_stale);
        queued.waiters = others;
        let with_stale: Vec<_> = with_stale;
        for waiter in with_stale {
            let error = CredentialError::not_ready(reason.clone());
            self.answer(&subject, &digest, waiter, Err(error));
        }
    }

    /// Takes a token out of its queue and answers those who wait for it.
    pub(crate) fn finish(
        &mut self,
        subject: &Subject,
        digest: &TokenDigest,
        outcome: RequestResult,
    ) {
        let queue = self.queues.get_mut(subject);
        let Some(queued) = queue.and_then(|queue| queue.remove(digest)) else {
            return;
        };
        for refreshing in queued.refreshing {
            // The operator may have given up.
            let _ = refreshing.send(outcome.as_ref().map(drop).map_err(Clone::clone));
        }
        for waiter in queued.waiters {
            self.answer(subject, digest, waiter, outcome.clone());
        }
    }

    /// Notes whether the tokens are any good that come from where an unidentified caller is.
    fn judge_origin(&mut self, subject: &Subject, answer: &CallAnswer) {
        let queue = self.queues.get(subject);
        let (Subject::Token(_), Some(origin)) = (subject, queue.and_then(|it| it.origin)) else {
            return;
        };
        match answer {
            Ok(_) => self.origins.good(origin),
            Err(UpstreamError::Refused(refusal)) if refusal.kind != RefusalKind::BadToken => {}
            Err(UpstreamError::Refused(_) | UpstreamError::Rejected { .. }) => {
                self.origins.bad(origin, Instant::now());
            }
            Err(UpstreamError::Throttled { .. } | UpstreamError::Unavailable { .. }) => {}
        }
    }
}
