//! The in-pod listeners: one task on the serving runtime accepts for all of them.

use std::{
    io,
    net::TcpListener,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use prometheus::{IntCounter, IntGauge};
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    task::{JoinHandle, coop::consume_budget},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    accept::{EXHAUSTED_PAUSE, Trouble, guarded},
    listener::{BACKLOG, Listener},
    metrics::{Counted, Metrics},
    poll_set::{Batch, Key, Membership, PollSet},
};

/// How often the end is put off for resources that ran out: a second in all.
const LAST_PAUSES: u32 = 20;

/// Takes a connection, and the cookie of the network namespace of the listener that accepted it. Called on the serving
/// runtime; must not block.
pub(super) type OnStream = Box<dyn Fn(TcpStream, u64) + Send + Sync>;

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
    /// Begins to accept on `serving`, with the cookie of the listener's network namespace for each connection. There are
    /// no listeners yet.
    pub(super) fn start(accept: OnStream, metrics: &Metrics, serving: &Handle) -> io::Result<Self> {
        let _context = serving.enter();
        let set = Arc::new(PollSet::new()?);
        let stop = CancellationToken::new();
        let task = Task {
            set: Arc::clone(&set),
            stop: stop.clone(),
            accept,
            errors: metrics.errors.clone(),
        };
        Ok(Self {
            set,
            stop,
            task: serving.spawn(task.run()),
            count: metrics.listeners.clone(),
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
    accept: OnStream,
    errors: IntCounter,
}

impl Task {
    async fn run(self) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                batch = self.set.ready() => match batch {
                    Ok(batch) => self.accept_from(&batch).await,
                    Err(error) => {
                        self.errors.inc();
                        tracing::error!(%error, "cannot wait for connections; trying again");
                        sleep(EXHAUSTED_PAUSE).await;
                    }
                },
            }
        }
        self.accept_the_rest().await;
    }

    /// Accepts one connection for each listener, so that no pod waits for another that floods.
    async fn accept_from(&self, batch: &Batch) {
        let mut is_exhausted = false;
        for key in batch.keys() {
            is_exhausted |= self.accept(key) == Err(Trouble::Machine);
            consume_budget().await;
        }
        if is_exhausted {
            sleep(EXHAUSTED_PAUSE).await;
        }
    }

    /// Accepts what waits in the backlogs. More than they hold has come since, from somebody who floods.
    async fn accept_the_rest(&self) {
        let mut pauses = LAST_PAUSES;
        for key in self.set.keys() {
            for _ in 0..=BACKLOG {
                match self.accept(key) {
                    Ok(()) | Err(Trouble::Connection) => {}
                    Err(Trouble::Machine) if pauses > 0 => {
                        pauses -= 1;
                        sleep(EXHAUSTED_PAUSE).await;
                    }
                    Err(Trouble::None | Trouble::Machine | Trouble::Listener) => break,
                }
                consume_budget().await;
            }
        }
    }

    /// Accepts one connection, and closes a listener that is dead.
    fn accept(&self, key: Key) -> Result<(), Trouble> {
        // It may have been closed a moment ago.
        let listener = self.set.get(key).ok_or(Trouble::None)?;
        let netns = listener.netns;
        // That the caller's address is asked for makes the kernel run the program that identifies the caller.
        let accepted = acceptfrom_with(&*listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
        drop(listener);
        match accepted.map_err(io::Error::from) {
            Ok((stream, _caller)) => {
                self.pass_on(stream.into(), netns);
                Ok(())
            }
            Err(error) => {
                let trouble = Trouble::of(&error);
                if matches!(trouble, Trouble::Machine | Trouble::Listener) {
                    self.errors.inc();
                }
                if trouble == Trouble::Listener {
                    tracing::warn!(%error, "a listener is dead: it will be opened anew");
                    self.set.remove(key);
                }
                Err(trouble)
            }
        }
    }

    fn pass_on(&self, stream: std::net::TcpStream, netns: u64) {
        guarded(&self.errors, || match TcpStream::from_std(stream) {
            Ok(stream) => (self.accept)(stream, netns),
            Err(error) => {
                self.errors.inc();
                tracing::debug!(%error, "a connection cannot be served");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::{Ipv4Addr, Shutdown, SocketAddr},
        sync::atomic::{AtomicUsize, Ordering},
        time::{Duration, Instant},
    };

    use prometheus::Registry;
    use socket2::SockRef;
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    /// More than are told of at once.
    const LISTENERS: u64 = 40;
    /// How many wait for each listener.
    const WAITING: usize = 5;
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Listeners on addresses of this machine, numbered by what stands for their namespaces' cookies.
    fn serve(listeners: &Listeners, count: u64) -> Vec<(Served, TcpListener)> {
        let serve = |netns| {
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let copy = socket.try_clone().unwrap();
            let port = socket.local_addr().unwrap().port();
            let listener = Listener {
                socket,
                port,
                netns,
            };
            (listeners.serve(listener).unwrap(), copy)
        };
        (0..count).map(serve).collect()
    }

    fn connect(listener: &TcpListener, count: usize) -> Vec<std::net::TcpStream> {
        let address: SocketAddr = listener.local_addr().unwrap();
        let connect = |_| std::net::TcpStream::connect(address).unwrap();
        let clients = (0..count).map(connect).collect();
        wait_for(listener, count);
        clients
    }

    /// Waits until so many wait for a listener. The end of a handshake may be late.
    fn wait_for(listener: &TcpListener, count: usize) {
        let port = format!(":{:04X}", listener.local_addr().unwrap().port());
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The fifth field of one that listens (0A) ends with how many wait.
            let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
            let waiting = table.lines().find_map(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                let is_it = fields[1].ends_with(&port) && fields[3] == "0A";
                is_it.then(|| usize::from_str_radix(&fields[4][9..], 16).unwrap())
            });
            if waiting == Some(count) {
                return;
            }
            assert!(Instant::now() < deadline, "{waiting:?} wait, not {count}");
        }
    }

    fn start(accept: OnStream) -> (Listeners, Metrics) {
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let listeners = Listeners::start(accept, &metrics, &Handle::current()).unwrap();
        (listeners, metrics)
    }

    /// Sends what is accepted to the test.
    fn collect() -> (OnStream, mpsc::UnboundedReceiver<u64>) {
        let (sender, accepted) = mpsc::unbounded_channel();
        let accept = Box::new(move |_, netns| sender.send(netns).unwrap());
        (accept, accepted)
    }

    #[tokio::test]
    async fn what_waits_is_accepted_before_the_end() {
        let (accept, accepted) = collect();
        let (mut listeners, metrics) = start(accept);
        let served = serve(&listeners, LISTENERS);
        let _clients: Vec<_> = served
            .iter()
            .map(|(_, listener)| connect(listener, WAITING))
            .collect();
        assert_eq!(metrics.listeners.get(), LISTENERS.cast_signed());
        // The task has not run yet: nothing has been awaited.
        assert_eq!(accepted.len(), 0);
        timeout(PATIENCE, listeners.drain()).await.unwrap();
        assert_eq!(accepted.len(), LISTENERS as usize * WAITING);
        drop(served);
        assert_eq!(metrics.listeners.get(), 0);
    }

    #[tokio::test]
    async fn who_floods_has_one_turn_at_a_time() {
        let (accept, mut accepted) = collect();
        let (listeners, _) = start(accept);
        let served = serve(&listeners, 3);
        let _flood = connect(&served[0].1, 50);
        let _quiet = [1, 2].map(|quiet| connect(&served[quiet].1, 1));
        let mut first = Vec::new();
        for _ in 0..3 {
            let next = timeout(PATIENCE, accepted.recv()).await.unwrap();
            first.push(next.unwrap());
        }
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_connection_that_makes_us_panic_costs_nobody_else() {
        let passed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&passed);
        let (mut listeners, metrics) = start(Box::new(move |_, netns| {
            assert_ne!(netns, 0, "the mistake");
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        let served = serve(&listeners, 2);
        let _clients = [0, 1].map(|of| connect(&served[of].1, WAITING));
        timeout(PATIENCE, listeners.drain()).await.unwrap();
        assert_eq!(passed.load(Ordering::Relaxed), WAITING);
        assert_eq!(metrics.errors.get(), WAITING as u64);
    }

    #[tokio::test]
    async fn a_listener_that_is_dead_is_closed() {
        let (accept, mut accepted) = collect();
        let (listeners, metrics) = start(accept);
        let served = serve(&listeners, 2);
        SockRef::from(&served[0].1)
            .shutdown(Shutdown::Both)
            .unwrap();
        let _client = connect(&served[1].1, 1);
        let accepted = timeout(PATIENCE, accepted.recv()).await.unwrap();
        assert_eq!(accepted, Some(1));
        let dies = async {
            while !served[0].0.is_dead() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, dies).await.unwrap();
        assert!(!served[1].0.is_dead());
        assert_eq!((metrics.listeners.get(), metrics.errors.get()), (1, 1));
    }
}
