//! The cluster's keys, and which tokens they have signed.

use std::{
    collections::HashMap,
    mem,
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode,
    errors::{Error, ErrorKind},
    jwk::Jwk,
};
use serde::Deserialize;
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};

mod claims;

use podcreds_types::{Claims, PodUid, ServiceAccount, Token};

use super::{Metrics, Verdict, VerifyToken};
use crate::FetchKeys;
use claims::{Signature, SignedClaims, issued};

/// What API servers sign with, and nothing that a public key could be abused for.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384];
/// What nobody can sign with who publishes only the public half of a key.
const SECRETS: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
/// A made-up key ID must not make us fetch again and again.
const FETCH_AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// How soon after a fetch that failed the next one is tried. Nobody waits for that one.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The same for keys of tokens that kubelet has mounted: pods cannot make up so many of those.
const FETCH_FOR_MOUNTED_EVERY: Duration = Duration::from_secs(10);
/// So long a key that the cluster has withdrawn is believed.
const FETCH_AT_LEAST_EVERY: Duration = Duration::from_secs(60 * 60);

/// Verifies the tokens that the cluster has signed for pods.
///
/// Keys are fetched when the first token comes, when one names a key that is not known, and now
/// and then. While they cannot be had, the last ones are good.
#[derive(Clone)]
pub struct ClusterKeys(Arc<Inner>);

struct Inner {
    source: Arc<dyn FetchKeys>,
    audience: String,
    keys: RwLock<HashMap<String, DecodingKey>>,
    /// When they were last tried to be fetched.
    tried: Mutex<Option<Instant>>,
    /// Why that failed, if it did.
    failure: RwLock<Option<Arc<str>>>,
    /// How often they have been fetched.
    fetched: watch::Sender<u64>,
    metrics: Metrics,
}

/// What the cluster's keys say of who a token was issued to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issued {
    /// The cluster has issued it to this pod.
    To(TokenOwner),
    /// The cluster has not signed it, or not for a pod, or it is not good now.
    ToNobody,
    /// The key that it names cannot be had yet, for this reason.
    Unknown(Arc<str>),
}

/// The pod that the cluster has issued a token to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOwner {
    /// The pod that the token is bound to.
    pub pod: PodUid,
    /// The service account that the pod runs as.
    pub account: ServiceAccount,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

impl ClusterKeys {
    /// Trusts the keys from `source`, for tokens whose audience is `audience`.
    pub fn new(source: Arc<dyn FetchKeys>, audience: impl Into<String>, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            source,
            audience: audience.into(),
            keys: RwLock::default(),
            tried: Mutex::default(),
            failure: RwLock::default(),
            fetched: watch::Sender::default(),
            metrics,
        }))
    }

    /// The account and pod that the cluster issued a mounted token to, for any audience.
    pub async fn issued_to(&self, token: &Token) -> Issued {
        let Some(signature) = Signature::of(token) else {
            return Issued::ToNobody;
        };
        let before = *self.0.fetched.borrow();
        let shared = Arc::clone(&self.0);
        shared.key_for(&signature, FETCH_FOR_MOUNTED_EVERY).await;
        match self.0.signed(token, &signature, None) {
            Some(Ok(claims)) if !claims.is_early() => issued(token),
            Some(_) => Issued::ToNobody,
            // Just looked, and there is no such key.
            None if *self.0.fetched.borrow() > before => Issued::ToNobody,
            None => Issued::Unknown(self.0.why_unknown()),
        }
    }

    /// How many keys are known.
    pub fn known(&self) -> usize {
        self.0.keys().len()
    }

    /// Why the last fetch of the keys has failed, if it has.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.0.failure()
    }

    /// Tells whenever keys have been fetched.
    pub fn fetches(&self) -> watch::Receiver<u64> {
        self.0.fetched.subscribe()
    }
}

impl VerifyToken for ClusterKeys {
    fn verify_now(&self, token: &Token) -> Verdict {
        let Some(signature) = Signature::of(token) else {
            return Verdict::Unknown;
        };
        let since = self
            .0
            .fetch_again_after(&signature.kid, FETCH_AT_MOST_EVERY);
        self.0.fetch_meanwhile(since);
        self.0.judge(token, &signature)
    }

    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        let shared = Arc::clone(&self.0);
        Box::pin(shared.verify(token))
    }
}

impl Inner {
    async fn verify(self: Arc<Self>, token: Token) -> Verdict {
        let Some(signature) = Signature::of(&token) else {
            return Verdict::Unknown;
        };
        let shared = Arc::clone(&self);
        shared.key_for(&signature, FETCH_AT_MOST_EVERY).await;
        self.judge(&token, &signature)
    }

    /// What can be said of a token with the keys that are in memory.
    fn judge(&self, token: &Token, signature: &Signature) -> Verdict {
        match self.signed(token, signature, Some(&self.audience)) {
            Some(Ok(claims)) if claims.is_early() => Verdict::Unknown,
            Some(Ok(_)) => match token.claims() {
                Ok(Claims {
                    pod: Some(pod),
                    namespace,
                    ..
                }) => Verdict::Genuine {
                    pod: *pod,
                    namespace: namespace.as_deref().unwrap_or_default().to_owned(),
                },
                // Not a pod's.
                _ => Verdict::Unknown,
            },
            Some(Err(error)) if is_about_signature(error.kind()) => Verdict::Forged,
            Some(Err(error)) if is_about_audience(error.kind()) => Verdict::OtherAudience,
            // Genuine perhaps, but expired.
            Some(Err(_)) | None => Verdict::Unknown,
        }
    }

