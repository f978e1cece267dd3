//! The node path: ordinary listeners on the host, for callers that no program redirects.

pub(crate) mod lending;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use podcreds_types::{Evidence, Vitals, restarted};
use socket2::{SockFilter, SockRef};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, coop::consume_budget, spawn_blocking, yield_now},
    time::sleep,
};

use super::{
    Accepted, DatapathError, Lending, Metrics, OnAccept,
    accept::{AcceptFailure, EXHAUSTED_PAUSE, guarded},
    listeners::listener::{BACKLOG, socket_for},
    metrics::Counted,
};

/// How soon an address that cannot be listened on is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the end is put off for resources that ran out: a second in all.
const LAST_PAUSES: u32 = 20;
/// How long to wait until who has been admitted to a listener is in its backlog. There is only the
/// node's own network in between, which takes microseconds.
const HANDSHAKE: Duration = Duration::from_millis(10);
/// How many connections are accepted before those that are open have their turn.
const TURN: usize = 32;

/// Listeners on addresses of the host. Only the token says who calls there.
///
/// In an update two agents accept from one and the same listener, so that nothing is lost when one
/// of them closes it.
pub struct NodePath {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    lending: Arc<Lending>,
}

/// Whether there must be a listener from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing else serves pods: one of the addresses must be there.
    Now,
    /// eBPF serves most of them: the addresses may come later.
    Whenever,
}

impl NodePath {
    /// Listens on `addresses`, and accepts on `serving`, in tasks that are parts of `vitals`. An
    /// address that is not there yet, or is taken, is tried again until it can be had.
    ///
    /// # Errors
    ///
    /// When there is need now, and none of the addresses can be listened on.
    pub fn start(
        addresses: &[SocketAddr],
        need: Need,
        lending: &Arc<Lending>,
        on_accept: &OnAccept,
        serving: &Handle,
        vitals: &Vitals,
        metrics: &Metrics,
    ) -> Result<Self, DatapathError> {
        let try_it = |at: &SocketAddr| (*at, listen(*at, lending));
        let tried: Vec<_> = addresses.iter().map(try_it).collect();
        if need == Need::Now && tried.iter().all(|(_, listener)| listener.is_err()) {
            return Err(nowhere(tried));
        }
        let stop = watch::Sender::new(false);
        let serve = |(address, listener)| {
            let mut node_address = NodeAddress {
                address,
                on_accept: on_accept.clone(),
                metrics: metrics.clone(),
                lending: Arc::clone(lending),
                stop: stop.subscribe(),
                first: Mutex::default(),
                last_error: Mutex::default(),
            };
            let first = node_address.note(listener);
            node_address.first = Mutex::new(first);
            let what = format!("accepting at {address}");
            let vital = vitals.task(what.clone());
            serving.spawn(async move { restarted(vital, &what, || node_address.serve()).await })
        };
        let tasks = tried.into_iter().map(serve).collect();
        Ok(Self {
            stop,
            tasks,
            lending: Arc::clone(lending),
        })
    }

    /// Accepts what waits in the backlogs, then closes the listeners. Those that another agent has
    /// too stay open.
    pub async fn stop(self, has_other_agent: bool) {
        if !has_other_agent {
            self.lending.forget_others();
        }
        self.stop.send_replace(true);
        for task in self.tasks {
            // It ends by itself; were it to panic, its listener would be closed all the same.
            let _ended = task.await;
        }
    }
}

/// One address of the node path.
struct NodeAddress {
    address: SocketAddr,
    on_accept: OnAccept,
    metrics: Metrics,
    lending: Arc<Lending>,
    stop: watch::Receiver<bool>,
    /// The listener to begin with.
    first: Mutex<Option<NodeListener>>,
    last_error: Mutex<Option<io::ErrorKind>>,
}

/// A listener at a place. As long as it is open it is counted, and lent to the next agent.
struct NodeListener {
    listener: TcpListener,
    loan: Loan,
}

/// Ends when the listener is closed, however that comes about: a lent one stays open, without an
/// agent that accepts from it.
struct Loan {
    address: SocketAddr,
    lending: Arc<Lending>,
    _in_sum: Counted,
    _on_node_path: Counted,
}

impl NodeAddress {
    /// Listens until told to stop, as soon as that is possible and whenever it is possible again.
    async fn serve(&self) {
        let mut stop = self.stop.clone();
        let mut listener = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(listener) = listener {
                pause = FIRST_PAUSE;
                self.accept(listener).await;
            }
            if *stop.borrow_and_update() {
                return;
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = stop.changed() => return,
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
            let (address, lending) = (self.address, Arc::clone(&self.lending));
            let listening = spawn_blocking(move || listen(address, &lending)).await;
            listener = self.note(listening.unwrap_or_else(|panic| Err(panic.into())));
        }
    }

