//! The node's own credentials where something replaces them in a file, as on EKS hybrid nodes.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use aws_config::{profile::ProfileFileCredentialsProvider, provider_config::ProviderConfig};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, Result, error::CredentialsError, future},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

/// How long before they expire credentials count as old: a call may be on its way for a while.
const EXPIRES_SOON: Duration = Duration::from_secs(60);

/// The shared credentials file, which is read again whenever it has changed.
///
/// Every call to EKS Auth is signed with what the file holds at that time. When it cannot be read,
/// because whatever writes it is not done, what it held last is still good.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    /// For a profile that assumes a role.
    http: SharedHttpClient,
    last: Mutex<Option<ReadCredentials>>,
    failing: AtomicBool,
}

/// What was read, and from which file.
#[derive(Clone, Debug)]
struct ReadCredentials {
    version: Version,
    credentials: Credentials,
}

/// What tells two contents of one path apart: device, inode, size, and when it was changed.
type Version = (u64, u64, u64, i64, i64);

impl RotatingFile {
    pub(super) fn new(path: PathBuf, http: SharedHttpClient) -> Self {
        Self {
            path,
            http,
            last: Mutex::default(),
            failing: AtomicBool::default(),
        }
    }

    async fn load(&self) -> Result {
        let version = self.version().map_err(|error| {
            CredentialsError::provider_error(format!("{}: {error}", self.path.display()))
        });
        let last = self.last().clone();
        if let (Ok(version), Some(last)) = (&version, &last)
            && last.is_good(*version)
        {
            return Ok(last.credentials.clone());
        }
        let read = match version {
            Ok(version) => self.read(version).await,
            Err(error) => Err(error),
        };
        match (read, last) {
            (Ok(read), _) => {
                self.failing.store(false, Relaxed);
                let credentials = read.credentials.clone();
                *self.last() = Some(read);
                Ok(credentials)
            }
            (Err(error), Some(last)) => {
                if !self.failing.swap(true, Relaxed) {
                    tracing::warn!(
                        %error,
                        "the node's credentials cannot be read; the last ones are used"
                    );
                }
                Ok(last.credentials)
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn read(
        &self,
        version: Version,
    ) -> std::result::Result<ReadCredentials, CredentialsError> {
        // A provider, and its configuration, read files once, so each time there are new ones.
        let config = ProviderConfig::without_region().with_http_client(self.http.clone());
        let file = ProfileFileCredentialsProvider::builder().configure(&config);
        let credentials = file.build().provide_credentials().await?;
        tracing::info!(
            access_key_id = credentials.access_key_id(),
            "read the node's credentials"
        );
        Ok(ReadCredentials {
            version,
            credentials,
        })
    }

    fn version(&self) -> io::Result<Version> {
        let file = fs::metadata(&self.path)?;
        let changed = (file.mtime(), file.mtime_nsec());
        Ok((file.dev(), file.ino(), file.size(), changed.0, changed.1))
    }

    fn last(&self) -> MutexGuard<'_, Option<ReadCredentials>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadCredentials {
    fn is_good(&self, version: Version) -> bool {
        let ends = self.credentials.expiry();
        self.version == version && ends.is_none_or(|end| end > SystemTime::now() + EXPIRES_SOON)
    }
}

impl ProvideCredentials for RotatingFile {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}
