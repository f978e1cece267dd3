//! What a token says of itself. Nobody has verified it yet.

use std::time::{Duration, SystemTime};

use jsonwebtoken::dangerous::insecure_decode;
use serde::Deserialize;

use super::PodUid;

/// Longer than any token that a cluster issues: its names alone are limited to less than half of
/// that.
const LONGEST: usize = 8 * 1024;

/// The claims of a projected service-account token that podcreds reads.
///
/// Kubernetes writes all of them but the pod. That one of the others is not there decides about
/// nothing here, so it is no error.
#[derive(Debug, PartialEq, Eq)]
pub struct Claims {
    /// The pod that the token is bound to; `None` for one that is bound to no pod.
    pub pod: Option<PodUid>,
    /// That pod's name.
    pub pod_name: Option<Box<str>>,
    /// The namespace of the service account, and of the pod.
    pub namespace: Option<Box<str>>,
    /// The service account's name.
    pub service_account: Option<Box<str>>,
    /// When the token expires.
    pub expires_at: SystemTime,
}

/// Why a text is no service-account token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It has other characters than those of ASCII.
    NotAscii,
    /// It is over 8 KiB long.
    TooLong,
    /// It is no JSON web token, or one without the claims that Kubernetes makes.
    NoToken,
    /// It expires in so many seconds that there is no such date.
    Expiry,
    /// Its pod's UID is none.
    PodUid,
}

#[derive(Deserialize)]
struct Raw {
    exp: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: Option<Box<str>>,
    pod: Option<Pod>,
    serviceaccount: Option<Named>,
}

#[derive(Deserialize)]
struct Pod {
    name: Option<Box<str>>,
    uid: String,
}

#[derive(Deserialize)]
struct Named {
    name: Option<Box<str>>,
}

impl Claims {
    /// Looks whether a text could be a token at all, at hardly any cost.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn could_be_in(text: &[u8]) -> Result<&str, Unreadable> {
        if text.len() > LONGEST {
            return Err(Unreadable::TooLong);
        }
        // Text that is ASCII is UTF-8.
        let ascii = text.is_ascii().then(|| str::from_utf8(text).ok()).flatten();
        let text = ascii.ok_or(Unreadable::NotAscii)?;
        match text.bytes().filter(|byte| *byte == b'.').count() {
            2 => Ok(text),
            _ => Err(Unreadable::NoToken),
        }
    }

    /// Reads a token without verifying its signature.
    pub(super) fn read(token: &str) -> Result<Self, Unreadable> {
        let token = Self::could_be_in(token.as_bytes())?;
        let raw: Raw = insecure_decode(token)
            .map_err(|_| Unreadable::NoToken)?
            .claims;
        let expires_at = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(raw.exp))
            .ok_or(Unreadable::Expiry)?;
        let Kubernetes {
            namespace,
            pod,
            serviceaccount,
        } = raw.kubernetes;
        let (uid, pod_name) = pod.map(|pod| (pod.uid, pod.name)).unzip();
        let pod = uid.map(|uid| uid.parse()).transpose();
        Ok(Self {
            pod: pod.map_err(|_| Unreadable::PodUid)?,
            pod_name: pod_name.flatten(),
            namespace,
            service_account: serviceaccount.and_then(|account| account.name),
            expires_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const POD: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

    fn read(claims: &Value) -> Result<Claims, Unreadable> {
        let key = EncodingKey::from_secret(b"nobody verifies this here");
        Claims::read(&encode(&Header::default(), claims, &key).unwrap())
    }

    #[test]
    fn the_claims_that_kubernetes_writes_are_read() {
        let claims = read(&json!({
            "exp": 7,
            "kubernetes.io": {
                "namespace": "shop",
                "pod": {"name": "web-1", "uid": POD},
                "serviceaccount": {"name": "reader", "uid": POD},
            },
        }));
        let claims = claims.unwrap();
        assert_eq!(claims.pod, Some(POD.parse().unwrap()));
        assert_eq!(claims.pod_name.as_deref(), Some("web-1"));
        assert_eq!(claims.namespace.as_deref(), Some("shop"));
        assert_eq!(claims.service_account.as_deref(), Some("reader"));
        assert_eq!(claims.expires_at, UNIX_EPOCH + Duration::from_secs(7));
    }

    #[test]
    fn a_token_without_names_can_be_read_and_one_without_expiry_cannot() {
        let claims = read(&json!({"exp": 7, "kubernetes.io": {}})).unwrap();
        assert_eq!((claims.pod, claims.namespace), (None, None));
        let eternal = read(&json!({"kubernetes.io": {"pod": {"uid": POD}}}));
        assert_eq!(eternal, Err(Unreadable::NoToken));
    }
}
