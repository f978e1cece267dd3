//! The way to AWS and to the cluster: through the environment's proxy, where it names one.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` mean what they mean to curl. Only what
//! is on this machine or link never goes through a proxy, whatever `NO_PROXY` says: the instance
//! metadata would be another machine's, and the node's credentials in the proxy's hands.

mod body;
mod connect;
mod proxies;
mod resolve;
mod sdk;
mod step;
mod stream;
mod trust;

use std::{error::Error, net::IpAddr, path::Path, sync::Arc, time::Duration};

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::Scheme};
use hyper_util::{
    client::legacy::{self, connect::capture_connection},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;
use tokio::time::timeout;

use super::SetupError;
use connect::{Connect, StepTimeouts};
use proxies::Proxies;
use resolve::Resolver;
use step::ConnectError;

pub use step::ConnectPart;
pub use trust::{CertificateError, CertificateProblem};

/// How long a connection is kept that nobody uses. Load balancers forget it after 350 s.
const KEEP_IDLE: Duration = Duration::from_secs(300);
/// The most bytes and headers of an answer's head.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// How much of an answer may be on its way over HTTP/2 before somebody reads it.
const WINDOW: u32 = 64 * 1024;

/// What the environment says about the way to AWS and to the cluster: proxies, and certificate
/// authorities to trust.
/// Clones share what they know of names.
#[derive(Clone, Debug)]
pub struct Outbound {
    resolver: Resolver,
    proxies: Proxies,
    /// What is trusted for AWS in place of the system's authorities.
    bundle: Option<trust::Certificates>,
}

impl Outbound {
    /// Reads the environment, and the certificates that it names.
    ///
    /// # Errors
    ///
    /// [`SetupError::Variable`] when a variable cannot be used.
    pub async fn from_environment() -> Result<Self, SetupError> {
        Ok(Self {
            resolver: Resolver::system(),
            proxies: Proxies::from_environment()?,
            bundle: trust::aws_bundle().await?,
        })
    }

    /// Whatever the environment of a test says, no proxy and no authority of its own.
    #[cfg(test)]
    pub(crate) fn direct() -> Self {
        Self {
            resolver: Resolver::system(),
            proxies: Proxies::all(""),
            bundle: None,
        }
    }

    /// Trusts what is to be trusted for AWS.
    fn aws(&self) -> Result<Arc<ClientConfig>, SetupError> {
        let trusted = match &self.bundle {
            Some(bundle) => trust::client(bundle),
            None => trust::client(&trust::system()?),
        };
        trusted.map_err(SetupError::Certificates)
    }

    /// Trusts the certificates in `file`; without one, the system's and those for AWS.
    ///
    /// # Errors
    ///
    /// A [`CertificateError`] that names the file.
    pub(super) fn trusting(
        &self,
        file: Option<&Path>,
    ) -> Result<Arc<ClientConfig>, CertificateError> {
        let Some(file) = file else {
            let mut both = trust::system().unwrap_or_default();
            both.extend(self.bundle.iter().flatten().cloned());
            return trust::client(&both).map_err(CertificateError::System);
        };
        trust::read(file)
            .and_then(|certificates| trust::client(&certificates))
            .map_err(|problem| CertificateError::file(file, problem))
    }

    /// The HTTP client of the AWS SDK.
    ///
    /// # Errors
    ///
    /// When there is no certificate authority to trust.
    pub(super) fn sdk_client(&self) -> Result<sdk::SdkClient, SetupError> {
        Ok(sdk::SdkClient::new(self.clone(), self.aws()?))
    }

    /// A client with this trust, which connects within `tcp`.
    pub(super) fn client(&self, tls: Arc<ClientConfig>, tcp: Option<Duration>) -> Client {
        let usual = StepTimeouts::default();
        let limits = StepTimeouts {
            tcp: tcp.unwrap_or(usual.tcp),
            ..usual
        };
        let pool = |proxies| {
            let connect = Connect::new(self.resolver.clone(), proxies, Arc::clone(&tls), limits);
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(KEEP_IDLE)
                .http1_max_buf_size(MAX_HEAD)
                .http1_max_headers(MAX_HEADERS)
                .http2_initial_stream_window_size(WINDOW)
                .http2_initial_connection_window_size(4 * WINDOW)
                .http2_max_header_list_size(MAX_HEAD as u32)
                .build(connect)
        };
        Client {
            direct: pool(None),
            proxied: pool(Some(self.proxies.clone())),
            proxies: self.proxies.clone(),
        }
    }
}

/// Sends requests, over connections that it keeps. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Client {
    direct: Pool,
    proxied: Pool,
    proxies: Proxies,
}

