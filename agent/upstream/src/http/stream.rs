//! What a connection runs over.

use std::{
    fmt,
    future::{Ready, ready},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection as Pooled},
    rt::TokioIo,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;
use tower_service::Service;

/// TCP, a tunnel through a proxy, or TLS over one of these.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> ByteStream for T {}

/// A connection for hyper's pool.
pub(super) struct PooledConnection {
    stream: TokioIo<Box<dyn ByteStream>>,
    is_http2: bool,
    /// A proxy at the other end forwards single requests.
    is_forwarded: bool,
}

impl PooledConnection {
    /// Speaks HTTP/1 to who is asked.
    pub(super) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self {
            stream: TokioIo::new(stream),
            is_http2: false,
            is_forwarded: false,
        }
    }

    /// Speaks HTTP/1 to a proxy, which forwards what it is asked.
    pub(super) fn to_forward(stream: Box<dyn ByteStream>) -> Self {
        Self {
            is_forwarded: true,
            ..Self::new(stream)
        }
    }

    /// Speaks the protocol that TLS has negotiated.
    pub(super) fn encrypted(stream: TlsStream<Box<dyn ByteStream>>) -> Self {
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Self {
            is_http2,
            ..Self::new(Box::new(stream))
        }
    }

    pub(super) fn into_stream(self) -> Box<dyn ByteStream> {
        self.stream.into_inner()
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PooledConnection")
    }
}

impl Pooled for PooledConnection {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.is_forwarded);
        match self.is_http2 {
            true => connected.negotiated_h2(),
            false => connected,
        }
    }
}

impl Read for PooledConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for PooledConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connector that has connected already: it gives its stream to the first who asks.
pub(super) struct Given(Option<TokioIo<Box<dyn ByteStream>>>);

impl Given {
    pub(super) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self(Some(TokioIo::new(stream)))
    }
}

impl Service<Uri> for Given {
    type Response = TokioIo<Box<dyn ByteStream>>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(
            self.0
                .take()
                .ok_or_else(|| io::ErrorKind::NotConnected.into()),
        )
    }
}
