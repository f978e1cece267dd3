//! How a pod is named on the command line.

use std::{fmt, str::FromStr};

use podcreds_types::PodUid;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodName {
    /// By its UID.
    Uid(PodUid),
    /// As people do.
    Named {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A text that names no pod.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAMESPACE/NAME or the pod's UID")]
pub struct PodNameError;

impl FromStr for PodName {
    type Err = PodNameError;

    fn from_str(text: &str) -> Result<Self, PodNameError> {
        // Kubernetes' names have nothing else, and the name becomes part of a path.
        let is_name = |part: &str| {
            let is_part =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            !part.is_empty() && part.len() <= 253 && part.chars().all(is_part)
        };
        if let Some((namespace, name)) = text.split_once('/') {
            return match is_name(namespace) && is_name(name) {
                true => Ok(Self::Named {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                }),
                false => Err(PodNameError),
            };
        }
        text.parse().map(Self::Uid).map_err(|_| PodNameError)
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => uid.fmt(f),
            Self::Named { namespace, name } => write!(f, "{namespace}/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_a_namespace_and_a_name_or_a_uid() {
        for text in ["shop/web-1", "0f0e0d0c-0b0a-0908-0706-050403020100"] {
            assert_eq!(text.parse::<PodName>().unwrap().to_string(), text);
        }
        for text in ["", "web", "a/", "/b", "a/b/c", "a/../b", "A/b", "0f0e"] {
            assert_eq!(text.parse::<PodName>(), Err(PodNameError), "{text}");
        }
    }
}
