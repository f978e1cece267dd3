//! The node path: ordinary listeners on the host, for callers that no program redirects.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};

use super::{
    Accepted, DatapathError, Lending, Metrics, OnAccept,
    accept::{EXHAUSTED_PAUSE, Trouble, guarded},
    listener::{BACKLOG, socket_for},
};
use crate::identity::Evidence;

/// How soon an address that cannot be listened on is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Listeners on addresses of the host. Only the token says who calls there.
///
/// In an update two agents accept from one and the same listener, so that nothing is lost when one of them closes it.
pub struct NodePath {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
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
    /// Listens on `addresses`, and accepts on `serving`. One that is not there yet, or is taken, is
    /// tried again until it can be had.
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
        metrics: &Metrics,
    ) -> Result<Self, DatapathError> {
        let try_it = |at: &SocketAddr| (*at, listen(*at, lending));
        let tried: Vec<_> = addresses.iter().map(try_it).collect();
        if need == Need::Now && tried.iter().all(|(_, listener)| listener.is_err()) {
            return Err(nowhere(tried));
        }
        let stop = watch::Sender::new(false);
        let place = |(address, listener)| {
            let mut place = Place {
                address,
                on_accept: on_accept.clone(),
                metrics: metrics.clone(),
                lending: Arc::clone(lending),
                stop: stop.subscribe(),
                last_error: None,
            };
            let listener = place.note(listener);
            serving.spawn(place.serve(listener))
        };
        let tasks = tried.into_iter().map(place).collect();
        Ok(Self { stop, tasks })
    }

    /// Accepts what waits in the backlogs, then closes the listeners.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            // It ends by itself; were it to panic, its listener would be closed all the same.
            let _ended = task.await;
        }
    }
}

/// One address, and what is done with those who connect to it.
struct Place {
    address: SocketAddr,
    on_accept: OnAccept,
    metrics: Metrics,
    lending: Arc<Lending>,
    stop: watch::Receiver<bool>,
    last_error: Option<io::ErrorKind>,
}

impl Place {
    /// Listens until told to stop, as soon as that is possible and whenever it is possible again.
    async fn serve(mut self, mut listener: Option<TcpListener>) {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(listener) = listener {
                pause = FIRST_PAUSE;
                self.accept(listener).await;
            }
            if *self.stop.borrow() {
                return;
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.stop.changed() => return,
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
            let (address, lending) = (self.address, Arc::clone(&self.lending));
            let listening = spawn_blocking(move || listen(address, &lending)).await;
            listener = self.note(listening.unwrap_or_else(|panic| Err(panic.into())));
        }
    }

    /// Lends a listener to the next agent, and says whether there is one. Each reason why there is none is told once, however often it
    /// is met.
    fn note(&mut self, listener: io::Result<TcpListener>) -> Option<TcpListener> {
        match listener {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(self.address);
                tracing::info!(%address, "node path listening");
                self.last_error = None;
                self.lending.set(self.address, listener.try_clone().ok());
                self.metrics.listeners.inc();
                self.metrics.node_path.inc();
                Some(listener)
            }
            Err(error) => {
                if self.last_error != Some(error.kind()) {
                    let address = self.address;
                    tracing::warn!(%address, %error, "node path: cannot listen; trying again");
                    self.last_error = Some(error.kind());
                }
                None
            }
        }
    }

    /// Accepts until told to stop, or until the listener is dead.
    async fn accept(&self, listener: TcpListener) {
        if let Err(error) = self.accept_until_dead(listener).await {
            self.metrics.errors.inc();
            tracing::warn!(address = %self.address, %error, "node path: a listener is dead: it will be opened anew");
        }
        self.lending.set(self.address, None);
        self.metrics.node_path.dec();
        self.metrics.listeners.dec();
    }

    async fn accept_until_dead(&self, listener: TcpListener) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut stop = self.stop.clone();
        loop {
            // In this order: what is waiting is accepted before a stop is heard.
            let result = tokio::select! {
                biased;
                result = listener.accept() => result,
                _ = stop.changed() => return Ok(()),
            };
            match result {
                Ok((stream, peer)) => self.pass_on(stream, peer),
                Err(error) => match Trouble::of(&error) {
                    Trouble::None | Trouble::Connection => {}
                    Trouble::Machine => {
                        self.metrics.errors.inc();
                        if *self.stop.borrow() {
                            return Ok(());
                        }
                        sleep(EXHAUSTED_PAUSE).await;
                    }
                    Trouble::Listener => return Err(error),
                },
            }
        }
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
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr, Ipv6Addr},
        os::unix::net::UnixStream,
    };

    use prometheus::Registry;
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    /// One that is alone.
    fn start(
        address: SocketAddr,
        need: Need,
    ) -> (
        Result<NodePath, DatapathError>,
        mpsc::UnboundedReceiver<Accepted>,
    ) {
        start_with(address, need, &lending(None))
    }

    /// One that borrows from another.
    fn lending(other: Option<Arc<Lending>>) -> Arc<Lending> {
        Arc::new(Lending::new(Box::new(move || {
            let other = other.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            let (ours, theirs) = UnixStream::pair()?;
            other.lend(&theirs)?;
            Ok(ours)
        })))
    }

    fn start_with(
        address: SocketAddr,
        need: Need,
        lending: &Arc<Lending>,
    ) -> (
        Result<NodePath, DatapathError>,
        mpsc::UnboundedReceiver<Accepted>,
    ) {
        let (sender, accepted) = mpsc::unbounded_channel();
        let on_accept: OnAccept = Arc::new(move |connection| {
            let _sent = sender.send(connection);
        });
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let handle = Handle::current();
        let path = NodePath::start(&[address], need, lending, &on_accept, &handle, &metrics);
        (path, accepted)
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_taken_is_listened_on_once_it_is_free() {
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = other.local_addr().unwrap();
        assert!(matches!(
            start(address, Need::Now).0,
            Err(DatapathError::Bind(_))
        ));

        let (path, mut accepted) = start(address, Need::Whenever);
        sleep(10 * LONGEST_PAUSE).await;
        drop(other);
        sleep(2 * LONGEST_PAUSE).await;
        let client = TcpStream::connect(address).await.unwrap();
        let accepted = accepted.recv().await.unwrap();
        assert_eq!(
            accepted.stream.peer_addr().unwrap(),
            client.local_addr().unwrap()
        );
        path.unwrap().stop().await;
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn what_waits_for_one_agent_is_accepted_by_the_next() {
        for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let free = TcpListener::bind((loopback, 0)).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let ours = lending(None);
            let (old, to_old) = start_with(address, Need::Now, &ours);
            let theirs = lending(Some(Arc::clone(&ours)));
            let (new, mut to_new) = start_with(address, Need::Now, &theirs);
            assert!(
                start(address, Need::Now).0.is_err(),
                "let in without a loan"
            );
            // Nothing runs in between, so all of them wait.
            let clients: Vec<_> = (0..64)
                .map(|_| std::net::TcpStream::connect(address).unwrap())
                .collect();
            old.unwrap().stop().await;
            let mut accepted = to_old.len() + to_new.len();
            while accepted < clients.len() {
                let next = timeout(Duration::from_secs(60), to_new.recv()).await;
                next.expect("it was lost").unwrap();
                accepted += 1;
            }
            let _client = TcpStream::connect(address).await.unwrap();
            assert!(ours.borrow(address).is_err() && lending(Some(ours)).borrow(address).is_err());
            new.unwrap().stop().await;
            assert!(TcpStream::connect(address).await.is_err());
        }
    }
}
