//! What a token says, once its signature is verified, and how it says that it is signed.

use jsonwebtoken::{Algorithm, decode_header, get_current_timestamp};
use podcreds_types::{ServiceAccount, Token};
use serde::Deserialize;

use super::{Issued, TokenOwner};

/// Seconds by which the API server's clock may be ahead of the node's when it dates a token.
const CLOCK_SKEW: u64 = 60;

#[derive(Deserialize)]
pub(super) struct SignedClaims {
    /// Seconds since 1970, with a fraction perhaps.
    nbf: Option<f64>,
    #[serde(rename = "kubernetes.io")]
    pub(super) kubernetes: Kubernetes,
}

impl SignedClaims {
    /// Whether the token is good only later.
    pub(super) fn is_early(&self) -> bool {
        let now = get_current_timestamp() + CLOCK_SKEW;
        self.nbf.is_some_and(|nbf| nbf > now as f64)
    }

    pub(super) fn bearer(self) -> Issued {
        let Kubernetes {
            pod,
            namespace,
            serviceaccount,
        } = self.kubernetes;
        match (pod.uid.parse(), namespace, serviceaccount) {
            (Ok(pod), Some(namespace), Some(Account { name })) => Issued::To(TokenOwner {
                pod,
                account: ServiceAccount { namespace, name },
            }),
            _ => Issued::ToNobody,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Kubernetes {
    pub(super) pod: Pod,
    pub(super) namespace: Option<String>,
    serviceaccount: Option<Account>,
}

#[derive(Deserialize)]
pub(super) struct Pod {
    pub(super) uid: String,
}

#[derive(Deserialize)]
struct Account {
    name: String,
}

/// How a token says that it is signed, and with which key.
pub(super) struct Signature {
    pub(super) algorithm: Algorithm,
    pub(super) kid: String,
}

impl Signature {
    pub(super) fn of(token: &Token) -> Option<Self> {
        let header = decode_header(token.expose()).ok()?;
        Some(Self {
            algorithm: header.alg,
            kid: header.kid?,
        })
    }
}
