//! The flights: one task per line, which exchanges its tokens one by one.

use std::{sync::Arc, thread, time::SystemTime};

use bytes::Bytes;
use dashmap::{Entry as Slot, mapref::one::RefMut};
use podcreds_types::{Credentials, RefusalKind, Token, TokenDigest};
use podcreds_upstream::UpstreamError;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{
    CredentialError, Subject,
    body::body,
    cache::Fetched,
    line::{Line, Next, Purpose},
    refusals::Source,
    store::Shared,
};

/// What an exchange brought: the response's body, and when its credentials expire.
pub(super) type Answer = Result<(Bytes, SystemTime), UpstreamError>;

impl Shared {
    /// Exchanges the tokens in a line until none is left.
    pub(super) async fn fly(self: Arc<Self>, subject: Subject, id: u64, wake: Arc<Notify>) {
        let _end = End {
            shared: Arc::clone(&self),
            subject,
            id,
        };
        loop {
            match self.next(&subject, id) {
                Next::Nothing => return,
                Next::Pause(until) => {
                    // Woken or not, the line is looked at again.
                    let _ = timeout_at(until, wake.notified()).await;
                }
                Next::Exchange(token, digest) => {
                    self.exchange(subject, id, token, digest, &wake).await;
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
            self.metrics.flights.dec();
        }
        next
    }

    /// The line that a flight belongs to, unless its pod is gone.
    pub(super) fn line(&self, subject: &Subject, id: u64) -> Option<RefMut<'_, Subject, Line>> {
        let line = self.lines.get_mut(subject)?;
        (line.id == id).then_some(line)
    }

    /// The response for credentials that a pod can use.
    pub(super) fn usable(&self, credentials: &Credentials) -> Answer {
        if credentials.expiration <= self.clock.now() {
            return Err(UpstreamError::unavailable("the credentials have expired"));
        }
        let body = body(credentials)
            .ok_or_else(|| UpstreamError::unavailable("the expiration is no date"))?;
        Ok((body, credentials.expiration))
    }

    /// Lets the limiter and the log know how EKS Auth is doing, by a call that went out at
    /// `started`.
    pub(super) fn report(&self, answer: &Answer, started: Instant) {
        match answer {
            Ok(_) | Err(UpstreamError::Refused(_)) => {
                self.health.answered();
            }
            // Whatever is wrong with one request says nothing about EKS Auth, good or bad.
            Err(UpstreamError::Rejected { .. }) => {}
            Err(UpstreamError::Throttled { retry_after }) => {
                self.limiter.throttled(started);
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
    pub(super) fn settle(
        &self,
        subject: Subject,
        id: u64,
        token: Token,
        digest: TokenDigest,
        answer: Answer,
    ) {
        let Some(mut line) = self.line(&subject, id) else {
            return;
        };
        let asked = !matches!(line.purpose(&digest), Some(Purpose::Refresh(_)));
        if let (Err(error), false) = (&answer, asked) {
            self.metrics.cache_errors.failed(error);
        }
        self.judge_place(&line, &subject, &answer);
        let (outcome, news) = match answer {
            Ok((body, expiration)) => {
                let fetched = Fetched {
                    body,
                    expiration,
                    token,
                    digest,
                    asked,
                };
                self.accepted(&mut line, subject, fetched)
            }
            Err(UpstreamError::Refused(refusal)) => {
                let now = self.clock.read();
                self.cache.refuse(&subject, &digest, refusal.kind, now);
                let error = CredentialError::Refused(refusal);
                ("refused", self.refused(&mut line, subject, digest, error))
            }
            Err(error @ UpstreamError::Rejected { .. }) => (
                "rejected",
                self.rejected(&mut line, subject, digest, &error),
            ),
            Err(error) => {
                self.failed(&mut line, subject, digest, error.to_string());
                ("failed", None)
            }
        };
        drop(line);
        let purpose = if asked { "asked" } else { "refresh" };
        let attempts = &self.metrics.attempts;
        attempts.with_label_values(&[purpose, outcome]).inc();
        // Whoever reads the log may be slow: nothing is written with the line's lock held.
        match news {
            Some(News::Refused(error)) => {
                tracing::warn!(?subject, %error, "EKS Auth refuses a pod's token");
            }
            Some(News::Rejected(error)) => {
                tracing::warn!(?subject, %error, "EKS Auth rejects the request for a pod's token");
            }
            Some(News::AcceptedAgain) => {
                tracing::info!(?subject, "EKS Auth accepts a token that it had refused");
            }
            None => {}
        }
    }

    /// A token got its credentials. What came of it, for the metrics and for the log.
    fn accepted(
        &self,
        line: &mut Line,
        subject: Subject,
        fetched: Fetched,
    ) -> (&'static str, Option<News>) {
        let (now, digest) = (self.clock.read(), fetched.digest);
        let news = self.refusals.clear(&subject, &digest);
        let news = news.then_some(News::AcceptedAgain);
        if let Some(better) = self.cache.better(&subject, fetched.expiration, now) {
            // The token is good, its credentials are not: they would not last until the next try.
            self.cache.adopt(&subject, fetched.token, now);
            self.cache.postpone(&subject, now);
            line.finish(&digest, Ok(better));
            return ("failed", news);
        }
        let body = fetched.body.clone();
        let is_kept = !self.cache.is_off() || line.waiters(&digest) == 0;
        if is_kept && self.is_present(&subject) {
            self.cache.insert(subject, fetched, now);
        }
        line.finish(&digest, Ok(body));
        ("ok", news)
    }

    /// A token got EKS Auth's last word.
    fn refused(
        &self,
        line: &mut Line,
        subject: Subject,
        digest: TokenDigest,
        error: CredentialError,
    ) -> Option<News> {
        let (source, now) = (Source::EksAuth, Instant::now());
        let is_new = (self.refusals).add(subject, digest, source, error.clone(), now);
        line.finish(&digest, Err(error.clone()));
        is_new.then_some(News::Refused(error))
    }

    /// EKS Auth rejected the request for a token, which it may do for good, or not. So nothing is
    /// taken from the pod, and this token alone is left alone for a while.
    fn rejected(
        &self,
        line: &mut Line,
        subject: Subject,
        digest: TokenDigest,
        error: &UpstreamError,
    ) -> Option<News> {
        if let Some(Purpose::Refresh(_)) = line.purpose(&digest) {
            self.cache.postpone(&subject, self.clock.read());
        }
        let told = CredentialError::not_ready(error.to_string());
        let (source, now) = (Source::EksAuth, Instant::now());
        let is_new = (self.refusals).add(subject, digest, source, told.clone(), now);
        line.finish(&digest, Err(told.clone()));
        is_new.then_some(News::Rejected(told))
    }

    /// Notes whether the tokens are any good that come from where an unidentified caller is.
    fn judge_place(&self, line: &Line, subject: &Subject, answer: &Answer) {
        let (Subject::Bearer(_), Some(place)) = (subject, line.origin()) else {
            return;
        };
        let is_good = match answer {
            Ok(_) => true,
            Err(UpstreamError::Refused(refusal)) if refusal.kind == RefusalKind::BadToken => false,
            Err(UpstreamError::Rejected { .. }) => false,
            Err(_) => return,
        };
        self.refusals.judge(place, is_good, Instant::now());
    }

    /// An exchange failed and will be tried again: soon if somebody waits, else some time later.
    fn failed(&self, line: &mut Line, subject: Subject, digest: TokenDigest, reason: String) {
        if let Some(Purpose::Refresh(_)) = line.purpose(&digest) {
            self.cache.postpone(&subject, self.clock.read());
        }
        let patience = self.config.patience;
        line.failed(&digest, reason, patience, Instant::now());
    }
}

/// What an exchange brought that is worth a line in the log.
enum News {
    AcceptedAgain,
    Refused(CredentialError),
    Rejected(CredentialError),
}

/// Closes a line when its task ends, however that is.
struct End {
    shared: Arc<Shared>,
    subject: Subject,
    id: u64,
}

impl Drop for End {
    fn drop(&mut self) {
        let lines = &self.shared.lines;
        let left = lines.remove_if(&self.subject, |_, line| line.id == self.id);
        if left.is_none() {
            return;
        }
        self.shared.metrics.flights.dec();
        if thread::panicking() {
            let subject = self.subject;
            tracing::error!(
                ?subject,
                "an exchange has panicked; the next request opens a new line"
            );
        }
    }
}
