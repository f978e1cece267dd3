//! The store: what the server asks.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dashmap::{DashMap, Entry as Slot};
use podcreds_keys::VerifyToken;
use podcreds_types::{Claimant, Origin, PodUid, Token, TokenDigest};
use podcreds_upstream::AssumeRole;
use prometheus::IntCounter;
use tokio::{runtime::Handle, sync::Notify, time::Instant};

use super::{
    Clock, Config, CredentialError, Metrics, Subject,
    cache::{Cache, Lookup},
    claimant::{Look, too_many},
    health::Health,
    limiter::Limiter,
    line::{Line, Place},
    refusals::Refusals,
    seats::{Seat, Seats},
    succession::Census,
    upkeep,
    waiting::{InLine, Waited, Waiting},
};

/// Everybody's credentials. Clones are the same store.
#[derive(Clone)]
pub struct Store(pub(super) Arc<Shared>);

/// What the requests, the flights and the upkeep share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) cache: Cache,
    pub(super) refusals: Refusals,
    /// One line a pod, for as long as one of its tokens waits to be exchanged. Its lock is held
    /// while what an exchange brought goes into the cache, so that nobody finds neither.
    pub(super) lines: DashMap<Subject, Line>,
    next_line: AtomicU64,
    /// For lines of subjects that nobody has identified.
    waiting: Seats,
    /// For looks at their tokens.
    pub(super) looking: Seats,
    /// The tokens of unidentified callers that are being looked at.
    pub(super) bearers: DashMap<TokenDigest, Look>,
    /// Pods that have gone, and when.
    pub(super) gone: DashMap<Subject, Instant>,
    /// How many of a subject's tokens are being verified.
    pub(super) looks: DashMap<Subject, usize>,
    pub(super) limiter: Limiter,
    pub(super) health: Health,
    pub(super) upstream: Arc<dyn AssumeRole>,
    pub(super) verifier: OnceLock<Arc<dyn VerifyToken>>,
    pub(super) census: OnceLock<Census>,
    pub(super) runtime: Handle,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
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
        let shared = Arc::new(Shared {
            cache: Cache::new(&config, metrics.clone()),
            refusals: Refusals::new(metrics.clone()),
            lines: DashMap::new(),
            next_line: AtomicU64::new(0),
            waiting: Seats::new(config.unidentified_each, config.unidentified),
            looking: Seats::new(config.unidentified_each, config.unidentified),
            bearers: DashMap::new(),
            gone: DashMap::new(),
            looks: DashMap::new(),
            limiter: Limiter::new(&config, &runtime, metrics.clone()),
            health: Health::new(metrics.clone()),
            upstream,
            verifier: OnceLock::new(),
            census: OnceLock::new(),
            runtime,
            clock,
            metrics,
            config,
        });
        let upkeep = upkeep::run(Arc::downgrade(&shared));
        shared.runtime.spawn(upkeep);
        Self(shared)
    }

    /// From now on, accepts a pod's new token by its signature, if `verifier` vouches for it.
    /// Without one, EKS Auth must have accepted a token first. The first verifier stays.
    pub fn trust(&self, verifier: Arc<dyn VerifyToken>) {
        let _ = self.0.verifier.set(verifier);
    }

    /// The response's body, from EKS Auth if need be. One exchange goes out for all who wait; it
    /// goes on when they have given up.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Refused`] when EKS Auth will have none of it,
    /// [`CredentialError::NotReady`] when there is no answer within [`Config::client_wait`] and
    /// nothing valid in memory.
    pub async fn fetch(&self, claimant: Claimant, token: Token) -> Result<Bytes, CredentialError> {
        let digest = token.digest();
        let deadline = Instant::now() + self.0.config.client_wait;
        let patience = self.0.config.client_wait / 3;
        let (subject, origin) = match claimant {
            Claimant::Pod(pod) => {
                let subject = Subject::Pod(pod);
                self.0.vouch(subject, &token, digest, patience).await;
                (subject, None)
            }
            Claimant::Bearer { claims, origin } => {
                let subject = (self.0).resolve(claims, origin, &token, digest, patience);
                let counted = |error: &CredentialError| self.0.metrics.of_error(error).inc();
                (subject.await.inspect_err(counted)?, Some(origin))
            }
        };
        let joined = self.0.join(subject, origin, token, digest);
        let mut counted = Counted(self.0.metrics.of(&joined));
        let outcome = match joined {
            Ok(Joined::AtHand(body, age)) => {
                self.0.metrics.hit_age.observe(age.as_secs_f64());
                return Ok(body);
            }
            Ok(Joined::InLine(mut joined)) => {
                let _waiting = Waiting::new(&self.0.metrics);
                match joined.wait(deadline).await {
                    Waited::Done(outcome) => outcome,
                    Waited::GivenUp => Err(self.0.given_up(&subject)),
                    Waited::TimeIsUp(failure) => Err(self.0.not_yet(&subject, &digest, failure)),
                }
            }
            Err(error) => Err(error),
        };
        let Err(not_ready @ CredentialError::NotReady { .. }) = outcome else {
            return outcome;
        };
        match self.0.cache.get(&subject, &digest, self.0.clock.read()) {
            Lookup::Fresh(body, _) => Ok(body),
            Lookup::Stale(body) => {
                counted.0 = &self.0.metrics.stale;
                Ok(body)
            }
            Lookup::Nothing => Err(not_ready),
        }
    }

    /// Drops all that is kept for a pod that is gone, and gives up what is in flight for it. What
    /// its last requests bring is not kept either.
    pub fn forget(&self, pod: PodUid) {
        let subject = Subject::Pod(pod);
        self.0.gone.insert(subject, Instant::now());
        if self.0.lines.remove(&subject).is_some() {
            self.0.metrics.flights.dec();
        }
        self.0.cache.forget(&subject);
        self.0.refusals.forget(&subject);
    }
}

