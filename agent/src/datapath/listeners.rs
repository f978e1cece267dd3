//! The in-pod listeners: one task on the serving runtime accepts for all of them.

use std::{
    io,
    net::TcpListener,
    os::fd::{AsFd, BorrowedFd},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures_util::FutureExt as _;
use prometheus::IntGauge;
use tokio::{
    net::TcpStream,
    runtime::Handle,
    task::{JoinHandle, coop::consume_budget},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    accept::{Acceptor, EXHAUSTED_PAUSE, Trouble},
    listener::Listener,
    metrics::Counted,
    poll_set::{Batch, Key, Membership, PollSet},
};

/// A listener that is being served. Dropping it closes the listener.
pub(super) struct Served(Membership<Open>);

/// All in-pod listeners.
pub(super) struct Listeners {
    set: Arc<PollSet<Open>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// How many are open.
    count: IntGauge,
}

/// An open listener.
struct Open {
    socket: TcpListener,
    /// The cookie of its network namespace.
    netns: u64,
    _counted: Counted,
}

impl AsFd for Open {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listeners {
    /// Begins to accept on `serving`. There are no listeners yet.
    pub(super) fn start(acceptor: Arc<Acceptor>, serving: &Handle) -> io::Result<Self> {
        let _context = serving.enter();
        let set = Arc::new(PollSet::new()?);
        let stop = CancellationToken::new();
        let count = acceptor.metrics.listeners.clone();
        let task = Task {
            set: Arc::clone(&set),
            stop: stop.clone(),
            acceptor,
        };
        Ok(Self {
            set,
            stop,
            task: serving.spawn(task.survive()),
            count,
        })
    }

    /// Accepts for this listener as well from now on.
    pub(super) fn serve(&self, listener: Listener) -> io::Result<Served> {
        let open = Open {
            socket: listener.socket,
            netns: listener.netns,
            _counted: Counted::in_gauge(&self.count),
        };
        self.set.add(open).map(Served)
    }

    /// Accepts what waits in the backlogs, and then nothing more.
    pub(super) async fn drain(&mut self) {
        self.stop.cancel();
        // An error means that the runtime is going down.
        let _ended = (&mut self.task).await;
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    /// Whether the listener is gone. Who has `CAP_NET_ADMIN` in its namespace can destroy it.
    pub(super) fn is_dead(&self) -> bool {
        !self.0.is_valid()
    }
}

/// The task that accepts.
struct Task {
    set: Arc<PollSet<Open>>,
    stop: CancellationToken,
    acceptor: Arc<Acceptor>,
}

impl Task {
    /// Accepts until told to stop. A mistake that shows in one connection must not cost the pods all others.
    async fn survive(self) {
        while AssertUnwindSafe(self.run()).catch_unwind().await.is_err() {
            self.acceptor.metrics.errors.inc();
            tracing::error!("accepting a connection has panicked: it is dropped");
        }
    }

    async fn run(&self) {
        let end = loop {
            tokio::select! {
                biased;
                batch = self.set.ready() => match batch {
                    Ok(batch) => self.accept(&batch).await,
                    Err(error) => break Err(error),
                },
                () = self.stop.cancelled() => break self.accept_the_rest().await,
            }
        };
        if let Err(error) = end {
            self.acceptor.metrics.errors.inc();
            tracing::error!(%error, "the listeners can no longer be served");
        }
    }

    async fn accept_the_rest(&self) -> io::Result<()> {
        loop {
            let batch = self.set.poll()?;
            if batch.is_empty() {
                return Ok(());
            }
            self.accept(&batch).await;
        }
    }

    /// Accepts one connection for each listener, so that no pod waits for another that floods.
    async fn accept(&self, batch: &Batch) {
        let metrics = &self.acceptor.metrics;
        for key in batch.keys() {
            match self
                .accept_one(key)
                .map_err(|error| (Trouble::of(&error), error))
            {
                Ok(()) | Err((Trouble::Connection, _)) => {}
                Err((Trouble::Machine, _)) => {
                    metrics.errors.inc();
                    sleep(EXHAUSTED_PAUSE).await;
                }
                Err((Trouble::Listener, error)) => {
                    metrics.errors.inc();
                    tracing::warn!(%error, "a listener is dead: it will be opened anew");
                    self.set.remove(key);
                }
            }
            consume_budget().await;
        }
    }

    fn accept_one(&self, key: Key) -> io::Result<()> {
        // It may have been closed a moment ago.
        let Some(listener) = self.set.get(key) else {
            return Ok(());
        };
        let netns = listener.netns;
        // That the caller's address is asked for makes the kernel run the program that identifies the caller.
        let (stream, _caller) = listener.socket.accept()?;
        drop(listener);
        stream.set_nonblocking(true)?;
        self.acceptor.pass_on(TcpStream::from_std(stream)?, netns);
        Ok(())
    }
}
