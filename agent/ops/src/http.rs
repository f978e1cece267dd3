//! A plain HTTP server for Prometheus and the kubelet: few clients, small answers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Notify,
    task::{AbortHandle, JoinSet, yield_now},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

/// Connections at once. One more ends the one that has waited the longest.
const MAX_CONNECTIONS: usize = 64;
/// For a request's head. Kubelet and Prometheus send it as soon as they are connected.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For the answer, which the client may be slow to read. A scrape has ten seconds by default.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// For a head, the least that hyper takes. Clients have a few hundred bytes to say.
const BUFFER: usize = 8 * 1024;
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
/// Every program of the node can connect, and may say nothing then. So nobody is turned away: the
/// newest client is served in place of one that has been there for long. What has begun dies with
/// this: nobody drains a scrape.
pub(super) async fn serve<L, A, F>(listener: L, answer: A) -> Infallible
where
    L: Listen,
    A: Fn(String) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let answer = Arc::new(answer);
    let open = Arc::new(OpenConnections::default());
    let mut connections = JoinSet::new();
    loop {
        // Ended ones are collected here, so that the set does not grow.
        while connections.try_join_next().is_some() {}
        match listener.next().await {
            Ok(stream) => {
                let answer = Arc::clone(&answer);
                open.add(|registered| {
                    connections.spawn(serve_connection(stream, answer, registered))
                });
                // In a flood the next client is there already, and this one would be ended before
                // it had its turn.
                yield_now().await;
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that are open.
#[derive(Default)]
struct OpenConnections(Mutex<Connections>);

#[derive(Default)]
struct Connections {
    /// From the oldest one to the newest.
    by_age: BTreeMap<u64, OpenConnection>,
    /// Counts the connections that there ever were.
    last: u64,
}

struct OpenConnection {
    task: AbortHandle,
    /// Whether its request is there, so that it waits for us and not we for it.
    is_answered: bool,
}

/// One connection that is counted as open until this is dropped.
struct Registered {
    open: Arc<OpenConnections>,
    number: u64,
}

impl OpenConnections {
    /// Adds the connection that `start` starts. If there are too many, the oldest one without a
    /// request ends, or the oldest one if all have been asked something.
    fn add(self: &Arc<Self>, start: impl FnOnce(Registered) -> AbortHandle) {
        // Held until it is in the list: the new one may end at once.
        let mut connections = self.lock();
        if connections.by_age.len() >= MAX_CONNECTIONS {
            connections.shed();
        }
        connections.last += 1;
        let number = connections.last;
        let open = Arc::clone(self);
        let connection = OpenConnection {
            task: start(Registered { open, number }),
            is_answered: false,
        };
        connections.by_age.insert(number, connection);
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn shed(&mut self) {
        let idle = self.by_age.iter().find(|(_, open)| !open.is_answered);
        let oldest = idle.or_else(|| self.by_age.first_key_value());
        if let Some(number) = oldest.map(|(number, _)| *number)
            && let Some(shed) = self.by_age.remove(&number)
        {
            shed.task.abort();
        }
    }
}

impl Registered {
    /// The request is there.
    fn set_answered(&self) {
        if let Some(connection) = self.open.lock().by_age.get_mut(&self.number) {
            connection.is_answered = true;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.open.lock().by_age.remove(&self.number);
    }
}

async fn serve_connection<S, A, F>(stream: S, answer: Arc<A>, registered: Registered)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(String) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let asked = Notify::new();
    let service = service_fn(|request: Request<Incoming>| {
        registered.set_answered();
        asked.notify_one();
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
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Ok(ended),
        () = asked.notified() => timeout(ANSWER_TIMEOUT, connection).await,
        () = sleep(HEAD_TIMEOUT) => return debug!("a probe or a scraper asked nothing"),
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a probe's or a scraper's connection failed"),
        Err(_) => debug!("a probe or a scraper did not read its answer"),
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
    pub(crate) async fn fetch(address: SocketAddr, method: &str, path: &str) -> String {
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

    fn ok() -> impl Fn(String) -> std::future::Ready<Response<Full<Bytes>>> + Send + Sync {
        |_| std::future::ready(text(StatusCode::OK, "ok"))
    }

    /// So many clients that connect, and send this.
    async fn clients(address: SocketAddr, count: usize, sent: &str) -> Vec<TcpStream> {
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent.as_bytes()).await.unwrap();
            clients.push(client);
        }
        clients
    }

    /// Whether the server has ended the connection.
    async fn has_ended(client: &mut TcpStream) -> bool {
        !matches!(client.read(&mut [0; 1]).await, Ok(1..))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_answered_however_many_say_nothing() {
        for sent in ["", "GET / HTTP/1.1\r\nHost:"] {
            let (listener, address) = local().await;
            let server = tokio::spawn(serve(listener, ok()));
            let mut silent = clients(address, 3 * MAX_CONNECTIONS, sent).await;
            let answer = timeout(HEAD_TIMEOUT / 2, fetch(address, "GET", "/")).await;
            assert!(answer.unwrap().ends_with("ok"), "{sent:?}");
            assert!(
                has_ended(&mut silent[0]).await,
                "the oldest has had its time"
            );
            server.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_answered_however_many_do_not_read() {
        let (listener, address) = local().await;
        let long = || Bytes::from(vec![b'x'; 16 << 20]);
        let server = tokio::spawn(serve(listener, move |path: String| {
            let short = path == "/short";
            std::future::ready(match short {
                true => text(StatusCode::OK, "ok"),
                false => text(StatusCode::OK, long()),
            })
        }));
        let asked = "GET / HTTP/1.0\r\n\r\n";
        let _deaf = clients(address, MAX_CONNECTIONS, asked).await;
        let answer = timeout(HEAD_TIMEOUT / 2, fetch(address, "GET", "/short")).await;
        assert!(answer.unwrap().ends_with("ok"));
        server.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_asked_is_not_ended_for_a_silent_one() {
        let (listener, address) = local().await;
        let release = Arc::new(Notify::new());
        let held = Arc::clone(&release);
        let server = tokio::spawn(serve(listener, move |_| {
            let held = Arc::clone(&held);
            async move {
                held.notified().await;
                text(StatusCode::OK, "ok")
            }
        }));
        let patient = tokio::spawn(async move { fetch(address, "GET", "/").await });
        let _silent = clients(address, 3 * MAX_CONNECTIONS, "").await;
        release.notify_one();
        let answer = timeout(HEAD_TIMEOUT / 2, patient).await.unwrap();
        assert!(answer.unwrap().ends_with("ok"));
        server.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_or_slow_client_is_disconnected() {
        let (listener, address) = local().await;
        let server = tokio::spawn(serve(listener, ok()));
        let mut silent = clients(address, 1, "").await.remove(0);
        // A byte now and then does not give it more time.
        let mut slow = clients(address, 1, "G").await.remove(0);
        let mut kept = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        kept.write_all(request).await.unwrap();
        let mut answer = String::new();
        kept.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        let (mut reads, mut writes) = slow.split();
        let trickle = async {
            while writes.write_all(b"E").await.is_ok() {
                sleep(HEAD_TIMEOUT / 10).await;
            }
            std::future::pending().await
        };
        let mut byte = [0];
        tokio::select! {
            ended = timeout(2 * HEAD_TIMEOUT, reads.read(&mut byte)) => {
                assert!(!matches!(ended.unwrap(), Ok(1..)));
            }
            () = trickle => {}
        }
        assert!(timeout(HEAD_TIMEOUT, has_ended(&mut silent)).await.unwrap());
        server.abort();
    }
}
