//! Making a connection, step by step: the name, TCP, the proxy's tunnel, TLS.
//!
//! Each step has a limit of its own, and an error that names it. A connection is made by a task
//! that goes on when the request that wanted it is given up, and then serves the next one.

use std::{
    error::Error,
    io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{Uri, uri::Scheme};
use hyper_util::{
    client::legacy::connect::{
        HttpConnector,
        dns::Name,
        proxy::{SocksV5, Tunnel},
    },
    client::proxy::matcher::Intercept,
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::{
    proxies::Proxies,
    resolve::Resolver,
    step::{ConnectError, ConnectPart, ConnectStep, failed, is_late, set, within},
    stream::{ByteStream, Given, PooledConnection},
};

/// How long a connection that nobody waited for any more is kept for the next request.
const KEEP_SPARE: Duration = Duration::from_secs(20);

/// The longest that each step of making a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepTimeouts {
    /// The look-up of a name.
    pub(super) look_up: Duration,
    /// TCP, at all of a name's addresses together.
    pub(super) tcp: Duration,
    /// The proxy's consent, or its refusal.
    pub(super) tunnel: Duration,
    /// The TLS handshake.
    pub(super) tls: Duration,
    /// All of it.
    pub(super) total: Duration,
}

impl Default for StepTimeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            look_up: seconds(10),
            tcp: seconds(5),
            tunnel: seconds(10),
            tls: seconds(10),
            total: seconds(20),
        }
    }
}

/// Makes connections for hyper's pool. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Connect(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resolver: Resolver,
    proxies: Option<Proxies>,
    tls: Arc<ClientConfig>,
    limits: StepTimeouts,
    /// Connections that nobody waits for any more.
    spares: Mutex<Vec<Spare>>,
}

#[derive(Debug)]
struct Spare {
    uri: Uri,
    since: Instant,
    connection: PooledConnection,
}

impl Connect {
    pub(super) fn new(
        resolver: Resolver,
        proxies: Option<Proxies>,
        tls: Arc<ClientConfig>,
        limits: StepTimeouts,
    ) -> Self {
        Self(Arc::new(Inner {
            resolver,
            proxies,
            tls,
            limits,
            spares: Mutex::default(),
        }))
    }
}

impl Service<Uri> for Connect {
    type Response = PooledConnection;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<PooledConnection, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let inner = Arc::clone(&self.0);
        async move {
            if let Some(spare) = inner.take_spare(&uri) {
                return Ok(spare);
            }
            let (sender, receiver) = oneshot::channel();
            tokio::spawn(async move {
                let outcome = inner.establish(&uri).await;
                if let Err(Ok(connection)) = sender.send(outcome) {
                    inner.keep_spare(uri, connection);
                }
            });
            receiver.await.unwrap_or_else(|error| {
                Err(ConnectError::Failed {
                    part: ConnectPart::Tcp,
                    step: "connecting".to_owned(),
                    source: error.into(),
                })
            })
        }
        .boxed()
    }
}

impl Inner {
    fn take_spare(&self, uri: &Uri) -> Option<PooledConnection> {
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        spares.retain(|spare| spare.since.elapsed() < KEEP_SPARE);
        let at = spares.iter().position(|spare| spare.uri == *uri)?;
        Some(spares.swap_remove(at).connection)
    }

    fn keep_spare(&self, uri: Uri, connection: PooledConnection) {
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        spares.retain(|spare| spare.since.elapsed() < KEEP_SPARE);
        spares.push(Spare {
            uri,
            since: Instant::now(),
            connection,
        });
    }

    async fn establish(&self, uri: &Uri) -> Result<PooledConnection, ConnectError> {
        let step = Mutex::new(ConnectStep::Tcp(authority(uri)));
        let limit = self.limits.total;
        let established = timeout(limit, self.steps(uri, &step)).await;
        established.unwrap_or_else(|_| {
            let step = step.into_inner().unwrap_or_else(PoisonError::into_inner);
            Err(ConnectError::Slow {
                part: step.part(),
                step: format!("making a connection, and in the end {step},"),
                limit,
            })
        })
    }

    async fn steps(
        &self,
        uri: &Uri,
        now: &Mutex<ConnectStep>,
    ) -> Result<PooledConnection, ConnectError> {
        let proxy = self.proxies.as_ref().and_then(|it| it.intercept(uri));
        let is_encrypted = uri.scheme() == Some(&Scheme::HTTPS);
        let Some(proxy) = proxy else {
            let stream = self.tcp(uri, now).await?;
            return match is_encrypted {
                true => self.tls(stream, uri, now, true).await,
                false => Ok(PooledConnection::new(stream)),
            };
        };
        let mut stream = self.tcp(proxy.uri(), now).await?;
        if proxy.uri().scheme() == Some(&Scheme::HTTPS) {
            let connection = self.tls(stream, proxy.uri(), now, false).await?;
            stream = connection.into_stream();
        }
        let is_socks = is_socks(&proxy);
        if is_encrypted || is_socks {
            stream = self.tunnel(stream, &proxy, uri, now).await?;
        }
        match is_encrypted {
            true => self.tls(stream, uri, now, true).await,
            false if is_socks => Ok(PooledConnection::new(stream)),
            false => Ok(PooledConnection::to_forward(stream)),
        }
    }

