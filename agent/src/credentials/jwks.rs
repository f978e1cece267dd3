//! The cluster's keys, and which tokens they have signed.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind, jwk::Jwk,
};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use super::{Verdict, VerifyToken};
use crate::{
    types::{PodUid, ServiceAccount, Token},
    upstream::FetchKeys,
};

/// What API servers sign with, and nothing that a public key could be abused for.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384];
/// A made-up key ID must not make us fetch again and again.
const FETCH_AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// How soon after a fetch that failed the next one is tried. Nobody waits for that one.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// So long a key that the cluster has withdrawn is believed.
const FETCH_AT_LEAST_EVERY: Duration = Duration::from_secs(60 * 60);

/// Vouches for tokens that the cluster has signed for pods.
///
/// Keys are fetched when the first token comes, when one names a key that is not known, and now
/// and then. While they cannot be had, the last ones are good.
#[derive(Clone)]
pub struct ClusterKeys(Arc<Shared>);

struct Shared {
    source: Arc<dyn FetchKeys>,
    audience: String,
    keys: RwLock<HashMap<String, DecodingKey>>,
    /// When they were last tried to be fetched.
    tried: Mutex<Option<Instant>>,
    /// Whether that failed.
    failing: AtomicBool,
}

/// Whom the cluster has issued a token to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The pod that the token is bound to.
    pub pod: PodUid,
    /// The service account that the pod runs as.
    pub account: ServiceAccount,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
struct Kubernetes {
    pod: Pod,
    namespace: Option<String>,
    serviceaccount: Option<Account>,
}

#[derive(Deserialize)]
struct Pod {
    uid: String,
}

#[derive(Deserialize)]
struct Account {
    name: String,
}

impl ClusterKeys {
    /// Trusts the keys from `source`, for tokens whose audience is `audience`.
    pub fn new(source: Arc<dyn FetchKeys>, audience: impl Into<String>) -> Self {
        Self(Arc::new(Shared {
            source,
            audience: audience.into(),
            keys: RwLock::default(),
            tried: Mutex::default(),
            failing: AtomicBool::new(false),
        }))
    }

    /// Whom the cluster has issued this token to, whatever it is good for. `None` for one that it has
    /// not signed, that has expired, or that is not bound to a pod; and while there are no keys.
    pub async fn bearer(&self, token: &Token) -> Option<Bearer> {
        let algorithm = Arc::clone(&self.0).key_for(token).await?;
        let claims = self.0.signed(token, algorithm, None)?.ok()?;
        let Kubernetes {
            pod,
            namespace,
            serviceaccount,
        } = claims.kubernetes;
        let (namespace, account) = namespace.zip(serviceaccount)?;
        Some(Bearer {
            pod: pod.uid.parse().ok()?,
            account: ServiceAccount {
                namespace,
                name: account.name,
            },
        })
    }
}

impl VerifyToken for ClusterKeys {
    fn verify_at_hand(&self, token: &Token) -> Verdict {
        let Some((algorithm, kid)) = signature(token) else {
            return Verdict::Unknown;
        };
        self.0.fetch_meanwhile(self.0.fetch_again_after(&kid));
        self.0.judge(token, algorithm)
    }

    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        let shared = Arc::clone(&self.0);
        Box::pin(shared.verify(token))
    }
}

impl Shared {
    async fn verify(self: Arc<Self>, token: Token) -> Verdict {
        match Arc::clone(&self).key_for(&token).await {
            Some(algorithm) => self.judge(&token, algorithm),
            None => Verdict::Unknown,
        }
    }

    /// What can be said of a token with the keys at hand.
    fn judge(&self, token: &Token, algorithm: Algorithm) -> Verdict {
        match self.signed(token, algorithm, Some(&self.audience)) {
            Some(Ok(claims)) => match claims.kubernetes.pod.uid.parse() {
                Ok(pod) => Verdict::Genuine {
                    pod,
                    namespace: claims.kubernetes.namespace.unwrap_or_default(),
                },
                Err(_) => Verdict::Unknown,
            },
            Some(Err(error)) if matches!(error.kind(), ErrorKind::InvalidSignature) => {
                Verdict::Forged
            }
            Some(Err(error)) if is_about_audience(error.kind()) => Verdict::OtherAudience,
            // Genuine perhaps, but expired, or not a pod's.
            Some(Err(_)) | None => Verdict::Unknown,
        }
    }

    /// Sees that the key which a token names is there, if it can be had. Says how the token is signed.
    async fn key_for(self: Arc<Self>, token: &Token) -> Option<Algorithm> {
        let (algorithm, kid) = signature(token)?;
        let since = self.fetch_again_after(&kid);
        if since == FETCH_AT_MOST_EVERY {
            // A task of its own: whoever waits may be gone before the answer comes.
            let _ = tokio::spawn(self.fetch_unless_tried(since)).await;
        } else {
            self.fetch_meanwhile(since);
        }
        Some(algorithm)
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
    fn fetch_again_after(&self, kid: &str) -> Duration {
        if self.keys().contains_key(kid) {
            // Good enough for now, so nobody waits for newer ones.
            FETCH_AT_LEAST_EVERY
        } else if self.failing.load(Relaxed) {
            // Somebody has waited for the last try, and in vain.
            TRY_AGAIN_AFTER
        } else {
            FETCH_AT_MOST_EVERY
        }
    }

    fn keys(&self) -> RwLockReadGuard<'_, HashMap<String, DecodingKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a token says, if it was signed with the key that it names. `None` without that key.
    fn signed(
        &self,
        token: &Token,
        algorithm: Algorithm,
        audience: Option<&str>,
    ) -> Option<jsonwebtoken::errors::Result<Claims>> {
        let kid = decode_header(token.expose()).ok()?.kid?;
        let keys = self.keys();
        let key = keys.get(&kid)?;
        let mut validation = Validation::new(algorithm);
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
        Some(decode::<Claims>(token.expose(), key, &validation).map(|token| token.claims))
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
            Ok(keys) => {
                if self.failing.swap(false, Relaxed) || self.keys().is_empty() {
                    tracing::info!(keys = keys.len(), "the cluster's token keys are known");
                }
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
            }
            Err(error) => {
                if !self.failing.swap(true, Relaxed) {
                    tracing::warn!(error, "rotated tokens have to be exchanged at EKS Auth");
                }
            }
        }
    }
}

fn is_about_audience(error: &ErrorKind) -> bool {
    match error {
        ErrorKind::InvalidAudience => true,
        ErrorKind::MissingRequiredClaim(claim) => claim == "aud",
        _ => false,
    }
}

/// How a token says that it is signed, and with which key, if it is one of our ways.
fn signature(token: &Token) -> Option<(Algorithm, String)> {
    let header = decode_header(token.expose()).ok()?;
    let kid = header.kid?;
    ALGORITHMS
        .contains(&header.alg)
        .then_some((header.alg, kid))
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
mod tests;