/// Where a request finds its credentials.
enum Joined {
    /// In the cache: the response's body, and how old its credentials are.
    AtHand(Bytes, Duration),
    /// In line for an exchange.
    InLine(InLine),
}

/// Counts a request when it is over, once.
struct Counted<'a>(&'a IntCounter);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.inc();
    }
}

impl Metrics {
    /// The counter of requests like this one.
    fn of(&self, joined: &Result<Joined, CredentialError>) -> &IntCounter {
        match joined {
            Ok(Joined::AtHand(..)) => &self.hits,
            Ok(Joined::InLine(joined)) if joined.is_first => &self.misses,
            Ok(Joined::InLine(_)) => &self.joined,
            Err(error) => self.of_error(error),
        }
    }

    /// The counter of requests that are told this at once.
    pub(super) fn of_error(&self, error: &CredentialError) -> &IntCounter {
        match error {
            CredentialError::Refused(_) => &self.refused,
            CredentialError::NotReady { .. } => &self.overloaded,
        }
    }
}

impl Shared {
    /// Puts a token into its subject's line, unless its credentials have just come.
    fn join(
        self: &Arc<Self>,
        subject: Subject,
        origin: Option<Origin>,
        token: Token,
        digest: TokenDigest,
    ) -> Result<Joined, CredentialError> {
        let now = Instant::now();
        let slot = self.lines.entry(subject);
        let has_stale = match self.cache.get(&subject, &digest, self.clock.read()) {
            Lookup::Fresh(body, age) => return Ok(Joined::AtHand(body, age)),
            Lookup::Stale(_) => true,
            Lookup::Nothing => false,
        };
        if let Some(refused) = self.refusals.get(&subject, &digest, now) {
            return Err(refused);
        }
        let mut line = match slot {
            Slot::Occupied(line) => line.into_ref(),
            Slot::Vacant(slot) => {
                let seat = match (subject, origin) {
                    (Subject::Bearer(_), Some(origin)) => {
                        let seat = self.waiting.take(origin);
                        Some(seat.ok_or_else(|| too_many("waiting for EKS Auth"))?)
                    }
                    _ => None,
                };
                slot.insert(self.open_line(subject, seat))
            }
        };
        let not_before = now + self.refusals.pause(&subject);
        line.asked_from(origin);
        let is_suspect = origin.is_some_and(|place| self.refusals.is_suspect(place));
        let doubtful = self.refusals.is_known(&subject, &digest)
            || (is_suspect && matches!(subject, Subject::Bearer(_)));
        let limit = self.config.tokens_per_pod;
        let (progress, is_first) = match line.join(token, digest, doubtful, limit, now, not_before)
        {
            Place::New(progress) => (progress, true),
            Place::Joined(progress) => (progress, false),
            Place::Full => {
                return Err(CredentialError::not_ready(format!(
                    "{limit} other tokens of this pod wait to be exchanged, and EKS Auth has not been \
                     asked about this one"
                )));
            }
        };
        Ok(Joined::InLine(InLine {
            progress,
            is_first,
            has_stale,
        }))
    }

    /// Puts a token into line to refresh what it got.
    pub(super) fn refresh(
        self: &Arc<Self>,
        subject: Subject,
        token: Token,
        expiration: std::time::SystemTime,
    ) {
        let mut line = match self.lines.entry(subject) {
            Slot::Occupied(line) => line.into_ref(),
            // There are no more of these than entries in the cache.
            Slot::Vacant(slot) => slot.insert(self.open_line(subject, None)),
        };
        line.refresh(token, expiration, Instant::now());
    }

    /// A line for `subject`, with its task.
    fn open_line(self: &Arc<Self>, subject: Subject, seat: Option<Seat>) -> Line {
        let id = self.next_line.fetch_add(1, Ordering::Relaxed);
        let wake = Arc::new(Notify::new());
        let flights = Arc::clone(self).fly(subject, id, Arc::clone(&wake));
        self.metrics.flights.inc();
        Line::new(id, wake, self.runtime.spawn(flights).abort_handle(), seat)
    }
}
