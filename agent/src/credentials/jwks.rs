//! The cluster's keys, and which tokens they have signed.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use futures_util::future::BoxFuture;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind, jwk::JwkSet,
};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Instant};

use super::{Verdict, VerifyToken};
use crate::{types::Token, upstream::FetchKeys};

/// What API servers sign with, and nothing that a public key could be abused for.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384];
/// A made-up key ID must not make us fetch again and again.
const FETCH_AT_MOST_EVERY: Duration = Duration::from_secs(60);
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
    fetches: Mutex<Fetches>,
}

/// The last tries to fetch the keys.
#[derive(Default)]
struct Fetches {
    tried: Option<Instant>,
    failing: bool,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
struct Kubernetes {
    pod: Pod,
}

#[derive(Deserialize)]
struct Pod {
    uid: String,
}

impl ClusterKeys {
    /// Trusts the keys from `source`, for tokens whose audience is `audience`.
    pub fn new(source: Arc<dyn FetchKeys>, audience: impl Into<String>) -> Self {
        Self(Arc::new(Shared {
            source,
            audience: audience.into(),
            keys: RwLock::default(),
            fetches: Mutex::default(),
        }))
    }
}

impl VerifyToken for ClusterKeys {
    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        let shared = Arc::clone(&self.0);
        Box::pin(shared.verify(token))
    }
}

impl Shared {
    async fn verify(self: Arc<Self>, token: Token) -> Verdict {
        let Ok(header) = decode_header(token.expose()) else {
            return Verdict::Unknown;
        };
        let Some(kid) = header.kid.filter(|_| ALGORITHMS.contains(&header.alg)) else {
            return Verdict::Unknown;
        };
        if self.keys().contains_key(&kid) {
            // Good enough for now, so nobody waits for newer ones.
            tokio::spawn(Arc::clone(&self).fetch_unless_tried(FETCH_AT_LEAST_EVERY));
        } else {
            Arc::clone(&self)
                .fetch_unless_tried(FETCH_AT_MOST_EVERY)
                .await;
        }
        match self.keys().get(&kid) {
            Some(key) => self.check(&token, key, header.alg),
            None => Verdict::Unknown,
        }
    }

    fn keys(&self) -> RwLockReadGuard<'_, HashMap<String, DecodingKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a key says to a token that claims to be signed with it.
    fn check(&self, token: &Token, key: &DecodingKey, algorithm: Algorithm) -> Verdict {
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "aud"]);
        validation.leeway = 0;
        match decode::<Claims>(token.expose(), key, &validation) {
            Ok(token) => match token.claims.kubernetes.pod.uid.parse() {
                Ok(pod) => Verdict::Genuine { pod },
                Err(_) => Verdict::Unknown,
            },
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => Verdict::Forged,
            // Genuine perhaps, but expired, of another audience, or not a pod's.
            Err(_) => Verdict::Unknown,
        }
    }

    /// Fetches the keys if that was not tried for a while. Those who come meanwhile wait for it.
    async fn fetch_unless_tried(self: Arc<Self>, since: Duration) {
        let mut fetches = self.fetches.lock().await;
        if fetches.tried.is_some_and(|tried| tried.elapsed() < since) {
            return;
        }
        fetches.tried = Some(Instant::now());
        let fetched = match self.source.fetch().await {
            Ok(json) => parse(&json).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match fetched {
            Ok(keys) => {
                if fetches.failing || self.keys().is_empty() {
                    tracing::info!(keys = keys.len(), "the cluster's token keys are known");
                }
                fetches.failing = false;
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
            }
            Err(error) => {
                if !fetches.failing {
                    tracing::warn!(error, "rotated tokens have to be exchanged at EKS Auth");
                }
                fetches.failing = true;
            }
        }
    }
}

