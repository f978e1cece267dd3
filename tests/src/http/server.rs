//! A hyper server on a thread of its own, so that tests need no runtime.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::sync::oneshot;

/// The body of an answer, which may break off.
pub type Body = BoxBody<Bytes, io::Error>;

/// What a handler does with a request.
pub enum Action {
    /// Answer it.
    Answer(Response<Body>),
    /// Reset the connection (RST, not FIN) without an answer.
    Reset,
}

/// Answers requests; see [`Server::start`].
pub trait Handler: Send + Sync + 'static {
    /// Handles one request, whose body has been read.
    fn handle(self: Arc<Self>, request: Request<Bytes>) -> BoxFuture<'static, Action>;
}

/// A running server. It stops, and its connections are closed, when it is dropped.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// When the machine gives no port, thread or runtime.
    pub fn start(name: &str, handler: Arc<dyn Handler>) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), name, handler)
    }

    /// Serves at an address.
    ///
    /// # Panics
    ///
    /// When it is taken, or the machine gives no thread or runtime.
    pub fn start_at(address: SocketAddr, name: &str, handler: Arc<dyn Handler>) -> Self {
        let listener = TcpListener::bind(address)
            .unwrap_or_else(|why| panic!("cannot listen at {address}: {why}"));
        listener
            .set_nonblocking(true)
            .expect("a non-blocking listener");
        let address = listener.local_addr().expect("the listener's address");
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(listener, handler, stopped))
            .expect("a thread for the server");
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been printed already.
            let _ = thread.join();
        }
    }
}

fn run(listener: TcpListener, handler: Arc<dyn Handler>, stopped: oneshot::Receiver<Infallible>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for the server");
    // Leaving block_on ends the connections' tasks along with the runtime.
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a tokio listener");
        tokio::select! {
            () = accept(listener, handler) => {}
            _ = stopped => {}
        }
    });
}

async fn accept(listener: tokio::net::TcpListener, handler: Arc<dyn Handler>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&handler)));
            }
            // Out of descriptors, most likely: let the open connections finish.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(stream: tokio::net::TcpStream, handler: Arc<dyn Handler>) {
    let Ok(stream) = stream.into_std() else {
        return;
    };
    // A second descriptor of the same socket, by which the handler's reset reaches it.
    let (Ok(second), Ok(stream)) = (stream.try_clone(), tokio::net::TcpStream::from_std(stream))
    else {
        return;
    };
    let second = &second;
    let service = service_fn(move |request: Request<Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            match handler.handle(Request::from_parts(head, body)).await {
                Action::Answer(response) => Ok(response),
                Action::Reset => {
                    SockRef::from(second).set_linger(Some(Duration::ZERO))?;
                    Err(io::Error::from(io::ErrorKind::ConnectionReset))
                }
            }
        }
    });
    // Errors are the client's business, or were asked for.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A whole body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed()
}

/// An answer that promises all of `bytes`, and breaks off in the middle.
pub fn truncated(bytes: &Bytes) -> Response<Body> {
    let half = Frame::data(bytes.slice(..bytes.len() / 2));
    let end = Err(io::Error::from(io::ErrorKind::ConnectionAborted));
    let body = StreamBody::new(stream::iter([Ok(half), end]));
    let mut response = Response::new(BodyExt::boxed(body));
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    response
}
