//! What a token says of itself. Nobody has verified it yet.

use std::time::{Duration, SystemTime};

use jsonwebtoken::dangerous::insecure_decode;
use serde::Deserialize;

use crate::{
    server::Refusal,
    types::{PodUid, Token},
};

/// The claims of a projected service-account token that podcreds reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// The pod that the token is bound to; `None` for one that is bound to no pod.
    pub(super) pod: Option<PodUid>,
    pub(super) expires_at: SystemTime,
}

#[derive(Deserialize)]
struct Raw {
    exp: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

#[derive(Deserialize)]
struct Kubernetes {
    pod: Option<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    uid: String,
}

impl Claims {
    /// Reads a token without verifying its signature.
    pub(super) fn read(token: &Token) -> Result<Self, Refusal> {
        let raw: Raw = insecure_decode(token.expose())
            .map_err(|_| Refusal::Malformed("it is no Kubernetes service-account token"))?
            .claims;
        let expires_at = SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(raw.exp))
            .ok_or(Refusal::Malformed("its expiry is out of range"))?;
        let pod = raw
            .kubernetes
            .pod
            .map(|pod| pod.uid.parse())
            .transpose()
            .map_err(|_| Refusal::Malformed("its pod's UID is no UID"))?;
        Ok(Self { pod, expires_at })
    }
}
