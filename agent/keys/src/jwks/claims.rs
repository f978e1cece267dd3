//! What a token says, once its signature is verified, and how it says that it is signed.

use jsonwebtoken::{Algorithm, decode_header, get_current_timestamp};
use podcreds_types::{ServiceAccount, Token};
use serde::Deserialize;

use super::{Issued, TokenOwner};

/// Seconds by which the API server's clock may be ahead of the node's when it dates a token.
const CLOCK_SKEW: u64 = 60;

/// What is read only of a token whose signature is verified. The rest is in its
/// [`Claims`](podcreds_types::Claims).
#[derive(Deserialize)]
pub(super) struct SignedClaims {
    /// Seconds since 1970, with a fraction perhaps.
    nbf: Option<f64>,
}

impl SignedClaims {
    /// Whether the token is good only later.
    pub(super) fn is_early(&self) -> bool {
        let now = get_current_timestamp() + CLOCK_SKEW;
        self.nbf.is_some_and(|nbf| nbf > now as f64)
    }
}

/// Who a token says it was issued to. Its signature must have been verified.
pub(super) fn issued(token: &Token) -> Issued {
    let owner = token.claims().ok().and_then(|claims| {
        Some(TokenOwner {
            pod: claims.pod?,
            account: ServiceAccount {
                namespace: claims.namespace.as_deref()?.to_owned(),
                name: claims.service_account.as_deref()?.to_owned(),
            },
        })
    });
    owner.map_or(Issued::ToNobody, Issued::To)
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
