//! HTTP as clients speak it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::Transport;

#[tokio::test(start_paused = true)]
async fn connections_are_kept_or_not_as_the_client_likes() {
    let fixture = Fixture::new(Config::default());
    let with = |version: &str, header: &str| {
        let request = get("good").replace("HTTP/1.1", version);
        request.replace("\r\n\r\n", &format!("\r\n{header}\r\n"))
    };
    for (request, kept) in [
        (with("HTTP/1.1", ""), true),
        (with("HTTP/1.1", "Connection: close\r\n"), false),
        (with("HTTP/1.0", ""), false),
        (with("HTTP/1.0", "Connection: keep-alive\r\n"), true),
        (
            "GET /v1/credentials HTTP/1.0\r\nAuthorization: good.x.y\r\n\r\n".to_owned(),
            false,
        ),
    ] {
        let mut client = fixture.connect();
        assert_eq!(client.ask(&request).await.body, BODY, "{request}");
        if kept {
            assert_eq!(client.ask(&request).await.body, BODY, "{request}");
        } else {
            assert!(client.is_closed().await, "{request}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_their_order() {
    let fixture = Fixture::new(Config::default());
    let mut client = fixture.connect();
    client
        .send([get("good"), get("stolen"), get("good")].concat())
        .await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client.answer().await.status());
    }
    assert_eq!(statuses, [200, 403, 200]);
}

#[tokio::test(start_paused = true)]
async fn a_body_is_not_read() {
    let fixture = Fixture::new(Config::default());
    let mut client = fixture.connect();
    let request = get("good").replace("\r\n\r\n", "\r\nContent-Length: 1000000\r\n\r\n");
    assert_eq!(client.ask(request).await.status(), 200);
    assert!(client.is_closed().await);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_declined() {
    let fixture = Fixture::new(Config::default());
    let upgrade =
        "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n";
    let request = get("good").replace("\r\n\r\n", upgrade);
    let mut client = fixture.connect();
    for _ in 0..2 {
        assert_eq!(client.ask(&request).await.body, BODY);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_no_more_to_say_still_listens() {
    let fixture = Fixture::new(Config::default());
    let mut client = fixture.connect();
    client.send(get("slow")).await;
    client.0.shutdown().await.unwrap();
    assert_eq!(client.answer().await.status(), 503);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn real_sockets_are_served_too() {
    let fixture = Fixture::new(Config::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let times = Times {
        accepted: Instant::now(),
        connected: None,
    };
    fixture.server.serve(stream, fixture.caller(1), times);
    let request = get("good").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(BODY), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_leaves_in_one_write() {
    let fixture = Fixture::new(Config::default());
    let (mut client, calls) = Counted::serve(&fixture);
    for asked in 1..=3 {
        assert_eq!(client.ask(get("good")).await.body, BODY);
        assert_eq!(calls.writes.load(Ordering::Relaxed), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_last_answer_waits_for_the_end_of_its_connection() {
    let fixture = Fixture::new(Config::default());
    let (mut client, calls) = Counted::serve(&fixture);
    client.ask(get("good")).await;
    assert!(!calls.corked.load(Ordering::Relaxed));
    let last = get("good").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    assert_eq!(client.ask(last).await.body, BODY);
    assert!(calls.corked.load(Ordering::Relaxed));
    assert!(client.is_closed().await);
    assert_eq!(calls.writes.load(Ordering::Relaxed), 2);

    let (mut client, calls) = Counted::serve(&fixture);
    client
        .ask(get("good").replace("HTTP/1.1", "HTTP/1.0"))
        .await;
    assert!(calls.corked.load(Ordering::Relaxed));
    assert!(client.is_closed().await);
}

/// Counts what would be system calls.
struct Counted {
    inner: DuplexStream,
    calls: Arc<Calls>,
}

#[derive(Default)]
struct Calls {
    writes: AtomicUsize,
    corked: AtomicBool,
}

impl Counted {
    /// Serves one, and returns its other end.
    fn serve(fixture: &Fixture) -> (Client, Arc<Calls>) {
        let (ours, theirs) = duplex(64 * 1024);
        let calls = Arc::<Calls>::default();
        let stream = Self {
            inner: theirs,
            calls: Arc::clone(&calls),
        };
        let times = Times {
            accepted: Instant::now(),
            connected: None,
        };
        fixture.server.serve(stream, fixture.caller(1), times);
        (Client(ours), calls)
    }
}

impl Transport for Counted {
    fn cork(&self) {
        self.calls.corked.store(true, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.calls.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.calls.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
