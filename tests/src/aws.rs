//! AWS credentials, as far as the stand-ins share them.

use std::{collections::HashMap, fmt, str::FromStr};

use aws_credential_types::Credentials;
use aws_sdk_sts::config::SharedHttpClient;
use aws_smithy_http_client::Builder;

/// The region that everything here is in.
pub const REGION: &str = "eu-central-1";

/// The account that all roles belong to.
pub const ACCOUNT: &str = "111122223333";

/// What the AWS SDK asks stand-ins with: it knows of no proxy, whatever the environment says.
pub fn http_client() -> SharedHttpClient {
    Builder::new().build_http()
}

/// The credentials of the node's own role, with which the agent signs its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCredentials {
    /// The access key's ID.
    pub access_key_id: String,
    /// The secret that signs.
    pub secret_access_key: String,
    /// The session token, which must come with every signed request.
    pub session_token: String,
}

impl NodeCredentials {
    /// Credentials named after `node`, so that a test can tell two nodes' apart.
    pub fn named(node: &str) -> Self {
        Self {
            access_key_id: format!("ASIANODE{}", node.to_uppercase()),
            secret_access_key: format!("secret-of-{node}"),
            session_token: format!("session-of-{node}"),
        }
    }

    /// The environment variables in which every SDK looks for them.
    pub fn env(&self) -> HashMap<&'static str, String> {
        HashMap::from([
            ("AWS_ACCESS_KEY_ID", self.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_access_key.clone()),
            ("AWS_SESSION_TOKEN", self.session_token.clone()),
        ])
    }
}

impl From<&NodeCredentials> for Credentials {
    fn from(node: &NodeCredentials) -> Self {
        Self::new(
            &node.access_key_id,
            &node.secret_access_key,
            Some(node.session_token.clone()),
            None,
            "podcreds-tests",
        )
    }
}

impl Default for NodeCredentials {
    fn default() -> Self {
        Self::named("one")
    }
}

/// How long a session token is, in bytes: about as long as AWS's.
const SESSION_TOKEN: usize = 1160;

/// Whose credentials these are: what the EKS Auth stand-in writes into the session tokens that it
/// hands out, so that a test sees which pod they were meant for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The name of the role.
    pub role: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub pod: String,
    /// Its UID, as the token had it.
    pub uid: String,
    /// Which call to the stand-in made them, from 1.
    pub serial: u64,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            role,
            namespace,
            service_account,
            pod,
            uid,
            serial,
        } = self;
        let owner = format!("session:{role}:{namespace}:{service_account}:{pod}:{uid}:{serial}:");
        write!(f, "{owner:x<SESSION_TOKEN$}")
    }
}

/// A session token that the EKS Auth stand-in did not make.
#[derive(Debug, PartialEq, Eq)]
pub struct NotOurs;

impl FromStr for Owner {
    type Err = NotOurs;

    fn from_str(session_token: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = session_token.split(':').collect();
        let [
            "session",
            role,
            namespace,
            service_account,
            pod,
            uid,
            serial,
            _padding,
        ] = parts[..]
        else {
            return Err(NotOurs);
        };
        Ok(Self {
            role: role.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            serial: serial.parse().map_err(|_| NotOurs)?,
        })
    }
}

impl Owner {
    /// The access key ID that goes with these credentials: the role's name, in AWS' alphabet and
    /// length, and the serial number.
    pub fn access_key_id(&self) -> String {
        let role: String = self
            .role
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .take(8)
            .collect();
        format!("ASIA{:X<8}{:08}", role.to_uppercase(), self.serial)
    }
}
