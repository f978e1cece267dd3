//! Who decides whether the stand-in accepts a token.

use jsonwebtoken::errors::ErrorKind;

use crate::token::{Claims, Issuer};

/// A cluster: it says which tokens are good, and may know which service account has which role.
pub trait Authority: Send + Sync + 'static {
    /// Checks a token as EKS Auth does.
    ///
    /// # Errors
    ///
    /// Why it is no good.
    fn verify(&self, token: &str) -> Result<Claims, Rejected>;

    /// The role of a service account. One that is not known here may have been given to the
    /// stand-in itself.
    ///
    /// # Errors
    ///
    /// When it cannot be told.
    fn role(&self, _namespace: &str, _account: &str) -> Result<Option<String>, Rejected> {
        Ok(None)
    }
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It was good once.
    Expired(String),
    /// It never was, or what it is bound to is gone.
    Invalid(String),
    /// The cluster does not say.
    Unavailable(String),
}

impl Rejected {
    /// What EKS Auth answers: status, error name, reason.
    pub(super) fn refusal(self) -> (u16, &'static str, String) {
        match self {
            Self::Expired(why) => (400, "ExpiredTokenException", why),
            Self::Invalid(why) => (400, "InvalidTokenException", why),
            Self::Unavailable(why) => (503, "ServiceUnavailableException", why),
        }
    }
}

impl Authority for Issuer {
    fn verify(&self, token: &str) -> Result<Claims, Rejected> {
        Issuer::verify(self, token).map_err(|why| match why.kind() {
            ErrorKind::ExpiredSignature => Rejected::Expired(why.to_string()),
            _ => Rejected::Invalid(why.to_string()),
        })
    }
}
