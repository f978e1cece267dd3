//! Temporary credentials of a role, as EKS Auth hands them out.

use std::{fmt, time::SystemTime};

use zeroize::Zeroizing;

/// Temporary credentials of a role. The secret parts are wiped on drop and never printed.
#[derive(Clone)]
pub struct Credentials {
    /// The access key's ID. Not secret: CloudTrail shows it.
    pub access_key_id: String,
    /// The secret that signs requests.
    pub secret_access_key: Zeroizing<String>,
    /// The session token that goes with it.
    pub session_token: Zeroizing<String>,
    /// The account of the assumed role, from its ARN.
    pub account_id: String,
    /// The assumed role's ARN without the session's name, such as
    /// `arn:aws:sts::123456789012:assumed-role/app`. AWS leaves the role's path out of it.
    pub role: String,
    /// When AWS stops accepting them.
    pub expiration: SystemTime,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("role", &self.role)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}
