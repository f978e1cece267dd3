//! The socket as hyper sees it: patient with slow clients, but not for ever.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::{connection_state::ConnectionState, road::Roads};

/// What a connection runs over.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Keeps what is written from here on until the connection is closed, or for a moment.
    fn cork(&self) {}
}

impl Transport for TcpStream {
    fn cork(&self) {
        // Where it fails, the answer goes out by itself and the end of the connection after it.
        let _corked = SockRef::from(self).set_tcp_cork(true);
    }
}

/// A stream that fails when its peer takes too long to read.
///
/// The time runs from the first write that the socket does not take until everything is written:
/// a peer that reads a byte now and then gains nothing.
pub(super) struct TimedStream<S> {
    inner: S,
    state: Arc<ConnectionState>,
    roads: Roads,
    write_timeout: Duration,
    /// Set while a write is waiting for the peer.
    stalled: Option<Pin<Box<Sleep>>>,
    corked: bool,
}

impl<S: Transport> TimedStream<S> {
    pub(super) fn new(
        inner: S,
        state: Arc<ConnectionState>,
        roads: Roads,
        write_timeout: Duration,
    ) -> Self {
        Self {
            inner,
            state,
            roads,
            write_timeout,
            stalled: None,
            corked: false,
        }
    }

    /// Lets the connection's last answer and its end leave in one segment: that saves the kernel,
    /// and the client, a fifth of the work for a connection.
    fn cork_last_answer(&mut self) {
        if !self.corked && self.state.is_ending() {
            self.corked = true;
            self.inner.cork();
        }
    }

    /// A write did not get through: wait for the peer, or for the time to run out.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.state.stall();
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S> Drop for TimedStream<S> {
    /// An answer that the peer did not take has come to an end as well.
    fn drop(&mut self) {
        if let Some((road, status)) = self.state.never_written() {
            self.roads.ended(road, status);
        }
    }
}

impl<S: Transport> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.state.bytes_arrived();
        }
        result
    }
}

impl<S: Transport> AsyncWrite for TimedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.cork_last_answer();
        match Pin::new(&mut self.inner).poll_write(cx, bytes) {
            Poll::Pending => self.poll_stalled(cx),
            written => written,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.cork_last_answer();
        match Pin::new(&mut self.inner).poll_write_vectored(cx, slices) {
            Poll::Pending => self.poll_stalled(cx),
            written => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes when it has nothing more to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stalled = None;
        if let Some((road, status)) = self.state.written() {
            self.roads.ended(road, status);
        }
        if self.state.flushed() {
            cx.waker().wake_by_ref();
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Does nothing: the stream is dropped next, and `close` says the same to the peer as
    /// `shutdown` would have, in one system call instead of two.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        net::TcpListener,
        time::{Instant, timeout},
    };

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    impl Transport for DuplexStream {}

    fn roads() -> Roads {
        Roads::register(&Registry::new()).unwrap()
    }

    #[tokio::test]
    async fn a_sockets_cork_is_the_kernels() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let client = client.await.unwrap();
        assert!(!SockRef::from(&client).tcp_cork().unwrap());
        client.cork();
        assert!(SockRef::from(&client).tcp_cork().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let (ours, _theirs) = duplex(16);
        let mut stream = TimedStream::new(ours, Arc::default(), roads(), TIMEOUT);
        let begun = Instant::now();
        let written = timeout(2 * TIMEOUT, stream.write_all(&[0; 17])).await;
        let error = written.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_trickles_gains_nothing() {
        let (ours, mut theirs) = duplex(16);
        let mut stream = TimedStream::new(ours, Arc::default(), roads(), TIMEOUT);
        let trickle = tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                sleep(TIMEOUT / 3).await;
            }
        });
        let written = timeout(2 * TIMEOUT, stream.write_all(&[0; 100])).await;
        let error = written.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        trickle.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_catches_up_starts_afresh() {
        let (ours, mut theirs) = duplex(16);
        let mut stream = TimedStream::new(ours, Arc::default(), roads(), TIMEOUT);
        for _ in 0..3 {
            let late = async {
                sleep(TIMEOUT * 2 / 3).await;
                let mut buffer = [0; 32];
                theirs.read_exact(&mut buffer).await.unwrap();
            };
            let write = async {
                stream.write_all(&[0; 32]).await.unwrap();
                stream.flush().await.unwrap();
            };
            tokio::join!(late, write);
        }
    }

    #[tokio::test]
    async fn the_state_tells_idle_from_late() {
        let (ours, mut theirs) = duplex(16);
        let state = Arc::new(ConnectionState::default());
        let mut stream = TimedStream::new(ours, Arc::clone(&state), roads(), TIMEOUT);
        assert!(state.is_new() && state.is_behind());
        theirs.write_all(b"head").await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
        assert!(state.head_arrived());
        assert!(!state.is_new() && !state.is_behind());
        theirs.write_all(b"hea").await.unwrap();
        stream.read_exact(&mut [0; 3]).await.unwrap();
        assert!(state.is_behind());
        assert!(!state.head_arrived());
    }
}
