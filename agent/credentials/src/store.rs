//! The store: what the server asks.

use std::sync::Arc;

use bytes::Bytes;
use podcreds_cache::{self as cache, Cache, CacheResult, Clock, Lookup, Subject};
use podcreds_exchange::{self as exchange, Exchange, ExchangeReport, Refreshed, RequestResult};
use podcreds_keys::VerifyToken;
use podcreds_types::{Claimant, CredentialError, PodUid, Token, TokenDigest, Vital};
use podcreds_upstream::AssumeRole;
use prometheus::Registry;
use tokio::runtime::Handle;

use super::Config;

/// Everybody's credentials. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    cache: Arc<Cache>,
    exchange: Exchange,
}

/// What the cache and the exchanges count. Clones are the same metrics.
#[derive(Clone)]
pub struct Metrics {
    cache: cache::Metrics,
    exchange: exchange::Metrics,
    registry: Registry,
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    ///
    /// # Errors
    ///
    /// When one of the names is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            cache: cache::Metrics::register(registry)?,
            exchange: exchange::Metrics::register(registry)?,
            registry: registry.clone(),
        })
    }
}

impl Store {
    /// An empty store that fetches from `upstream`, in tasks on `runtime` for which `vital`
    /// answers. With `keys`, a pod's new token is accepted by its signature; without, EKS Auth must
    /// have accepted a token first.
    ///
    /// # Errors
    ///
    /// When two metrics have one name.
    pub fn start(
        config: Config,
        upstream: Arc<dyn AssumeRole>,
        keys: Option<Arc<dyn VerifyToken>>,
        clock: Clock,
        metrics: &Metrics,
        runtime: &Handle,
        vital: Vital,
    ) -> prometheus::Result<Self> {
        let cache = Arc::new(Cache::new(config.cache, clock, metrics.cache.clone()));
        cache.register(&metrics.registry)?;
        let exchange = Exchange::start(
            config.exchange,
            Arc::clone(&cache),
            keys,
            upstream,
            metrics.exchange.clone(),
            runtime,
            vital,
        );
        Ok(Self { cache, exchange })
    }

    /// What is in memory, for those who follow its changes.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// What a request can be told at once: the response's body, or what it was told seconds ago and
    /// would be told again. Cheap in both cases.
    pub fn look_up(&self, claimant: &Claimant, digest: &TokenDigest) -> Option<RequestResult> {
        let mut refused = None;
        for subject in subjects(claimant, digest) {
            match self.cache.get(&subject, digest) {
                Lookup::Fresh(body, age) => {
                    self.cache.metrics().hit(age);
                    return Some(Ok(body));
                }
                Lookup::Refused(error) => refused = refused.or(Some(error)),
                // There may be newer ones to be had.
                Lookup::Stale(_) | Lookup::Nothing => {}
            }
        }
        let refused = refused?;
        self.cache.metrics().count(match refused {
            CredentialError::Refused(_) => CacheResult::Refused,
            CredentialError::NotReady { .. } => CacheResult::Overloaded,
        });
        Some(Err(refused))
    }

    /// The response's body, from EKS Auth if need be. One exchange goes out for all who wait; it
    /// goes on when they have given up.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Refused`] when EKS Auth will have none of it,
    /// [`CredentialError::NotReady`] when there is no answer in time and nothing valid in memory.
    pub async fn fetch(&self, claimant: Claimant, token: Token) -> Result<Bytes, CredentialError> {
        let digest = token.digest();
        let outcome = self.exchange.fetch(claimant, token).await;
        if !matches!(outcome, Err(CredentialError::NotReady { .. })) {
            return outcome;
        }
        let valid = subjects(&claimant, &digest).find_map(|subject| {
            match self.cache.get(&subject, &digest) {
                Lookup::Fresh(body, _) | Lookup::Stale(body) => Some(Ok(body)),
                Lookup::Refused(_) | Lookup::Nothing => None,
            }
        });
        valid.unwrap_or(outcome)
    }

    /// How the exchanges are going, for people to read.
    pub async fn report(&self) -> Option<ExchangeReport> {
        self.exchange.report().await
    }

    /// Fetches a subject's credentials again, however long those that there are would be good for.
    ///
    /// # Errors
    ///
    /// The same as of [`Self::fetch`].
    pub async fn refresh(&self, subject: Subject) -> Refreshed {
        self.exchange.refresh(subject).await
    }

    /// Drops all that is kept for a pod that is gone, and gives up what is in flight for it. What
    /// its last requests bring is not kept either.
    pub fn forget(&self, pod: PodUid) {
        self.cache.forget_pod(pod);
        self.exchange.forget(pod);
    }
}

/// Where to look for what a claimant may have. Claims may choose a subject, since nothing is found
/// but by the very token that was accepted, or refused, there: claims and all.
fn subjects(claimant: &Claimant, digest: &TokenDigest) -> impl Iterator<Item = Subject> {
    let (pod, token) = match claimant {
        Claimant::Pod(pod) => (Some(*pod), None),
        Claimant::Bearer { claims, .. } => (*claims, Some(*digest)),
    };
    let pod = pod.map(Subject::Pod).into_iter();
    pod.chain(token.map(Subject::Token))
}
