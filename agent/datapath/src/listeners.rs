//! The in-pod listeners: one task on the serving runtime accepts for all of them.

pub(crate) mod listener;
mod ports;
pub(crate) mod reachability;

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use podcreds_types::{Vitals, restarted};
use prometheus::{IntCounter, IntGauge};
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::oneshot,
    task::{JoinHandle, coop::consume_budget, yield_now},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    listener::{BACKLOG, Listener},
    reachability::Expected,
};
use super::{
    accept::{AcceptFailure, EXHAUSTED_PAUSE, guarded},
    metrics::{Counted, Metrics},
    poll_set::{Batch, Key, PollSet, PolledSocket},
    programs::held_ports::HeldPort,
};

/// What the task does, where it is to be named.
const ACCEPTING: &str = "accepting pods' connections";

/// How often the end is put off for resources that ran out: a second in all.
const LAST_PAUSES: u32 = 20;

/// How many connections are accepted before those that are open have their turn.
const TURN: usize = 32;

/// Takes a connection, and the cookie of the network namespace of the listener that accepted it.
/// Called on the serving runtime; must not block.
pub(super) type OnStream = Box<dyn Fn(TcpStream, u64) + Send + Sync>;

/// Takes the cookie of the network namespace in which a listener has died. Called on the serving
/// runtime; must not block.
pub(super) type OnDeath = Box<dyn Fn(u64) + Send + Sync>;

/// A connection, and where it comes from.
pub(super) type Taken = (std::net::TcpStream, Option<SocketAddr>);

/// Takes one connection from a listener, without waiting.
pub(super) type Take = Box<dyn Fn(&TcpListener) -> io::Result<Taken> + Send + Sync>;

/// A listener that is being served. Dropping it closes the listener.
pub(super) struct ListenerGuard {
    open: PolledSocket<ServedListener>,
    expected: Expected,
}

/// All in-pod listeners.
pub(super) struct Listeners {
    set: Arc<PollSet<ServedListener>>,
    /// What is not passed on.
    expected: Expected,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// How many are open.
    count: IntGauge,
}

/// An open listener.
struct ServedListener {
    socket: TcpListener,
    /// The cookie of its network namespace.
    netns: u64,
    _held: Option<HeldPort>,
    _counted: Counted,
}

impl AsFd for ServedListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listeners {
    /// Begins to accept with [`take`] on `serving`, and passes each connection on with the cookie
    /// of its listener's network namespace. There are no listeners yet.
    pub(super) fn start(
        take: Take,
        accept: OnStream,
        on_death: OnDeath,
        metrics: &Metrics,
        serving: &Handle,
        vitals: &Vitals,
    ) -> io::Result<Self> {
        let _context = serving.enter();
        let set = Arc::new(PollSet::new()?);
        let (stop, expected) = (CancellationToken::new(), Expected::default());
        let task = AcceptTask {
            set: Arc::clone(&set),
            expected: expected.clone(),
            resting: Mutex::default(),
            stop: stop.clone(),
            take,
            accept,
            on_death,
            errors: metrics.errors.clone(),
        };
        let vital = vitals.task(ACCEPTING);
        Ok(Self {
            set,
            expected,
            stop,
            task: serving.spawn(async move { restarted(vital, ACCEPTING, || task.run()).await }),
            count: metrics.listeners.clone(),
        })
    }

