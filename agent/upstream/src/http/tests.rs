//! What is slow, broken or endless on the way to AWS.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tower_service::Service;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_link_local_address_needs_no_proxy() {
    for url in [
        "http://169.254.169.254/latest/api/token",
        "http://[fd00:ec2::254]/latest/api/token",
        "http://[fe80::1]/",
        "http://127.0.0.1:8080/",
        "http://[::1]:8080/",
        "http://localhost/",
    ] {
        assert!(is_local(&url.parse().unwrap()), "{url}");
    }
    for url in [
        "https://eks-auth.eu-central-1.api.aws/",
        "https://10.100.0.1:443/openid/v1/jwks",
        "https://[fd00:ec3::1]/",
        "http://localhost.example/",
        "http://169.254.169.254.example/",
    ] {
        assert!(!is_local(&url.parse().unwrap()), "{url}");
    }
}

fn outbound(resolver: Resolver, proxies: Proxies) -> Outbound {
    Outbound {
        resolver,
        proxies,
        bundle: None,
    }
}

fn client(resolver: Resolver, proxies: Proxies) -> Client {
    let outbound = outbound(resolver, proxies);
    let tls = outbound.aws().unwrap();
    outbound.client(tls, None)
}

fn get(url: &str) -> Request<SdkBody> {
    Request::get(url).body(SdkBody::empty()).unwrap()
}

/// Takes connections, and hands each to a task.
async fn serve<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(handle(stream));
        }
    });
    address
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn answer(mut stream: TcpStream) {
    head(&mut stream).await;
    let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    stream.write_all(whole).await.unwrap();
    sleep(600 * SECOND).await;
}

fn reason(error: &SendError) -> String {
    super::super::words::chain(error)
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_takes_longer_than_a_client_waits_is_waited_for_once() {
    let address = serve(answer).await;
    let (resolver, asked) = resolve::tests::slow(8 * SECOND);
    let client = client(resolver, Proxies::all(""));
    let url = format!("http://slow.example:{}/", address.port());
    for _ in 0..5 {
        let given_up = timeout(SECOND, client.send(get(&url), SECOND)).await;
        assert!(given_up.is_err());
    }
    let begun = Instant::now();
    let answer = client.send(get(&url), SECOND).await.unwrap();
    assert_eq!(&answer.body()[..], b"ok");
    assert!(begun.elapsed() <= 4 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(asked.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn each_step_that_is_too_slow_is_named() {
    // Takes connections, and says nothing on them.
    let silent = serve(|stream| async move {
        let _stream = stream;
        sleep(600 * SECOND).await;
    });
    let silent = silent.await;
    let (quick, _) = resolve::tests::slow(Duration::ZERO);
    let (slow, _) = resolve::tests::slow(60 * SECOND);
    let (none, proxied) = (Proxies::all(""), Proxies::all(&silent.to_string()));
    let port = silent.port();
    for (resolver, proxies, url, words) in [
        (
            &slow,
            &none,
            "https://a.example/",
            "looking up a.example took longer than 10s",
        ),
        (
            &quick,
            &none,
            &*format!("https://a.example:{port}/"),
            &*format!("the TLS handshake with a.example:{port} took longer than 10s"),
        ),
        (
            &quick,
            &proxied,
            "https://b.example/",
            &*format!("the proxy {silent}, asked for b.example:443, took longer than 10s"),
        ),
        (
            &quick,
            &none,
            &*format!("http://c.example:{port}/"),
            "c.example has not answered within 1s",
        ),
    ] {
        let client = client(resolver.clone(), proxies.clone());
        let error = client.send(get(url), SECOND).await.unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(reason(&error), words);
    }
}

#[tokio::test]
async fn a_step_that_fails_at_once_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let (resolver, _) = resolve::tests::slow(Duration::ZERO);
    let client = client(resolver, Proxies::all(""));
    let error = client
        .send(get(&format!("http://{address}/")), SECOND)
        .await;
    let error = reason(&error.unwrap_err());
    assert!(
        error.contains(&format!("connecting to {address} failed")),
        "{error}"
    );
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_too_late_for_one_request_serves_the_next() {
    let taken = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&taken);
    let address = serve(move |stream| {
        counter.fetch_add(1, Relaxed);
        answer(stream)
    });
    let uri: Uri = format!("http://a.example:{}/", address.await.port())
        .parse()
        .unwrap();
    let (resolver, _) = resolve::tests::slow(3 * SECOND);
    let tls = outbound(resolver.clone(), Proxies::all("")).aws().unwrap();
    let mut connect = Connect::new(resolver, None, tls, StepTimeouts::default());
    assert!(timeout(SECOND, connect.call(uri.clone())).await.is_err());
    sleep(5 * SECOND).await;
    assert_eq!(taken.load(Relaxed), 1, "nobody waited, and there it is");
    let kept = timeout(SECOND / 10, connect.call(uri.clone())).await;
    assert!(kept.unwrap().is_ok());
    connect.call(uri).await.unwrap();
    // The second one is of its own.
    let second = async {
        while taken.load(Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(60 * SECOND, second).await.unwrap();
}

/// Says `head`, and then bytes without end.
async fn endless(mut stream: TcpStream, start: &'static [u8]) {
    head(&mut stream).await;
    stream.write_all(start).await.unwrap();
    while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let starts: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 200 OK\r\n\r\n", "larger than"),
        (
            b"HTTP/1.1 500 Oh\r\ncontent-length: 99999999\r\n\r\n",
            "larger than",
        ),
        (b"HTTP/1.1 200 OK\r\nx: ", "head is too large"),
        (b"", "invalid"),
    ];
    for (start, words) in starts {
        let address = serve(move |stream| endless(stream, start)).await;
        let (resolver, _) = resolve::tests::slow(Duration::ZERO);
        let client = client(resolver, Proxies::all(""));
        let answer = client.send(get(&format!("http://{address}/")), 20 * SECOND);
        let error = answer.await.unwrap_err();
        let error = reason(&error);
        assert!(error.to_lowercase().contains(words), "{start:?}: {error}");
    }
}

#[tokio::test]
async fn a_proxy_whose_answer_has_no_end_is_given_up() {
    let proxy = serve(|stream| endless(stream, b"HTTP/1.1 200 OK\r\nx: ")).await;
    let (resolver, _) = resolve::tests::slow(Duration::ZERO);
    let client = client(resolver, Proxies::all(&format!("http://{proxy}")));
    let answer = client.send(get("https://a.example/"), SECOND).await;
    let error = reason(&answer.unwrap_err());
    assert!(error.contains("headers too long"), "{error}");
}

#[tokio::test]
async fn a_socks_proxy_is_spoken_to_in_its_own_words() {
    let proxy = serve(|mut stream| async move {
        let mut hello = [0; 3];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello, [5, 1, 0]);
        stream.write_all(&[5, 0]).await.unwrap();
        let mut wish = [0; 5 + 9 + 2];
        stream.read_exact(&mut wish).await.unwrap();
        assert_eq!(&wish[5..14], b"a.example");
        stream
            .write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80])
            .await
            .unwrap();
        answer(stream).await;
    });
    let (resolver, asked) = resolve::tests::slow(Duration::ZERO);
    let proxies = Proxies::all(&format!("socks5h://{}", proxy.await));
    let client = client(resolver, proxies);
    let answer = client.send(get("http://a.example/"), SECOND);
    assert_eq!(&answer.await.unwrap().body()[..], b"ok");
    assert_eq!(asked.load(Relaxed), 0, "the proxy looks the name up");
}
