//! The flights: one task per line, which exchanges its tokens one by one.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use dashmap::{Entry as Slot, mapref::one::RefMut};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{
    CredentialError, RefusalKind, Subject, Verdict,
    body::body,
    cache::Lookup,
    limiter::Urgency,
    line::{Line, Next, Outcome, Purpose},
    namespace::claimed_namespace,
    store::Shared,
};
use crate::{
    types::{Credentials, Token, TokenDigest},
    upstream::UpstreamError,
};

/// What an exchange brought: the response's body, and when its credentials expire.
type Answer = Result<(Bytes, SystemTime), UpstreamError>;

impl Shared {
    /// Exchanges the tokens in a line until none is left.
    pub(super) async fn fly(self: Arc<Self>, subject: Subject, id: u64, wake: Arc<Notify>) {
        loop {
            match self.next(&subject, id) {
                Next::Nothing => return,
                Next::Pause(until) => {
                    // Woken or not, the line is looked at again.
                    let _ = timeout_at(until, wake.notified()).await;
                }
                Next::Exchange(token, digest) => {
                    if let Some(outcome) = self.vouched(&subject, id, &token, &digest).await {
                        if let Some(mut line) = self.line(&subject, id) {
                            line.finish(&digest, outcome);
                        }
                        continue;
                    }
                    self.pass(&subject, id, &token, &digest, &wake).await;
                    let answer = self.upstream.assume_role(token.clone()).await;
                    let answer = answer.and_then(|credentials| self.usable(&credentials));
                    self.report(&answer);
                    self.settle(subject, id, token, digest, answer);
                }
            }
        }
    }

    /// What the line's task does next. A line with nothing to do is closed.
    fn next(&self, subject: &Subject, id: u64) -> Next {
        let Slot::Occupied(line) = self.lines.entry(*subject) else {
            return Next::Nothing;
        };
        if line.get().id != id {
            return Next::Nothing;
        }
        let next = line.get().next(Instant::now());
        if matches!(next, Next::Nothing) {
            line.remove();
            self.line_closed(subject);
        }
        next
    }

