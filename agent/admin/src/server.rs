//! The agent's side: few clients, all of them root's, and small answers.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{LogLevel, NodeStatus, Refresh, SetLogLevel, Socket, Target};

/// Connections at once. One more waits to be accepted.
const MAX_CONNECTIONS: usize = 16;
/// For the head of a request, and for its body.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For all of a connection. A refresh takes up to half of it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// For a head, the least that hyper takes.
const BUFFER: usize = 8 * 1024;
/// The longest body of a request.
const LONGEST: usize = 64 * 1024;
/// After a failed accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a caller who is not root gets.
const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n\
                         Connection: close\r\n\r\n{\"error\":\"only root may ask\"}";

/// Where each of them is.
pub(crate) const STATUS: &str = "/v1/status";
pub(crate) const REFRESH: &str = "/v1/refresh";
pub(crate) const LOG_LEVEL: &str = "/v1/log-level";

/// Why an operator gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperateError {
    /// There is no such pod, or none of that service account.
    NotFound(String),
    /// What was asked for makes no sense.
    Invalid(String),
}

/// Answers an operator's questions.
pub trait Operate: Send + Sync + 'static {
    /// How the agent is, and its pods.
    fn status(&self) -> BoxFuture<'static, NodeStatus>;

    /// Has credentials fetched anew, and waits for that, for half a minute at most.
    fn refresh(&self, target: Target) -> BoxFuture<'static, Result<Refresh, OperateError>>;

    /// How much is logged.
    fn log_level(&self) -> LogLevel;

    /// Logs so much from now on.
    ///
    /// # Errors
    ///
    /// [`OperateError::Invalid`] for a filter that makes no sense.
    fn set_log_level(&self, wanted: SetLogLevel) -> Result<LogLevel, OperateError>;
}

impl Socket {
    /// Answers on it for as long as it is polled. It has nothing to do where nobody asks.
    ///
    /// # Errors
    ///
    /// When the runtime cannot wait for it.
    pub async fn serve(self, operate: Arc<dyn Operate>) -> io::Result<Infallible> {
        let Self {
            listener,
            place: _place,
        } = self;
        let listener = UnixListener::from_std(listener)?;
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= MAX_CONNECTIONS {
                connections.join_next().await;
            }
            // Ended ones are collected here, so that the set does not grow.
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = serve_connection(stream, Arc::clone(&operate));
                    connections.spawn(timeout(CONNECTION_TIMEOUT, connection));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an operator's connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve_connection(stream: UnixStream, operate: Arc<dyn Operate>) {
    // The folder and the file's mode keep others out already; this holds also where somebody has
    // opened them.
    let uid = stream.peer_cred().map(|peer| peer.uid());
    if !matches!(uid, Ok(0)) {
        tracing::warn!(
            uid = uid.ok(),
            "somebody who is not root asks as an operator"
        );
        // Nothing can be done about one that does not listen.
        let _ = timeout(HEAD_TIMEOUT, forbid(stream)).await;
        return;
    }
    let service = service_fn(|request| {
        let operate = Arc::clone(&operate);
        async move { Ok::<_, Infallible>(answer(request, &*operate).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an operator's connection failed");
    }
}

/// Turns a caller away, and reads what it has sent: else it would see a reset in place of the
/// answer.
async fn forbid(mut stream: UnixStream) -> io::Result<()> {
    stream.write_all(FORBIDDEN.as_bytes()).await?;
    stream.shutdown().await?;
    let mut sent = [0; 1024];
    while stream.read(&mut sent).await? > 0 {}
    Ok(())
}

async fn answer(request: Request<Incoming>, operate: &dyn Operate) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, STATUS) => said(Ok(operate.status().await)),
        (&Method::GET, LOG_LEVEL) => said(Ok(operate.log_level())),
        (&Method::PUT, LOG_LEVEL) => match read(request).await {
            Ok(wanted) => said(operate.set_log_level(wanted)),
            Err(refused) => said::<()>(Err(refused)),
        },
        (&Method::POST, REFRESH) => match read(request).await {
            Ok(target) => said(operate.refresh(target).await),
            Err(refused) => said::<()>(Err(refused)),
        },
        (_, STATUS | LOG_LEVEL | REFRESH) => error(
            StatusCode::METHOD_NOT_ALLOWED,
            "GET /v1/status, POST /v1/refresh, GET or PUT /v1/log-level",
        ),
        _ => error(
            StatusCode::NOT_FOUND,
            "there is /v1/status, /v1/refresh and /v1/log-level",
        ),
    }
}

/// What the body of a request says.
async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, OperateError> {
    let invalid = |why: String| OperateError::Invalid(format!("the request's body: {why}"));
    let body = request.into_body();
    if body.size_hint().lower() > LONGEST as u64 {
        return Err(invalid(format!("longer than {LONGEST} bytes")));
    }
    let body = Limited::new(body, LONGEST).collect();
    let body = timeout(HEAD_TIMEOUT, body)
        .await
        .map_err(|_| invalid("it does not come".to_owned()))?
        .map_err(|error| invalid(error.to_string()))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| invalid(error.to_string()))
}

fn said<T: Serialize>(answer: Result<T, OperateError>) -> Response<Full<Bytes>> {
    match answer {
        Ok(said) => match serde_json::to_vec(&said) {
            Ok(body) => response(StatusCode::OK, body),
            Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
        },
        Err(OperateError::NotFound(why)) => error(StatusCode::NOT_FOUND, &why),
        Err(OperateError::Invalid(why)) => error(StatusCode::BAD_REQUEST, &why),
    }
}

fn error(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    response(status, json!({ "error": why }).to_string())
}

fn response(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