/// The keys in a key set that have an ID and are of a kind that we know.
fn parse(json: &[u8]) -> serde_json::Result<HashMap<String, DecodingKey>> {
    let set: JwkSet = serde_json::from_slice(json)?;
    let usable = set.keys.into_iter().filter_map(|jwk| {
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some((jwk.common.key_id?, key))
    });
    Ok(usable.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
    };
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
    use serde_json::{Value, json};
    use tokio::{task::yield_now, time::advance};

    use super::*;
    use crate::upstream::KeysError;

    const POD: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

    /// A cluster that signs tokens and publishes its keys, when it is up.
    #[derive(Default)]
    struct Cluster {
        published: std::sync::Mutex<Vec<Jwk>>,
        down: std::sync::atomic::AtomicBool,
        fetches: AtomicUsize,
    }

    struct Source(Arc<Cluster>);

    impl FetchKeys for Source {
        fn fetch(&self) -> BoxFuture<'static, Result<Vec<u8>, KeysError>> {
            self.0.fetches.fetch_add(1, Ordering::Relaxed);
            let keys = JwkSet {
                keys: self.0.published.lock().unwrap().clone(),
            };
            let answer = match self.0.down.load(Ordering::Relaxed) {
                true => Err(KeysError("down".to_owned())),
                false => Ok(serde_json::to_vec(&keys).unwrap()),
            };
            Box::pin(async move { answer })
        }
    }

    impl Cluster {
        fn new() -> (Arc<Self>, ClusterKeys) {
            let cluster = Arc::<Self>::default();
            let source = Arc::new(Source(Arc::clone(&cluster)));
            (cluster, ClusterKeys::new(source, "pods.eks.amazonaws.com"))
        }

        fn new_key(&self, kid: &str) -> EncodingKey {
            let random = SystemRandom::new();
            let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
            let key = EncodingKey::from_ec_der(pair.unwrap().as_ref());
            let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
            jwk.common.key_id = Some(kid.to_owned());
            self.published.lock().unwrap().push(jwk);
            key
        }

        fn fetches(&self) -> usize {
            self.fetches.load(Ordering::Relaxed)
        }
    }

    fn claims() -> Value {
        json!({
            "aud": ["pods.eks.amazonaws.com"],
            "exp": get_current_timestamp() + 3600,
            "kubernetes.io": { "namespace": "shop", "pod": { "name": "a", "uid": POD } },
        })
    }

    fn sign(key: &EncodingKey, kid: &str, claims: &Value) -> Token {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid.to_owned());
        Token::new(encode(&header, claims, key).unwrap())
    }

    fn genuine() -> Verdict {
        Verdict::Genuine {
            pod: POD.parse().unwrap(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_cluster_has_signed_is_genuine_and_what_it_has_not_is_forged() {
        let (cluster, keys) = Cluster::new();
        let key = cluster.new_key("a");
        let other = cluster.new_key("b");
        let token = sign(&key, "a", &claims());
        assert_eq!(keys.verify(token).await, genuine());
        let forged = sign(&other, "a", &claims());
        assert_eq!(keys.verify(forged).await, Verdict::Forged);
        assert_eq!(cluster.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_for_us_or_no_pods_is_not_vouched_for() {
        let (cluster, keys) = Cluster::new();
        let key = cluster.new_key("a");
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            sign(&key, "a", &claims)
        };
        for token in [
            with("aud", json!(["sts.amazonaws.com"])),
            with("aud", Value::Null),
            with("exp", json!(get_current_timestamp() - 1)),
            with("exp", Value::Null),
            with("kubernetes.io", json!({ "namespace": "shop" })),
            with("kubernetes.io", json!({ "pod": { "uid": "none" } })),
            Token::new("garbage"),
            Token::new(""),
        ] {
            let verdict = keys.verify(token.clone()).await;
            assert_eq!(verdict, Verdict::Unknown, "{}", token.expose());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_public_key_is_no_shared_secret() {
        let (cluster, keys) = Cluster::new();
        cluster.new_key("a");
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("a".to_owned());
        let published = serde_json::to_vec(&*cluster.published.lock().unwrap()).unwrap();
        let key = EncodingKey::from_secret(&published);
        let token = Token::new(encode(&header, &claims(), &key).unwrap());
        assert_eq!(keys.verify(token).await, Verdict::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_is_looked_for_but_not_by_every_token() {
        let (cluster, keys) = Cluster::new();
        let old = cluster.new_key("old");
        assert_eq!(keys.verify(sign(&old, "old", &claims())).await, genuine());
        let new = cluster.new_key("new");
        for _ in 0..100 {
            let verdict = keys.verify(sign(&new, "new", &claims())).await;
            assert_eq!(verdict, Verdict::Unknown, "just fetched");
        }
        assert_eq!(cluster.fetches(), 1);
        advance(FETCH_AT_MOST_EVERY).await;
        assert_eq!(keys.verify(sign(&new, "new", &claims())).await, genuine());
        assert_eq!(cluster.fetches(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn known_keys_are_good_while_the_cluster_is_down_and_withdrawn_ones_are_not() {
        let (cluster, keys) = Cluster::new();
        let key = cluster.new_key("a");
        assert_eq!(keys.verify(sign(&key, "a", &claims())).await, genuine());
        cluster.down.store(true, Ordering::Relaxed);
        cluster.published.lock().unwrap().clear();
        advance(FETCH_AT_LEAST_EVERY).await;
        assert_eq!(keys.verify(sign(&key, "a", &claims())).await, genuine());
        yield_now().await;
        assert_eq!(cluster.fetches(), 2);
        cluster.down.store(false, Ordering::Relaxed);
        advance(FETCH_AT_LEAST_EVERY).await;
        assert_eq!(keys.verify(sign(&key, "a", &claims())).await, genuine());
        yield_now().await;
        let verdict = keys.verify(sign(&key, "a", &claims())).await;
        assert_eq!(verdict, Verdict::Unknown);
    }
}