type Pool = legacy::Client<Connect, SdkBody>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// A step on the way to a connection took too long.
    #[error("{step} took longer than {limit:?}")]
    Slow {
        /// Which one.
        part: ConnectPart,
        /// What it was, in words.
        step: String,
        /// How long it was given.
        limit: Duration,
    },
    /// The answer has not come in time.
    #[error("{host} has not answered within {limit:?}")]
    NoAnswer {
        /// Who was asked.
        host: String,
        /// How long it was given.
        limit: Duration,
    },
    /// There is no connection, it broke, or what came over it is no answer.
    #[error(transparent)]
    Broken(Box<dyn Error + Send + Sync>),
}

impl SendError {
    /// Whether something took too long.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::Slow { .. } | Self::NoAnswer { .. })
    }
}

impl Client {
    /// Sends a request and reads the whole answer, which has `limit` from when there is a
    /// connection.
    ///
    /// # Errors
    ///
    /// Any [`SendError`].
    pub(super) async fn send(
        &self,
        mut request: Request<SdkBody>,
        limit: Duration,
    ) -> Result<Response<Bytes>, SendError> {
        let pool = match is_local(request.uri()) {
            true => &self.direct,
            false => {
                self.authorize(&mut request);
                &self.proxied
            }
        };
        let host = request.uri().host().unwrap_or_default().to_owned();
        let mut connection = capture_connection(&mut request);
        let answer = async {
            let (head, body) = pool.request(request).await.map_err(unwrapped)?.into_parts();
            let body = body::read(body).await.map_err(SendError::Broken)?;
            Ok::<_, SendError>(Response::from_parts(head, body))
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => return answer,
            // Making a connection has limits of its own.
            () = async { drop(connection.wait_for_connection_metadata().await) } => {}
        }
        timeout(limit, answer).await.unwrap_or_else(|_| {
            // Others must not wait on it as well.
            if let Some(connection) = connection.connection_metadata().as_ref() {
                connection.poison();
            }
            Err(SendError::NoAnswer { host, limit })
        })
    }

    /// Authenticates to a proxy that forwards single requests. The others see that with their
    /// tunnel.
    fn authorize(&self, request: &mut Request<SdkBody>) {
        if request.uri().scheme() != Some(&Scheme::HTTP) {
            return;
        }
        let proxy = self.proxies.intercept(request.uri());
        let password: Option<HeaderValue> = proxy.and_then(|it| it.basic_auth().cloned());
        if let Some(password) = password {
            let headers = request.headers_mut();
            headers.insert(header::PROXY_AUTHORIZATION, password);
        }
    }
}

/// What has gone wrong below hyper's pool, in our own words where there are some.
fn unwrapped(error: legacy::Error) -> SendError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(ConnectError::Slow { part, step, limit }) = error.downcast_ref() {
            return SendError::Slow {
                part: *part,
                step: step.clone(),
                limit: *limit,
            };
        }
        // A cause within an I/O error is not its source.
        let io = error.downcast_ref::<std::io::Error>();
        let within: Option<&(dyn Error + 'static)> = match io.and_then(|io| io.get_ref()) {
            Some(within) => Some(within),
            None => None,
        };
        cause = within.or_else(|| error.source());
    }
    SendError::Broken(error.into())
}

/// The part of the way that an error is about, if there was no connection.
pub(super) fn part_that_failed(error: &(dyn Error + 'static)) -> Option<ConnectPart> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match (error.downcast_ref(), error.downcast_ref()) {
            (Some(SendError::Slow { part, .. }), _) => return Some(*part),
            (_, Some(ConnectError::Slow { part, .. } | ConnectError::Failed { part, .. })) => {
                return Some(*part);
            }
            _ => cause = error.source(),
        }
    }
    None
}

/// Whether a URL is on this machine, on its link, or one of EC2's local services.
fn is_local(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            let is_of_ec2 = address.segments()[..2] == [0xfd00, 0xec2];
            address.is_loopback() || address.is_unicast_link_local() || is_of_ec2
        }
        Err(_) => host == "localhost",
    }
}

#[cfg(test)]
mod tests;
