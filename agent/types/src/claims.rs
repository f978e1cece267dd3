//! What a token says of itself. Nobody has verified it yet.

use std::time::{Duration, SystemTime};

use jsonwebtoken::dangerous::insecure_decode;
use serde::Deserialize;

use super::PodUid;

/// Longer than any token that a cluster issues: its names alone are limited to less than half of that.
const LONGEST: usize = 8 * 1024;

/// The claims of a projected service-account token that podcreds reads.
#[derive(Debug, PartialEq, Eq)]
pub struct Claims {
    /// The pod that the token is bound to; `None` for one that is bound to no pod.
    pub pod: Option<PodUid>,
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
    pod: Option<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    uid: String,
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
        let pod = raw.kubernetes.pod.map(|pod| pod.uid.parse());
        let pod = pod.transpose().map_err(|_| Unreadable::PodUid)?;
        Ok(Self { pod, expires_at })
    }
}