    /// Accepts for this listener as well from now on.
    pub(super) fn serve(&self, listener: Listener) -> io::Result<ListenerGuard> {
        let open = self.set.add(ServedListener {
            socket: listener.socket,
            netns: listener.netns,
            _held: listener.held,
            _counted: Counted::in_gauge(&self.count),
        })?;
        let expected = self.expected.clone();
        Ok(ListenerGuard { open, expected })
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

impl ListenerGuard {
    /// Whether the listener is gone. A process with `CAP_NET_ADMIN` in its namespace can destroy
    /// it.
    pub(super) fn is_dead(&self) -> bool {
        !self.open.is_valid()
    }

    /// Has the listener expect a connection of the agent's own, from this port. What is returned
    /// hears of it.
    pub(super) fn expect(&self, port: u16) -> oneshot::Receiver<()> {
        self.expected.expect(self.open.key(), port)
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        self.expected.forget(self.open.key());
    }
}

/// The task that accepts.
struct AcceptTask {
    set: Arc<PollSet<ServedListener>>,
    expected: Expected,
    /// Listeners from which nothing can be accepted for now, and until when. The first is due
    /// first.
    resting: Mutex<VecDeque<(Instant, Key)>>,
    stop: CancellationToken,
    take: Take,
    accept: OnStream,
    on_death: OnDeath,
    errors: IntCounter,
}

impl AcceptTask {
    async fn run(&self) {
        let mut accepted = 0;
        loop {
            let rested = self.resting().front().map(|(until, _)| *until);
            tokio::select! {
                // In this order: there may always be more to accept.
                biased;
                () = self.stop.cancelled() => break,
                () = wait_until(rested) => self.wake_up(),
                batch = self.set.ready() => match batch {
                    Ok(batch) => accepted += self.accept_from(&batch),
                    Err(error) => {
                        self.errors.inc();
                        tracing::error!(%error, "cannot wait for connections; trying again");
                        sleep(EXHAUSTED_PAUSE).await;
                    }
                },
            }
            if accepted >= TURN {
                accepted = 0;
                yield_now().await;
            }
        }
        self.accept_the_rest().await;
    }

    /// Accepts one connection for each listener, so that no pod waits for another that floods.
    /// Returns how many have been tried.
    fn accept_from(&self, batch: &Batch) -> usize {
        let mut tried = 0;
        for key in batch.keys() {
            tried += 1;
            if self.accept(key) == Err(AcceptFailure::Machine) {
                self.rest(key);
            }
        }
        tried
    }

    /// Leaves a listener alone for a while, and no other: what its connections lack, others may
    /// have.
    fn rest(&self, key: Key) {
        self.set.pause(key);
        let until = Instant::now() + EXHAUSTED_PAUSE;
        self.resting().push_back((until, key));
    }

    /// Tries the listeners again that have been left alone for long enough.
    fn wake_up(&self) {
        let now = Instant::now();
        let mut resting = self.resting();
        while let Some((_, key)) = resting.pop_front_if(|(until, _)| *until <= now) {
            self.set.resume(key);
        }
    }

    fn resting(&self) -> MutexGuard<'_, VecDeque<(Instant, Key)>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts what waits in the backlogs. What nothing can be accepted from is tried again after
    /// all others.
    async fn accept_the_rest(&self) {
        let mut keys = self.set.keys();
        for _ in 0..=LAST_PAUSES {
            let mut again = Vec::new();
            for key in keys {
                if !self.empty(key).await {
                    again.push(key);
                }
            }
            if again.is_empty() {
                return;
            }
            keys = again;
            sleep(EXHAUSTED_PAUSE).await;
        }
    }

    /// Accepts what waits in a backlog, and says whether that was possible. More than it holds has
    /// come since, in a flood.
    async fn empty(&self, key: Key) -> bool {
        for _ in 0..=BACKLOG {
            match self.accept(key) {
                Ok(()) | Err(AcceptFailure::Connection) => {}
                Err(AcceptFailure::Machine) => return false,
                Err(AcceptFailure::None | AcceptFailure::Listener) => return true,
            }
            consume_budget().await;
        }
        true
    }

    /// Accepts one connection, and closes a listener that is dead.
    fn accept(&self, key: Key) -> Result<(), AcceptFailure> {
        // It may have been closed a moment ago.
        let listener = self.set.get(key).ok_or(AcceptFailure::None)?;
        let netns = listener.netns;
        let taken = (self.take)(&listener.socket);
        let taken = taken.map_err(|error| (trouble_with(&listener.socket, &error), error));
        let is_own = |peer: SocketAddr| self.expected.is_own(key, peer.port());
        let taken = taken.map(|(stream, peer)| (stream, peer.is_some_and(is_own)));
        drop(listener);
        match taken {
            Ok((_, true)) => Ok(()),
            Ok((stream, false)) => {
                self.pass_on(stream, netns);
                Ok(())
            }
            Err((trouble, error)) => {
                if matches!(trouble, AcceptFailure::Machine | AcceptFailure::Listener) {
                    self.errors.inc();
                }
                if trouble == AcceptFailure::Listener {
                    tracing::warn!(%error, "a listener is dead: it will be opened again");
                    self.set.remove(key);
                    (self.on_death)(netns);
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

/// Accepts a connection. That the caller's address is asked for makes the kernel run the program
/// that identifies the caller.
pub(super) fn take(listener: &TcpListener) -> io::Result<Taken> {
    let (stream, peer) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer: SocketAddrAny| SocketAddr::try_from(peer).ok());
    Ok((stream.into(), peer))
}

fn trouble_with(listener: &TcpListener, error: &io::Error) -> AcceptFailure {
    let trouble = AcceptFailure::of(error);
    // The kernel reports the machine's trouble first, which may hide that the listener is dead.
    let is_dead = || matches!(SockRef::from(listener).is_listener(), Ok(false));
    if trouble == AcceptFailure::Machine && is_dead() {
        return AcceptFailure::Listener;
    }
    trouble
}

async fn wait_until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
