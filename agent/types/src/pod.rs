//! Who a pod is to Kubernetes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A pod's `metadata.uid`.
///
/// Kubelet writes it in three ways: with dashes in tokens, with underscores in systemd's slices,
/// and without either for static pods. All three are the same 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u128", into = "u128")]
pub struct PodUid(
    /// The first digits first. A number of 128 bits would want to lie at multiples of 16 bytes,
    /// which leaves gaps in the maps of pods.
    [u8; 16],
);

impl From<u128> for PodUid {
    fn from(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }
}

impl From<PodUid> for u128 {
    fn from(uid: PodUid) -> Self {
        Self::from_be_bytes(uid.0)
    }
}

/// A string that is not 32 hexadecimal digits, however they are grouped.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a pod UID: expected 32 hexadecimal digits, in groups of 8-4-4-4-12 or in one")]
pub struct PodUidError;

impl FromStr for PodUid {
    type Err = PodUidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SEPARATORS: [usize; 4] = [8, 13, 18, 23];
        let grouped = match text.len() {
            32 => false,
            36 => true,
            _ => return Err(PodUidError),
        };
        let mut bits = 0u128;
        for (at, byte) in text.bytes().enumerate() {
            if grouped && SEPARATORS.contains(&at) {
                if byte != b'-' && byte != b'_' {
                    return Err(PodUidError);
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or(PodUidError)?;
            bits = bits << 4 | u128::from(digit);
        }
        Ok(bits.into())
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", u128::from(*self));
        write!(
            f,
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }
}

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A Kubernetes service account, written `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccount {
    /// The namespace that it lives in.
    pub namespace: String,
    /// Its name in that namespace.
    pub name: String,
}

/// A string that is not `namespace/serviceaccount`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected namespace/serviceaccount, such as kube-system/secrets-store-csi-driver")]
pub struct ServiceAccountError;

impl FromStr for ServiceAccount {
    type Err = ServiceAccountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(ServiceAccountError),
        }
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_in_any_of_kubelets_three_spellings_is_the_same() {
        let dashes: PodUid = "0f0e0d0c-0b0a-0908-0706-050403020100".parse().unwrap();
        let underscores: PodUid = "0f0e0d0c_0b0a_0908_0706_050403020100".parse().unwrap();
        let plain: PodUid = "0F0E0D0C0B0A09080706050403020100".parse().unwrap();
        assert_eq!(dashes, underscores);
        assert_eq!(dashes, plain);
        assert_eq!(dashes.to_string(), "0f0e0d0c-0b0a-0908-0706-050403020100");
    }

    #[test]
    fn a_text_that_is_no_uid_is_refused() {
        for text in [
            "",
            "pod",
            "0f0e0d0c-0b0a-0908-0706-05040302010",
            "0f0e0d0c-0b0a-0908-0706-0504030201000",
            "0f0e0d0c00b0a-0908-0706-050403020100",
            "0f0e0d0c-0b0a-0908-0706-05040302010g",
        ] {
            assert_eq!(text.parse::<PodUid>(), Err(PodUidError), "{text:?}");
        }
    }

    #[test]
    fn service_accounts_have_two_parts() {
        let account: ServiceAccount = "kube-system/driver".parse().unwrap();
        assert_eq!(account.to_string(), "kube-system/driver");
        for text in ["", "a", "/a", "a/", "a/b/c"] {
            assert!(text.parse::<ServiceAccount>().is_err(), "{text:?}");
        }
    }
}