    /// Sees that the key which a token names is there, if it can be had. One that is not known is
    /// looked for if the last fetch is at least `at_most_every` ago.
    async fn key_for(self: Arc<Self>, signature: &Signature, at_most_every: Duration) {
        let since = self.fetch_again_after(&signature.kid, at_most_every);
        if since == at_most_every {
            // A task of its own: the request may be gone before the answer comes.
            let _ = tokio::spawn(self.fetch_unless_tried(since)).await;
        } else {
            self.fetch_meanwhile(since);
        }
    }

    /// Fetches the keys if that was not tried for a while, and lets nobody wait for it.
    fn fetch_meanwhile(self: &Arc<Self>, since: Duration) {
        // While the lock is held, somebody fetches them already.
        let tried = self.tried.try_lock();
        if tried.is_ok_and(|tried| tried.is_none_or(|tried| tried.elapsed() >= since)) {
            tokio::spawn(Arc::clone(self).fetch_unless_tried(since));
        }
    }

    /// How long ago the last try must be for another one, for somebody who needs this key.
    fn fetch_again_after(&self, kid: &str, at_most_every: Duration) -> Duration {
        if self.keys().contains_key(kid) {
            // Good enough for now, so nobody waits for newer ones.
            FETCH_AT_LEAST_EVERY
        } else if self.failure().is_some() {
            // Somebody has waited for the last try, and in vain.
            TRY_AGAIN_AFTER
        } else {
            at_most_every
        }
    }

    fn failure(&self) -> Option<Arc<str>> {
        let failure = self.failure.read();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_failure(&self, failure: Option<Arc<str>>) -> Option<Arc<str>> {
        let mut held = self.failure.write().unwrap_or_else(PoisonError::into_inner);
        mem::replace(&mut *held, failure)
    }

    /// Why a key is not known.
    fn why_unknown(&self) -> Arc<str> {
        let failure = self.failure();
        failure.unwrap_or_else(|| Arc::from("the cluster's keys are being fetched"))
    }

    fn keys(&self) -> RwLockReadGuard<'_, HashMap<String, DecodingKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a token says, if it was signed with the key that it names. `None` without that key, and
    /// where it is signed in a way that cannot be checked here.
    fn signed(
        &self,
        token: &Token,
        signature: &Signature,
        audience: Option<&str>,
    ) -> Option<jsonwebtoken::errors::Result<SignedClaims>> {
        let keys = self.keys();
        let key = keys.get(&signature.kid)?;
        if SECRETS.contains(&signature.algorithm) {
            // The key is a public one: it signs nothing, and is no shared secret.
            return Some(Err(Error::from(ErrorKind::InvalidAlgorithm)));
        }
        if !ALGORITHMS.contains(&signature.algorithm) {
            return None;
        }
        let mut validation = Validation::new(signature.algorithm);
        validation.leeway = 0;
        match audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.set_required_spec_claims(&["exp", "aud"]);
            }
            None => {
                validation.validate_aud = false;
                validation.set_required_spec_claims(&["exp"]);
            }
        }
        Some(decode::<SignedClaims>(token.expose(), key, &validation).map(|token| token.claims))
    }

    /// Fetches the keys if that was not tried for a while. Those who come meanwhile wait for it.
    async fn fetch_unless_tried(self: Arc<Self>, since: Duration) {
        let mut tried = self.tried.lock().await;
        if tried.is_some_and(|tried| tried.elapsed() < since) {
            return;
        }
        *tried = Some(Instant::now());
        let fetch = async { self.source.fetch().await };
        // Whatever happens in it, the last keys are still good.
        let fetched = match AssertUnwindSafe(fetch).catch_unwind().await {
            Ok(Ok(json)) => parse(&json).map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the cluster's keys cannot be had: the fetch panicked".to_owned()),
        };
        match fetched {
            Ok(keys) => self.know(keys),
            Err(error) => {
                self.metrics.failed();
                if self.set_failure(Some(Arc::from(&*error))).is_none() {
                    tracing::warn!(error, "rotated tokens have to be exchanged at EKS Auth");
                }
            }
        }
    }

    /// Takes in what was fetched.
    fn know(&self, keys: HashMap<String, DecodingKey>) {
        self.metrics.fetched(keys.len());
        if self.set_failure(None).is_some() || self.keys().is_empty() {
            tracing::info!(keys = keys.len(), "the cluster's token keys are known");
        }
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.fetched.send_modify(|times| *times += 1);
    }
}

fn is_about_audience(error: &ErrorKind) -> bool {
    match error {
        ErrorKind::InvalidAudience => true,
        ErrorKind::MissingRequiredClaim(claim) => claim == "aud",
        _ => false,
    }
}

/// Whether a token was not signed by the key that it names: its signature is wrong, is none at all,
/// or is one that this kind of key cannot make.
fn is_about_signature(error: &ErrorKind) -> bool {
    matches!(
        error,
        ErrorKind::InvalidSignature
            | ErrorKind::InvalidAlgorithm
            | ErrorKind::InvalidKeyFormat
            | ErrorKind::InvalidToken
            | ErrorKind::Base64(_)
    )
}

/// The keys in a key set that have an ID and are of a kind that we know.
fn parse(json: &[u8]) -> serde_json::Result<HashMap<String, DecodingKey>> {
    let set: KeySet = serde_json::from_slice(json)?;
    let usable = set.keys.into_iter().filter_map(|jwk| {
        // One by one, so that a key of a kind to come costs no other.
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some((jwk.common.key_id?, key))
    });
    Ok(usable.collect())
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
