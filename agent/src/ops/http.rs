//! A plain HTTP server for Prometheus and the kubelet: few clients, small answers.

use std::{convert::Infallible, future::Future, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

/// Clients served at once. More of them wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 64;
/// For a connection as a whole: one request, and an answer that the client may be slow to read.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed accept, most likely for want of descriptors: give others time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where clients come from.
pub trait Listen: Send + Sync + 'static {
    /// The connection with one of them.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Waits for the next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Answers `GET` and `HEAD` requests by their path, for as long as it is polled.
///
/// What it has begun dies with it: nobody drains a scrape.
pub(super) async fn serve<L, A, F>(listener: L, answer: A) -> Infallible
where
    L: Listen,
    A: Fn(String) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let answer = Arc::new(answer);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // Ended ones are collected here, so that the set does not grow.
        while connections.try_join_next().is_some() {}
        let slot = Arc::clone(&slots).acquire_owned().await;
        match listener.next().await {
            Ok(stream) => {
                let answer = Arc::clone(&answer);
                connections.spawn(async move {
                    serve_connection(stream, answer).await;
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection<S, A, F>(stream: S, answer: Arc<A>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(String) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(|request: Request<Incoming>| {
        let readable = matches!(*request.method(), Method::GET | Method::HEAD);
        let pending = readable.then(|| answer(request.uri().path().to_owned()));
        async move {
            Ok::<_, Infallible>(match pending {
                Some(pending) => pending.await,
                None => method_not_allowed(),
            })
        }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a probe's or a scraper's connection failed"),
        Err(_) => debug!("a probe's or a scraper's connection took too long"),
    }
}

/// An answer in plain text.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(
        status,
        HeaderValue::from_static("text/plain; charset=utf-8"),
        body,
    )
}

/// An answer of any content type.
pub(super) fn typed(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// The answer to a path that is not there.
pub(super) fn not_found(paths: &str) -> Response<Full<Bytes>> {
    text(
        StatusCode::NOT_FOUND,
        format!("not found; there is {paths}\n"),
    )
}

fn method_not_allowed() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    let allowed = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Sends one request on a connection of its own and returns all of the answer.
    pub(in crate::ops) async fn fetch(address: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn local() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn requests_are_answered_by_path() {
        let (listener, address) = local().await;
        let echo = |path: String| async move { text(StatusCode::OK, path) };
        let server = tokio::spawn(serve(listener, echo));
        let answer = fetch(address, "GET", "/a/b?c=d").await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n/a/b"), "{answer}");
        let answer = fetch(address, "HEAD", "/a").await;
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        let answer = fetch(address, "POST", "/a").await;
        assert!(answer.starts_with("HTTP/1.0 405 "), "{answer}");
        assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
        server.abort();
    }

    // On a paused clock a sleep ends when nobody has anything left to do.
    #[tokio::test(start_paused = true)]
    async fn clients_beyond_the_cap_wait_their_turn() {
        let (listener, address) = local().await;
        let server = tokio::spawn(serve(listener, |_| async { text(StatusCode::OK, "ok") }));
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut late = tokio::spawn(async move { fetch(address, "GET", "/").await });
        tokio::select! {
            biased;
            answer = &mut late => panic!("served beyond the cap: {answer:?}"),
            () = sleep(Duration::from_secs(1)) => {}
        }
        silent.pop();
        assert!(late.await.unwrap().ends_with("ok"));
        server.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_holds_a_connection_for_ever() {
        let (listener, address) = local().await;
        let server = tokio::spawn(serve(listener, |_| async { text(StatusCode::OK, "ok") }));
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut kept = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        kept.write_all(request).await.unwrap();
        let mut answer = String::new();
        kept.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        let end = timeout(2 * CONNECTION_TIMEOUT, silent.read(&mut [0; 1])).await;
        assert_eq!(end.unwrap().unwrap(), 0);
        server.abort();
    }
}