    /// The line that a flight belongs to, unless its pod is gone.
    fn line(&self, subject: &Subject, id: u64) -> Option<RefMut<'_, Subject, Line>> {
        let line = self.lines.get_mut(subject)?;
        (line.id == id).then_some(line)
    }

    /// What can be said of a token without asking EKS Auth: a rotated one gets what the pod has,
    /// and a forged one gets nothing.
    async fn vouched(
        &self,
        subject: &Subject,
        id: u64,
        token: &Token,
        digest: &TokenDigest,
    ) -> Option<Outcome> {
        if self.line(subject, id)?.purpose(digest)? != Purpose::Asked {
            return None;
        }
        let verdict = self.verifier.get()?.verify(token.clone()).await;
        match verdict {
            Verdict::Genuine { pod } if *subject == Subject::Pod(pod) => {
                match self.cache.adopt(subject, token.clone(), self.clock.now()) {
                    Lookup::Fresh(body) => {
                        self.metrics.adopted.inc();
                        Some(Ok(body))
                    }
                    Lookup::Stale(_) | Lookup::Nothing => None,
                }
            }
            Verdict::Forged => {
                self.metrics.forged.inc();
                Some(Err(CredentialError::Refused {
                    kind: RefusalKind::BadToken,
                    code: "InvalidTokenException".to_owned(),
                    message: "the cluster has not signed this token".to_owned(),
                }))
            }
            Verdict::Genuine { .. } | Verdict::Unknown => None,
        }
    }

    /// Waits until the limiter lets the exchange pass. If a refresh becomes something that a
    /// client waits for, it moves up.
    async fn pass(
        &self,
        subject: &Subject,
        id: u64,
        token: &Token,
        digest: &TokenDigest,
        wake: &Notify,
    ) {
        let namespace = claimed_namespace(token);
        let mut urgency = self.urgency(subject, id, digest);
        let mut pass = self.limiter.queue(&namespace, urgency);
        loop {
            tokio::select! {
                _ = &mut pass => return,
                () = wake.notified() => {
                    let now = self.urgency(subject, id, digest);
                    if now != urgency {
                        urgency = now;
                        pass = self.limiter.queue(&namespace, urgency);
                    }
                }
            }
        }
    }

    fn urgency(&self, subject: &Subject, id: u64, digest: &TokenDigest) -> Urgency {
        let line = self.line(subject, id);
        match line.and_then(|line| line.purpose(digest)) {
            Some(Purpose::Refresh(expiration)) => Urgency::Refresh(expiration),
            Some(Purpose::Asked) | None => Urgency::Asked,
        }
    }

    /// The response for credentials that a pod can use.
    fn usable(&self, credentials: &Credentials) -> Answer {
        if credentials.expiration <= self.clock.now() {
            return Err(UpstreamError::unavailable("the credentials have expired"));
        }
        let body = body(credentials)
            .ok_or_else(|| UpstreamError::unavailable("the expiration is no date"))?;
        Ok((body, credentials.expiration))
    }

    /// Lets the limiter and the log know how EKS Auth is doing.
    fn report(&self, answer: &Answer) {
        match answer {
            Ok(_) | Err(UpstreamError::Refused { .. }) => {
                self.health.answered();
            }
            Err(UpstreamError::Throttled { retry_after }) => {
                self.limiter.throttled();
                self.limiter.blocked(retry_after.unwrap_or_default());
                self.health.answered();
            }
            Err(UpstreamError::Unavailable {
                reason,
                retry_after,
            }) => {
                self.limiter.blocked(retry_after.unwrap_or_default());
                self.health.failed(reason);
            }
        }
    }

    /// Keeps what an exchange brought, and tells those who wait for it.
    fn settle(&self, subject: Subject, id: u64, token: Token, digest: TokenDigest, answer: Answer) {
        let Some(mut line) = self.line(&subject, id) else {
            return;
        };
        let purpose = match line.purpose(&digest) {
            Some(Purpose::Refresh(_)) => "refresh",
            Some(Purpose::Asked) | None => "asked",
        };
        let outcome = match answer {
            Ok((body, expiration)) => {
                self.accepted(&mut line, subject, token, digest, body, expiration);
                "ok"
            }
            Err(UpstreamError::Refused {
                kind,
                code,
                message,
            }) => {
                self.refused(&mut line, subject, digest, kind, code, message);
                "refused"
            }
            Err(error) => {
                self.failed(&mut line, subject, digest, error.to_string());
                "failed"
            }
        };
        let attempts = &self.metrics.attempts;
        attempts.with_label_values(&[purpose, outcome]).inc();
    }

    /// A token got its credentials.
    fn accepted(
        &self,
        line: &mut Line,
        subject: Subject,
        token: Token,
        digest: TokenDigest,
        body: Bytes,
        expiration: SystemTime,
    ) {
        if !self.cache.is_off() || line.waiters(&digest) == 0 {
            let now = self.clock.now();
            self.cache
                .insert(subject, token, digest, body.clone(), expiration, now);
        }
        if self.refusals.clear(&subject, &digest) {
            tracing::info!(?subject, "EKS Auth accepts a token that it had refused");
        }
        line.finish(&digest, Ok(body));
    }

    /// A token got EKS Auth's last word.
    fn refused(
        &self,
        line: &mut Line,
        subject: Subject,
        digest: TokenDigest,
        kind: RefusalKind,
        code: String,
        message: String,
    ) {
        self.cache.refuse(&subject, &digest, kind);
        let error = CredentialError::Refused {
            kind,
            code,
            message,
        };
        let news = self
            .refusals
            .add(subject, digest, error.clone(), Instant::now());
        if news {
            tracing::warn!(?subject, %error, "EKS Auth refuses a pod's token");
        }
        line.finish(&digest, Err(error));
    }

    /// An exchange failed and will be tried again: soon if somebody waits, else some time later.
    fn failed(&self, line: &mut Line, subject: Subject, digest: TokenDigest, reason: String) {
        if let Some(Purpose::Refresh(_)) = line.purpose(&digest) {
            self.cache.postpone(&subject, self.clock.now());
        }
        let patience = self.config.patience;
        line.failed(&digest, reason, patience, Instant::now());
    }
}
