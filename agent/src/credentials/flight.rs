//! The flights: one task per line, which exchanges its tokens one by one.

use std::{sync::Arc, thread, time::SystemTime};

use bytes::Bytes;
use dashmap::{Entry as Slot, mapref::one::RefMut};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{
    CredentialError, Subject, Verdict,
    body::body,
    cache::{Fetched, Lookup},
    limiter::Turn,
    line::{Line, Next, Outcome, Purpose},
    refusals::Source,
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

    /// Exchanges a token, unless that turns out not to be needed.
    async fn exchange(
        &self,
        subject: Subject,
        id: u64,
        token: Token,
        digest: TokenDigest,
        wake: &Notify,
    ) {
        let verdict = self.verifier.get().map(|keys| keys.verify_at_hand(&token));
        if self.is_settled(&subject, id, &token, &digest, verdict.as_ref()) {
            return;
        }
        let turn = turn(&subject, verdict);
        if !self.pass(&subject, id, &digest, &turn, wake).await
            // Another token of the pod may have got newer ones meanwhile.
            || self.is_settled(&subject, id, &token, &digest, None)
        {
            return;
        }
        let answer = self.upstream.assume_role(token.clone()).await;
        let answer = answer.and_then(|credentials| self.usable(&credentials));
        self.report(&answer);
        self.settle(subject, id, token, digest, answer);
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
    fn line(&self, subject: &Subject, id: u64) -> Option<RefMut<'_, Subject, Line>> {
        let line = self.lines.get_mut(subject)?;
        (line.id == id).then_some(line)
    }

    /// Takes a token out of line if there is an answer without asking EKS Auth.
    fn is_settled(
        &self,
        subject: &Subject,
        id: u64,
        token: &Token,
        digest: &TokenDigest,
        verdict: Option<&Verdict>,
    ) -> bool {
        let Some(mut line) = self.line(subject, id) else {
            return true;
        };
        let outcome = match line.purpose(digest) {
            None => return true,
            Some(Purpose::Refresh(expiration)) => self.cache.later(subject, expiration).map(Ok),
            Some(Purpose::Asked) => self.known(subject, token, digest, verdict),
        };
        match outcome {
            Some(outcome) => {
                line.finish(digest, outcome);
                true
            }
            None => false,
        }
    }

    /// What somebody who shows a token can be told without asking EKS Auth: a rotated one gets what
    /// the pod has, and a forged one gets nothing.
    fn known(
        &self,
        subject: &Subject,
        token: &Token,
        digest: &TokenDigest,
        verdict: Option<&Verdict>,
    ) -> Option<Outcome> {
        if let Some(refused) = verdict.and_then(|verdict| self.refuse_locally(verdict)) {
            self.remember(*subject, *digest, &refused);
            return Some(Err(refused));
        }
        if self.cache.is_off() {
            return None;
        }
        let found = match verdict {
            Some(verdict) => self.adopt(subject, token.clone(), verdict),
            None => self.cache.get(subject, digest, self.clock.now()),
        };
        match found {
            Lookup::Fresh(body, _) => Some(Ok(body)),
            Lookup::Stale(_) | Lookup::Nothing => None,
        }
    }

    /// Waits until the limiter lets the exchange pass. If it becomes more urgent, it moves up.
    /// False if nobody waits for the token any more.
    async fn pass(
        &self,
        subject: &Subject,
        id: u64,
        digest: &TokenDigest,
        turn: &Turn,
        wake: &Notify,
    ) -> bool {
        let urgency = || self.line(subject, id)?.urgency(digest);
        let Some(mut queued) = urgency() else {
            return false;
        };
        let mut pass = self.limiter.queue(turn, queued);
        loop {
            tokio::select! {
                _ = &mut pass => return true,
                () = wake.notified() => match urgency() {
                    Some(now) if now != queued => {
                        queued = now;
                        pass = self.limiter.queue(turn, queued);
                    }
                    Some(_) => {}
                    None => return false,
                },
            }
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
        let asked = !matches!(line.purpose(&digest), Some(Purpose::Refresh(_)));
        if let (Err(error), false) = (&answer, asked) {
            self.metrics.cache_errors.failed(error);
        }
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
            Err(UpstreamError::Refused {
                kind,
                code,
                message,
            }) => {
                let error = CredentialError::Refused {
                    kind,
                    code,
                    message,
                };
                let now = self.clock.now();
                self.cache.refuse(&subject, &digest, kind, now);
                ("refused", self.refused(&mut line, subject, digest, error))
            }
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
        let (now, digest) = (self.clock.now(), fetched.digest);
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
        if is_kept && !self.gone.contains_key(&subject) {
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

    /// An exchange failed and will be tried again: soon if somebody waits, else some time later.
    fn failed(&self, line: &mut Line, subject: Subject, digest: TokenDigest, reason: String) {
        if let Some(Purpose::Refresh(_)) = line.purpose(&digest) {
            self.cache.postpone(&subject, self.clock.now());
        }
        let patience = self.config.patience;
        line.failed(&digest, reason, patience, Instant::now());
    }
}

/// What an exchange brought that is worth a line in the log.
enum News {
    AcceptedAgain,
    Refused(CredentialError),
}

/// Whom a subject's exchange takes turns with. What a token says of itself does not count: a pod
/// could choose a turn of its own.
fn turn(subject: &Subject, verdict: Option<Verdict>) -> Turn {
    match (verdict, subject) {
        (Some(Verdict::Genuine { namespace, .. }), _) => Turn::Namespace(namespace),
        (None, Subject::Pod(pod)) => Turn::Pod(*pod),
        (Some(_), _) | (None, Subject::Bearer(_)) => Turn::Unverified,
    }
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
