//! What a token says of itself. Nobody has verified it yet.

use std::time::{Duration, SystemTime};

use jsonwebtoken::dangerous::insecure_decode;
use serde::Deserialize;

use crate::{
    server::Refusal,
    types::{PodUid, ServiceAccount, Token},
};

/// The claims of a projected service-account token that podcreds reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// The pod that the token is bound to; `None` for one that is bound to no pod.
    pub(super) pod: Option<PodUid>,
    /// The service account, when the token names one.
    pub(super) service_account: Option<ServiceAccount>,
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
    namespace: Option<String>,
    pod: Option<Named>,
    serviceaccount: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
    uid: Option<String>,
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
        let Kubernetes {
            namespace,
            pod,
            serviceaccount,
        } = raw.kubernetes;
        let pod = pod
            .and_then(|pod| pod.uid)
            .map(|uid| uid.parse())
            .transpose()
            .map_err(|_| Refusal::Malformed("its pod's UID is no UID"))?;
        let service_account = namespace
            .zip(serviceaccount.and_then(|account| account.name))
            .map(|(namespace, name)| ServiceAccount { namespace, name });
        Ok(Self {
            pod,
            service_account,
            expires_at,
        })
    }
}
