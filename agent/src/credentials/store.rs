//! The cache and the flights that fill it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use dashmap::{DashMap, Entry as Slot};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, timeout, timeout_at},
};

use super::{
    Clock, Config, CredentialError, Metrics, Subject,
    body::body,
    cache::{Cache, Entry},
    line::{Line, Next, Outcome, Place, Progress},
};
use crate::{
    types::{Credentials, PodUid, Token, TokenDigest},
    upstream::{AssumeRole, UpstreamError},
};

/// Everybody's credentials. Clones are the same store.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    config: Config,
    cache: Cache,
    /// One line a pod, for as long as one of its tokens waits to be exchanged. Its lock is held
    /// while the cache is changed, so that a token is always in line, in the cache, or neither.
    lines: DashMap<Subject, Line>,
    next_line: AtomicU64,
    upstream: Arc<dyn AssumeRole>,
    runtime: Handle,
    clock: Clock,
    metrics: Metrics,
}

impl Store {
    /// An empty store that fetches from `upstream`, in tasks on `runtime`.
    pub fn new(
        config: Config,
        upstream: Arc<dyn AssumeRole>,
        runtime: Handle,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Shared {
            config,
            cache: Cache::new(metrics.clone()),
            lines: DashMap::new(),
            next_line: AtomicU64::new(0),
            upstream,
            runtime,
            clock,
            metrics,
        }))
    }

    /// The response's body, if it is at hand for this subject and this token. Cheap.
    pub fn cached(&self, subject: &Subject, digest: &TokenDigest) -> Option<Bytes> {
        let body = self.0.cache.get(subject, digest, self.0.clock.now())?;
        self.0.metrics.hits.inc();
        Some(body)
    }

    /// The response's body, from EKS Auth if need be. One exchange goes out for all who wait; it
    /// goes on when they have given up.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Refused`] when EKS Auth will have none of it,
    /// [`CredentialError::NotReady`] when there is no answer within [`Config::client_wait`].
    pub async fn fetch(&self, subject: Subject, token: Token) -> Result<Bytes, CredentialError> {
        let mut progress = match self.0.join(subject, token) {
            Joined::AtHand(body) => return Ok(body),
            Joined::Full => {
                return Err(CredentialError::not_ready(
                    "too many different tokens of this pod are waiting to be exchanged",
                ));
            }
            Joined::Line(progress) => progress,
        };
        let _waiting = Waiting::new(&self.0.metrics);
        match timeout(self.0.config.client_wait, outcome(&mut progress)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CredentialError::not_ready(match &*progress.borrow() {
                Progress::Failing(reason) => reason.clone(),
                _ => "EKS Auth has not answered yet".to_owned(),
            })),
        }
    }

    /// Drops all that is kept for a pod that is gone, and gives up what is in flight for it.
    pub fn forget(&self, pod: PodUid) {
        if self.0.lines.remove(&Subject::Pod(pod)).is_some() {
            self.0.metrics.flights.dec();
        }
        self.0.cache.forget(pod);
    }
}

/// Counts a request among those that wait, until it is dropped.
struct Waiting<'a>(&'a Metrics);

impl<'a> Waiting<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.waiters.inc();
        Self(metrics)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiters.dec();
    }
}

/// Waits until the exchange is over.
async fn outcome(progress: &mut watch::Receiver<Progress>) -> Outcome {
    match progress
        .wait_for(|progress| matches!(progress, Progress::Done(_)))
        .await
    {
        Ok(progress) => match &*progress {
            Progress::Done(outcome) => outcome.clone(),
            _ => Err(CredentialError::not_ready("the exchange goes on")),
        },
        Err(_) => Err(CredentialError::not_ready("the pod is gone")),
    }
}

/// Where a request finds its credentials.
enum Joined {
    AtHand(Bytes),
    Line(watch::Receiver<Progress>),
    Full,
}

impl Shared {
    /// Puts a token into its subject's line, unless its credentials have just come.
    fn join(self: &Arc<Self>, subject: Subject, token: Token) -> Joined {
        let digest = token.digest();
        let slot = self.lines.entry(subject);
        if let Some(body) = self.cache.get(&subject, &digest, self.clock.now()) {
            self.metrics.hits.inc();
            return Joined::AtHand(body);
        }
        let mut line = match slot {
            Slot::Occupied(line) => line.into_ref(),
            Slot::Vacant(slot) => slot.insert(self.open_line(subject)),
        };
        match line.join(token, digest, self.config.tokens_per_pod, Instant::now()) {
            Place::New(progress) => {
                self.metrics.misses.inc();
                Joined::Line(progress)
            }
            Place::Joined(progress) => {
                self.metrics.joined.inc();
                Joined::Line(progress)
            }
            Place::Full => Joined::Full,
        }
    }

    /// A line for `subject`, with its task.
    fn open_line(self: &Arc<Self>, subject: Subject) -> Line {
        let id = self.next_line.fetch_add(1, Ordering::Relaxed);
        let wake = Arc::new(Notify::new());
        let work = Arc::clone(self).work(subject, id, Arc::clone(&wake));
        self.metrics.flights.inc();
        Line::new(id, wake, self.runtime.spawn(work).abort_handle())
    }

    /// Exchanges the tokens in a line until none is left.
    async fn work(self: Arc<Self>, subject: Subject, id: u64, wake: Arc<Notify>) {
        loop {
            match self.next(&subject, id) {
                Next::Nothing => return,
                Next::Pause(until) => {
                    let _ = timeout_at(until, wake.notified()).await;
                }
                Next::Exchange(token, digest) => {
                    let answer = self.upstream.assume_role(token).await;
                    self.settle(subject, id, digest, answer);
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

    /// Keeps what an exchange brought, and tells those who wait for it.
    fn settle(
        &self,
        subject: Subject,
        id: u64,
        digest: TokenDigest,
        answer: Result<Credentials, UpstreamError>,
    ) {
        let Some(mut line) = self.lines.get_mut(&subject) else {
            return;
        };
        if line.id != id {
            return;
        }
        let answer = answer.and_then(|credentials| {
            let body = body(&credentials)
                .ok_or_else(|| UpstreamError::unavailable("the expiration is no date"))?;
            Ok((body, credentials.expiration))
        });
        let counted = match answer {
            Ok((body, expiration)) => {
                let entry = Entry {
                    digest,
                    body: body.clone(),
                    expiration,
                };
                self.cache.insert(subject, entry);
                line.finish(&digest, Ok(body));
                "ok"
            }
            Err(UpstreamError::Refused {
                kind,
                code,
                message,
            }) => {
                self.cache.remove_if_fetched_with(&subject, &digest);
                let refused = CredentialError::Refused {
                    kind,
                    code,
                    message,
                };
                line.finish(&digest, Err(refused));
                "refused"
            }
            Err(
                ref error @ (UpstreamError::Throttled { retry_after }
                | UpstreamError::Unavailable { retry_after, .. }),
            ) => {
                let patience = self.config.patience;
                line.failed(
                    &digest,
                    error.to_string(),
                    retry_after,
                    patience,
                    Instant::now(),
                );
                "failed"
            }
        };
        self.metrics.attempts.with_label_values(&[counted]).inc();
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
