//! A cluster that signs, publishes its keys, and is down now and then.

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use prometheus::{Registry, TextEncoder};
use serde_json::{Value, json};
use tokio::{task::yield_now, time::advance};

use super::*;
use crate::KeysError;

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
        let keys = jsonwebtoken::jwk::JwkSet {
            keys: self.0.published.lock().unwrap().clone(),
        };
        let answer = match self.0.down.load(Ordering::Relaxed) {
            true => Err(KeysError::new("down")),
            false => Ok(serde_json::to_vec(&keys).unwrap()),
        };
        Box::pin(async move { answer })
    }
}

impl Cluster {
    fn new() -> (Arc<Self>, ClusterKeys) {
        let cluster = Arc::<Self>::default();
        let source = Arc::new(Source(Arc::clone(&cluster)));
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let keys = ClusterKeys::new(source, "pods.eks.amazonaws.com", metrics);
        (cluster, keys)
    }

    /// The same, and what is counted.
    fn counted() -> (Arc<Self>, ClusterKeys, Registry) {
        let cluster = Arc::<Self>::default();
        let source = Arc::new(Source(Arc::clone(&cluster)));
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        (cluster, ClusterKeys::new(source, "x", metrics), registry)
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
        namespace: "shop".to_owned(),
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
async fn a_token_for_another_audience_or_of_no_pod_is_not_genuine() {
    let (cluster, keys) = Cluster::new();
    let key = cluster.new_key("a");
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        sign(&key, "a", &claims)
    };
    for audience in [json!(["sts.amazonaws.com"]), Value::Null] {
        let token = with("aud", audience);
        assert_eq!(keys.verify(token).await, Verdict::OtherAudience);
    }
    for token in [
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
    let bearer = Issued::To(TokenOwner {
        pod: POD.parse().unwrap(),
        account: "shop/driver".parse().unwrap(),
    });
    assert_eq!(keys.issued_to(&sign(&key, "a", &claims)).await, bearer);
    let foreign = sign(&other, "a", &claims);
    claims["exp"] = json!(get_current_timestamp() - 1);
    let expired = sign(&key, "a", &claims);
    for token in [foreign, expired, Token::new("garbage")] {
        assert_eq!(keys.issued_to(&token).await, Issued::ToNobody);
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_key_cannot_be_had_the_bearer_is_unknown_and_not_nobody() {
    let (cluster, keys) = Cluster::new();
    let key = cluster.new_key("a");
    let mut claims = claims();
    claims["kubernetes.io"]["serviceaccount"] = json!({ "name": "driver" });
    let token = sign(&key, "a", &claims);
    cluster.down.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let Issued::Unknown(reason) = keys.issued_to(&token).await else {
            panic!("decided without keys");
        };
        assert!(reason.ends_with("cannot be had: down"), "{reason}");
        advance(TRY_AGAIN_AFTER).await;
    }
    cluster.down.store(false, Ordering::Relaxed);
    let mut fetches = keys.fetches();
    assert!(matches!(keys.issued_to(&token).await, Issued::Unknown(_)));
    let told = tokio::time::timeout(TRY_AGAIN_AFTER, fetches.changed()).await;
    assert!(told.is_ok(), "nobody is told that keys have come");
    assert!(matches!(keys.issued_to(&token).await, Issued::To(_)));
    // One that has come since is looked for a little later.
    let new = sign(&cluster.new_key("b"), "b", &claims);
    assert!(matches!(keys.issued_to(&new).await, Issued::Unknown(_)));
    advance(FETCH_FOR_MOUNTED_EVERY).await;
    assert!(matches!(keys.issued_to(&new).await, Issued::To(_)));
    advance(FETCH_FOR_MOUNTED_EVERY).await;
    let forged = sign(&key, "made-up", &claims);
    assert_eq!(keys.issued_to(&forged).await, Issued::ToNobody);
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_and_told_until_keys_come() {
    let (cluster, keys, registry) = Cluster::counted();
    let token = sign(&cluster.new_key("a"), "a", &claims());
    let metric = |name: &str| {
        let text = TextEncoder::new().encode_to_string(&registry.gather());
        let text = text.unwrap();
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
        values.next().unwrap().trim().parse::<f64>().unwrap()
    };
    assert_eq!(keys.failure(), None);
    cluster.down.store(true, Ordering::Relaxed);
    for failures in [1.0, 2.0] {
        keys.verify(token.clone()).await;
        // Nobody waits for the second one.
        while metric("podcreds_keys_consecutive_failures ") < failures {
            yield_now().await;
        }
        advance(TRY_AGAIN_AFTER).await;
    }
    assert!(keys.failure().unwrap().ends_with("down"));
    cluster.down.store(false, Ordering::Relaxed);
    let mut fetches = keys.fetches();
    keys.verify(token).await;
    fetches.changed().await.unwrap();
    assert_eq!(keys.failure(), None);
    assert_eq!(metric("podcreds_keys_consecutive_failures "), 0.0);
    assert_eq!(metric("podcreds_keys "), 1.0);
    assert_eq!(
        metric("podcreds_key_fetches_total{outcome=\"failed\"}"),
        2.0
    );
    assert_eq!(metric("podcreds_key_fetches_total{outcome=\"ok\"}"), 1.0);
    assert!(metric("podcreds_keys_last_fetch_timestamp_seconds ") > 1e9);
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
    assert_eq!(keys.verify(token).await, Verdict::Forged);
    header.kid = Some("another".to_owned());
    let token = Token::new(encode(&header, &claims(), &key).unwrap());
    assert_eq!(keys.verify(token).await, Verdict::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_signature_that_the_named_key_cannot_have_made_is_forged() {
    let (cluster, keys) = Cluster::new();
    let key = cluster.new_key("a");
    let genuine = sign(&key, "a", &claims());
    let (signed, signature) = genuine.expose().rsplit_once('.').unwrap();
    let (_, payload) = signed.split_once('.').unwrap();
    // {"alg":"RS256","kid":"a"} and the same with ES384, where the key is one for ES256.
    let rsa = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ";
    let other_curve = "eyJhbGciOiJFUzM4NCIsImtpZCI6ImEifQ";
    for forged in [
        format!("{signed}."),
        format!("{signed}.!!!"),
        format!("{signed}.{}", &signature[1..]),
        format!("{signed}.{signature}=="),
        format!("{signed}.{signature}AAAA"),
        format!("{rsa}.{payload}.{signature}"),
        format!("{other_curve}.{payload}.{signature}"),
    ] {
        let verdict = keys.verify(Token::new(forged.clone())).await;
        assert_eq!(verdict, Verdict::Forged, "{forged}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_good_only_later_is_not_genuine() {
    let (cluster, keys) = Cluster::new();
    let key = cluster.new_key("a");
    let from = |nbf: Value| {
        let mut claims = claims();
        claims["nbf"] = nbf;
        claims["kubernetes.io"]["serviceaccount"] = json!({ "name": "driver" });
        sign(&key, "a", &claims)
    };
    let now = get_current_timestamp();
    for later in [json!(now + 3000), json!(now as f64 + 3000.5)] {
        assert_eq!(keys.verify(from(later.clone())).await, Verdict::Unknown);
        assert_eq!(keys.issued_to(&from(later)).await, Issued::ToNobody);
    }
    // Clocks differ a little.
    for good in [json!(now - 1), json!(now + 30), Value::Null] {
        assert_eq!(keys.verify(from(good.clone())).await, genuine());
        assert!(matches!(keys.issued_to(&from(good)).await, Issued::To(_)));
    }
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

#[tokio::test(start_paused = true)]
async fn keys_that_could_not_be_had_are_soon_asked_for_again_and_nobody_waits() {
    let (cluster, keys) = Cluster::new();
    let key = cluster.new_key("a");
    let token = || sign(&key, "a", &claims());
    cluster.down.store(true, Ordering::Relaxed);
    assert_eq!(keys.verify(token()).await, Verdict::Unknown);
    cluster.down.store(false, Ordering::Relaxed);
    for _ in 0..100 {
        assert_eq!(keys.verify(token()).await, Verdict::Unknown);
        yield_now().await;
    }
    assert_eq!(cluster.fetches(), 1);
    advance(TRY_AGAIN_AFTER).await;
    assert_eq!(keys.verify(token()).await, Verdict::Unknown);
    yield_now().await;
    assert_eq!(keys.verify(token()).await, genuine());
    assert_eq!(cluster.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_of_unknown_kinds_do_not_hide_the_others() {
    let (cluster, _) = Cluster::new();
    cluster.new_key("a");
    let known = serde_json::to_value(&cluster.published.lock().unwrap()[0]).unwrap();
    for other in [
        json!({ "kty": "AKP", "alg": "ML-DSA-65", "kid": "b", "pub": "AA" }),
        json!({ "kty": "EC", "crv": "secp256k1", "kid": "b", "x": "AA", "y": "AA" }),
        json!({ "kty": "RSA", "use": "weird", "kid": "b", "n": "AA", "e": "AQAB" }),
        json!({ "kid": "b" }),
        json!("nonsense"),
    ] {
        let set = json!({ "keys": [other.clone(), known.clone()] });
        let keys = parse(&serde_json::to_vec(&set).unwrap()).unwrap();
        assert!(keys.contains_key("a"), "{other}");
    }
}