    /// Looks a host up, unless it is an address, and connects to it.
    async fn tcp(
        &self,
        uri: &Uri,
        now: &Mutex<ConnectStep>,
    ) -> Result<Box<dyn ByteStream>, ConnectError> {
        let names = Names {
            resolver: self.resolver.clone(),
            limit: self.limits.look_up,
            is_looking: Arc::default(),
        };
        let is_looking = Arc::clone(&names.is_looking);
        let host = uri.host().unwrap_or_default();
        let mut connector = HttpConnector::new_with_resolver(names);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(Duration::from_secs(60)));
        connector.set_connect_timeout(Some(self.limits.tcp));
        let step = || match *is_looking.lock().unwrap_or_else(PoisonError::into_inner) {
            true => ConnectStep::LookUp(host.to_owned()),
            false => ConnectStep::Tcp(authority(uri)),
        };
        let mut connecting = Box::pin(connector.call(with_port(uri)));
        let connected = std::future::poll_fn(|cx| {
            let polled = connecting.poll_unpin(cx);
            set(now, step());
            polled
        })
        .await;
        match connected {
            Ok(stream) => Ok(Box::new(stream.into_inner())),
            Err(error) => {
                self.resolver.forget(host);
                match step() {
                    step @ ConnectStep::Tcp(_) if is_late(&error) => Err(ConnectError::Slow {
                        part: step.part(),
                        step: step.to_string(),
                        limit: self.limits.tcp,
                    }),
                    step => Err(failed(&step, error)),
                }
            }
        }
    }

    /// Has a proxy connect to where the request goes.
    async fn tunnel(
        &self,
        stream: Box<dyn ByteStream>,
        proxy: &Intercept,
        uri: &Uri,
        now: &Mutex<ConnectStep>,
    ) -> Result<Box<dyn ByteStream>, ConnectError> {
        let step = ConnectStep::Tunnel {
            proxy: authority(proxy.uri()),
            to: authority(uri),
        };
        set(now, step.clone());
        let given = Given::new(stream);
        let target = with_port(uri);
        let opened: BoxFuture<'_, Result<_, Box<dyn Error + Send + Sync>>> = if is_socks(proxy) {
            let mut socks = SocksV5::new(proxy.uri().clone(), given);
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            Box::pin(async move { Ok(socks.call(target).await?) })
        } else {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), given);
            if let Some(password) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(password.clone());
            }
            Box::pin(async move { Ok(tunnel.call(target).await?) })
        };
        let opened = within(self.limits.tunnel, &step, opened).await?;
        Ok(opened.into_inner())
    }

    async fn tls(
        &self,
        stream: Box<dyn ByteStream>,
        uri: &Uri,
        now: &Mutex<ConnectStep>,
        negotiates: bool,
    ) -> Result<PooledConnection, ConnectError> {
        let step = ConnectStep::Tls(authority(uri));
        set(now, step.clone());
        let mut config = Arc::clone(&self.tls);
        if !negotiates {
            Arc::make_mut(&mut config).alpn_protocols.clear();
        }
        let host = uri.host().unwrap_or_default();
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| failed(&step, error))?;
        let shake = TlsConnector::from(config).connect(name, stream);
        let shake = async { Ok(shake.await?) };
        let stream = within(self.limits.tls, &step, shake).await?;
        Ok(PooledConnection::encrypted(stream))
    }
}

/// Looks names up for hyper's connector, and says when.
#[derive(Clone)]
struct Names {
    resolver: Resolver,
    limit: Duration,
    is_looking: Arc<Mutex<bool>>,
}

impl Names {
    fn set_looking(&self, is_looking: bool) {
        *self
            .is_looking
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = is_looking;
    }
}

impl Service<Name> for Names {
    type Response = std::vec::IntoIter<std::net::SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let this = self.clone();
        this.set_looking(true);
        Box::pin(async move {
            let name = name.as_str();
            let Ok(found) = timeout(this.limit, this.resolver.look_up(name)).await else {
                let slow = ConnectError::Slow {
                    part: ConnectPart::LookUp,
                    step: ConnectStep::LookUp(name.to_owned()).to_string(),
                    limit: this.limit,
                };
                return Err(io::Error::new(io::ErrorKind::TimedOut, slow));
            };
            let found = found?;
            this.set_looking(false);
            Ok(found.into_iter())
        })
    }
}

fn is_socks(proxy: &Intercept) -> bool {
    let scheme = proxy.uri().scheme_str();
    scheme.is_some_and(|scheme| scheme.starts_with("socks"))
}

/// Host and port, without user and password.
fn authority(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    format!("{host}:{}", port(uri))
}

fn port(uri: &Uri) -> u16 {
    let default = match uri.scheme_str() {
        Some("https") => 443,
        Some("socks5" | "socks5h") => 1080,
        _ => 80,
    };
    uri.port_u16().unwrap_or(default)
}

/// The same with the port that its scheme means, which hyper's connectors know of `http` and
/// `https` only.
fn with_port(uri: &Uri) -> Uri {
    let built = Uri::builder()
        .scheme(uri.scheme_str().unwrap_or("http"))
        .authority(authority(uri))
        .path_and_query("/")
        .build();
    built.unwrap_or_else(|_| uri.clone())
}
