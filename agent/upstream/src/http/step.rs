//! The steps of making a connection, and what is said of one that is slow or fails.

use std::{
    error::Error,
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

/// A step, with the name of the other end. Proxies are named without what is in front of their
/// host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConnectStep {
    LookUp(String),
    Tcp(String),
    Tunnel { proxy: String, to: String },
    Tls(String),
}

/// A part of the way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectPart {
    /// Looking its name up.
    LookUp,
    /// TCP.
    Tcp,
    /// The proxy, asked to go on.
    Proxy,
    /// The TLS handshake.
    Tls,
}

impl ConnectStep {
    pub(super) fn part(&self) -> ConnectPart {
        match self {
            Self::LookUp(_) => ConnectPart::LookUp,
            Self::Tcp(_) => ConnectPart::Tcp,
            Self::Tunnel { .. } => ConnectPart::Proxy,
            Self::Tls(_) => ConnectPart::Tls,
        }
    }
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LookUp(name) => write!(f, "looking up {name}"),
            Self::Tcp(address) => write!(f, "connecting to {address}"),
            Self::Tunnel { proxy, to } => write!(f, "the proxy {proxy}, asked for {to},"),
            Self::Tls(name) => write!(f, "the TLS handshake with {name}"),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// A step took too long.
    #[error("{step} took longer than {limit:?}")]
    Slow {
        /// Which one.
        part: ConnectPart,
        /// What it was, in words.
        step: String,
        /// How long it was given.
        limit: Duration,
    },
    /// A step failed.
    #[error("{step} failed")]
    Failed {
        /// Which one.
        part: ConnectPart,
        /// What it was, in words.
        step: String,
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Notes which step it is now.
pub(super) fn set(now: &Mutex<ConnectStep>, step: ConnectStep) {
    *now.lock().unwrap_or_else(PoisonError::into_inner) = step;
}

/// Does a step within its limit.
pub(super) async fn within<T>(
    limit: Duration,
    step: &ConnectStep,
    work: impl Future<Output = Result<T, Box<dyn Error + Send + Sync>>>,
) -> Result<T, ConnectError> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(|error| failed(step, error)),
        Err(_) => Err(ConnectError::Slow {
            part: step.part(),
            step: step.to_string(),
            limit,
        }),
    }
}

/// Whether an I/O error that ran out of time caused this one.
pub(super) fn is_late(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this)
    })
    .filter_map(|error| error.downcast_ref::<io::Error>())
    .any(|error| error.kind() == io::ErrorKind::TimedOut)
}

pub(super) fn failed(
    step: &ConnectStep,
    error: impl Into<Box<dyn Error + Send + Sync>>,
) -> ConnectError {
    ConnectError::Failed {
        part: step.part(),
        step: step.to_string(),
        source: error.into(),
    }
}
