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
use crate::{
    types::{PodUid, ServiceAccount, Token},
    upstream::FetchKeys,
};

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

/// Whom the cluster has issued a token to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The pod that the token is bound to.
    pub pod: PodUid,
    /// The service account that the pod runs as.
    pub account: ServiceAccount,
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
            fetches: Mutex::default(),
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
    fn verify(&self, token: Token) -> BoxFuture<'static, Verdict> {
        let shared = Arc::clone(&self.0);
        Box::pin(shared.verify(token))
    }
}

impl Shared {
    async fn verify(self: Arc<Self>, token: Token) -> Verdict {
        let Some(algorithm) = Arc::clone(&self).key_for(&token).await else {
            return Verdict::Unknown;
        };
        match self.signed(&token, algorithm, Some(&self.audience)) {
            Some(Ok(claims)) => match claims.kubernetes.pod.uid.parse() {
                Ok(pod) => Verdict::Genuine { pod },
                Err(_) => Verdict::Unknown,
            },
            Some(Err(error)) if matches!(error.kind(), ErrorKind::InvalidSignature) => {
                Verdict::Forged
            }
            // Genuine perhaps, but expired, of another audience, or not a pod's.
            Some(Err(_)) | None => Verdict::Unknown,
        }
    }

    /// Sees that the key which a token names is there, if it can be had. Says how the token is signed.
    async fn key_for(self: Arc<Self>, token: &Token) -> Option<Algorithm> {
        let header = decode_header(token.expose()).ok()?;
        let kid = header.kid?;
        if !ALGORITHMS.contains(&header.alg) {
            return None;
        }
        if self.keys().contains_key(&kid) {
            // Good enough for now, so nobody waits for newer ones.
            tokio::spawn(self.fetch_unless_tried(FETCH_AT_LEAST_EVERY));
        } else {
            self.fetch_unless_tried(FETCH_AT_MOST_EVERY).await;
        }
        Some(header.alg)
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
    async fn the_bearer_of_a_signed_token_is_known_whatever_it_is_for() {
        let (cluster, keys) = Cluster::new();
        let key = cluster.new_key("a");
        let other = cluster.new_key("b");
        let mut claims = claims();
        claims["aud"] = json!(["https://kubernetes.default.svc"]);
        claims["kubernetes.io"]["serviceaccount"] = json!({ "name": "driver" });
        let bearer = Bearer {
            pod: POD.parse().unwrap(),
            account: "shop/driver".parse().unwrap(),
        };
        assert_eq!(keys.bearer(&sign(&key, "a", &claims)).await, Some(bearer));
        assert_eq!(keys.bearer(&sign(&other, "a", &claims)).await, None);
        assert_eq!(keys.bearer(&Token::new("garbage")).await, None);
        claims["exp"] = json!(get_current_timestamp() - 1);
        assert_eq!(keys.bearer(&sign(&key, "a", &claims)).await, None);
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