    /// Says whether there is a listener. Each reason why there is none is logged once, however
    /// often it occurs.
    fn note(&self, listener: io::Result<TcpListener>) -> Option<NodeListener> {
        let mut last_error = self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match listener {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(self.address);
                tracing::info!(%address, "node path listening");
                *last_error = None;
                let loan = self.lend(&listener);
                Some(NodeListener { listener, loan })
            }
            Err(error) => {
                if *last_error != Some(error.kind()) {
                    let address = self.address;
                    tracing::warn!(%address, %error, "node path: cannot listen; trying again");
                    *last_error = Some(error.kind());
                }
                None
            }
        }
    }

    fn lend(&self, listener: &TcpListener) -> Loan {
        self.lending.set(self.address, listener.try_clone().ok());
        Loan {
            address: self.address,
            lending: Arc::clone(&self.lending),
            _in_sum: Counted::in_gauge(&self.metrics.listeners),
            _on_node_path: Counted::in_gauge(&self.metrics.node_path),
        }
    }

    /// Accepts until told to stop, or until the listener is dead.
    async fn accept(&self, NodeListener { listener, loan }: NodeListener) {
        if let Err(error) = self.accept_until_dead(listener).await {
            self.metrics.errors.inc();
            tracing::warn!(address = %self.address, %error, "node path: a listener is dead: it will be opened again");
        }
        drop(loan);
    }

    async fn accept_until_dead(&self, listener: TcpListener) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut stop = self.stop.clone();
        let mut accepted = 0;
        loop {
            let result = tokio::select! {
                // In this order: there may always be more to accept.
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                result = listener.accept() => result,
            };
            match result {
                Ok((stream, peer)) => self.pass_on(stream, peer),
                Err(error) => match AcceptFailure::of(&error) {
                    AcceptFailure::None | AcceptFailure::Connection => {}
                    AcceptFailure::Machine => {
                        self.metrics.errors.inc();
                        sleep(EXHAUSTED_PAUSE).await;
                    }
                    AcceptFailure::Listener => return Err(error),
                },
            }
            accepted += 1;
            if accepted >= TURN {
                accepted = 0;
                yield_now().await;
            }
        }
        let listener = listener.into_std()?;
        // Another agent goes on accepting from a listener that it has too.
        if self.lending.set(self.address, None) && admit_nobody_new(&listener).is_ok() {
            sleep(HANDSHAKE).await;
        }
        self.accept_the_rest(&listener).await
    }

    /// Accepts what waits in the backlog. More than it holds has come since, in a flood.
    async fn accept_the_rest(&self, listener: &TcpListener) -> io::Result<()> {
        let mut pauses = LAST_PAUSES;
        for _ in 0..=BACKLOG {
            match listener
                .accept()
                .and_then(|(stream, peer)| Ok((ready(stream)?, peer)))
            {
                Ok((stream, peer)) => self.pass_on(stream, peer),
                Err(error) => match AcceptFailure::of(&error) {
                    AcceptFailure::None => return Ok(()),
                    AcceptFailure::Connection => {}
                    AcceptFailure::Machine if pauses > 0 => {
                        pauses -= 1;
                        self.metrics.errors.inc();
                        sleep(EXHAUSTED_PAUSE).await;
                    }
                    AcceptFailure::Machine | AcceptFailure::Listener => return Err(error),
                },
            }
            consume_budget().await;
        }
        Ok(())
    }

    fn pass_on(&self, stream: TcpStream, peer: SocketAddr) {
        let accepted = Accepted {
            stream,
            evidence: Evidence::NodePath {
                peer: peer.ip().to_canonical(),
            },
            accepted: Instant::now(),
            connected: None,
        };
        guarded(&self.metrics.errors, || (self.on_accept)(accepted));
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.lending.set(self.address, None);
    }
}

/// Makes a stream one of this runtime's.
fn ready(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Listens on an address, with the listener that another agent has there if there is one.
fn listen(address: SocketAddr, lending: &Lending) -> io::Result<TcpListener> {
    match bind(address) {
        Err(taken) if taken.kind() == io::ErrorKind::AddrInUse => {
            lending.borrow(address).map_err(|error| {
                tracing::debug!(%address, %error, "no other agent lends a listener");
                taken
            })
        }
        result => result,
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket_for(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Has the kernel ignore who wants to connect from now on. A connection that it would let in when
/// nobody looks any more would be reset with its listener; who is ignored tries again, and is
/// refused.
fn admit_nobody_new(listener: &TcpListener) -> io::Result<()> {
    /// Where the flags are in a TCP header, and those of a first packet and of its answer.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    /// How many bytes of a packet pass.
    const ALL: u32 = u32::MAX;
    // Classic BPF: what it reads begins with the TCP header.
    let load_byte = SockFilter::new(0x30, 0, 0, FLAGS);
    let and = SockFilter::new(0x54, 0, 0, SYN | ACK);
    let skip_unless_equal = SockFilter::new(0x15, 0, 1, SYN);
    let pass = |bytes| SockFilter::new(0x06, 0, 0, bytes);
    let program = [load_byte, and, skip_unless_equal, pass(0), pass(ALL)];
    SockRef::from(listener).attach_filter(&program)
}

fn nowhere(tried: Vec<(SocketAddr, io::Result<TcpListener>)>) -> DatapathError {
    let failed = tried
        .into_iter()
        .filter_map(|(address, listener)| Some((address, listener.err()?)));
    let (mut reasons, mut is_permission) = (Vec::new(), false);
    for (address, error) in failed {
        is_permission |= error.kind() == io::ErrorKind::PermissionDenied;
        reasons.push(format!("{address} ({error})"));
    }
    let reasons = reasons.join(" nor on ");
    if is_permission {
        return DatapathError::NotPermitted(format!(
            "cannot listen on {reasons}: give podcreds CAP_NET_BIND_SERVICE, or choose a --port \
             above 1023"
        ));
    }
    DatapathError::Bind(reasons)
}

#[cfg(test)]
mod tests;
