//! An issuer of projected service-account tokens, with the API server's header, claims and JWKS.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest,
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode,
    jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse},
};
use serde::{Deserialize, Serialize};

/// The audience of EKS Pod Identity's tokens.
pub const AUDIENCE: &str = "pods.eks.amazonaws.com";

/// The `iss` claim of every [`Issuer`].
pub const ISSUER: &str =
    "https://oidc.eks.eu-central-1.amazonaws.com/id/PODCREDSTESTS0000000000000000000";

/// The node's name in tokens, in EKS' form.
const NODE: &str = "ip-10-0-123-145.eu-central-1.compute.internal";

/// How long the kubelet's tokens for Pod Identity live.
pub const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The bytes that PKCS#8 puts in front of a 2048-bit RSA key in PKCS#1.
const PKCS8_HEADER: usize = 26;

/// Signs tokens with an RSA key of its own. Clones share the key.
#[derive(Clone)]
pub struct Issuer(Arc<Key>);

struct Key {
    id: String,
    signing: EncodingKey,
    jwk: Jwk,
}

impl Issuer {
    /// The issuer of this process' cluster. Its key is made once: that takes a while.
    pub fn cluster() -> Self {
        static CLUSTER: LazyLock<Issuer> = LazyLock::new(Issuer::new);
        CLUSTER.clone()
    }

    /// An issuer with a new key, whose tokens the cluster does not know.
    pub fn new() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
        let pkcs8 = pair.as_der().expect("the RSA key in PKCS#8");
        let signing = EncodingKey::from_rsa_der(&pkcs8.as_ref()[PKCS8_HEADER..]);
        let mut jwk = Jwk::from_encoding_key(&signing, Algorithm::RS256).expect("the key as JWK");
        let id = key_id(&jwk);
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_operations = None::<Vec<KeyOperations>>;
        Self(Arc::new(Key { id, signing, jwk }))
    }

    /// The key's ID, as it stands in the tokens' headers.
    pub fn key_id(&self) -> &str {
        &self.0.id
    }

    /// Signs `claims`.
    pub fn sign(&self, claims: &Claims) -> String {
        let header = Header {
            // The API server's header has `alg` and `kid` and nothing else.
            typ: None,
            kid: Some(self.0.id.clone()),
            ..Header::new(Algorithm::RS256)
        };
        encode(&header, claims, &self.0.signing).expect("a signed token")
    }

    /// The public keys, as `GET /openid/v1/jwks` prints them.
    pub fn jwks(&self) -> String {
        let keys = JwkSet {
            keys: vec![self.0.jwk.clone()],
        };
        serde_json::to_string(&keys).expect("JWKS as JSON")
    }

    /// Checks signature, audience and expiry as EKS Auth does.
    ///
    /// # Errors
    ///
    /// Why the token is no good.
    pub fn verify(&self, token: &str) -> Result<Claims, jsonwebtoken::errors::Error> {
        let mut rules = Validation::new(Algorithm::RS256);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[ISSUER]);
        rules.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        rules.validate_nbf = true;
        rules.leeway = 0;
        let key = DecodingKey::from_jwk(&self.0.jwk)?;
        Ok(decode(token, &key, &rules)?.claims)
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}

/// The API server derives the ID from the public key, so that it is the same on every replica.
fn key_id(jwk: &Jwk) -> String {
    let public = serde_json::to_vec(&jwk.algorithm).expect("a public key as JSON");
    let hash = digest::digest(&digest::SHA256, &public);
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The claims of a projected service-account token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The service that the token is meant for.
    pub aud: Vec<String>,
    /// When it expires, in seconds since the epoch.
    pub exp: u64,
    /// When it was issued.
    pub iat: u64,
    /// Who issued it.
    pub iss: String,
    /// A unique ID, which makes every token differ from the one before.
    pub jti: String,
    /// What it says about the pod.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    /// Since when it is valid.
    pub nbf: u64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
}

/// The `kubernetes.io` claim: the objects that the token is bound to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// The pod's namespace.
    pub namespace: String,
    /// Its node: newer clusters say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    /// The pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    /// Its service account.
    pub serviceaccount: BoundObject,
    /// When the token is due to be replaced; only the API server's own short tokens have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<u64>,
}

/// A Kubernetes object by name and UID.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoundObject {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl BoundObject {
    /// An object of this name with a new UID.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: new_uid(),
        }
    }
}

impl Claims {
    /// The claims of a token that the kubelet has just got for this pod.
    pub fn new(namespace: &str, service_account: &str, pod: BoundObject) -> Self {
        let now = seconds(SystemTime::now());
        Self {
            aud: vec![AUDIENCE.to_owned()],
            exp: now + LIFETIME.as_secs(),
            iat: now,
            iss: ISSUER.to_owned(),
            jti: new_uid(),
            kubernetes: KubernetesClaims {
                namespace: namespace.to_owned(),
                node: Some(BoundObject::new(NODE)),
                pod: Some(pod),
                serviceaccount: BoundObject::new(service_account),
                warnafter: None,
            },
            nbf: now,
            sub: format!("system:serviceaccount:{namespace}:{service_account}"),
        }
    }

    /// Meant for somebody else.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.aud = vec![audience.to_owned()];
        self
    }

    /// Valid until `lifetime` from now.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.exp = seconds(SystemTime::now() + lifetime);
        self
    }

    /// Expired a minute ago, after a day.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.exp = seconds(SystemTime::now()) - 60;
        self.iat = self.exp - LIFETIME.as_secs();
        self.nbf = self.iat;
        self
    }

    /// The pod's UID, or nothing for a token that is bound to no pod.
    pub fn pod_uid(&self) -> &str {
        self.kubernetes.pod.as_ref().map_or("", |pod| &pod.uid)
    }
}

/// A new random UID, in Kubernetes' form.
pub fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
