//! The node path: ordinary listeners on the host, for callers that no program redirects.

use std::{
    future::pending,
    io,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpStream, runtime::Handle, sync::watch, task::JoinHandle, time::sleep};

use super::{
    Accepted, BACKLOG_PAUSE, DatapathError, Metrics, OnAccept, accept::accept_until,
    listener::BACKLOG, sockopt,
};
use crate::identity::Evidence;

/// How soon an address that cannot be listened on is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Of two agents that listen on one address, the one that came first.
const OLDER: u32 = 0;
/// And the other one. Where there is only one, it is the one that came first.
const NEWER: u32 = 1;

/// Listeners on addresses of the host. Only the token says who calls there.
///
/// In an update two agents listen on each address. What is new goes to the newer one from the moment that it listens,
/// so that nothing is in the older one's queue when that closes: the kernel would reset it.
pub struct NodePath {
    give_back: watch::Sender<bool>,
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
        on_accept: &OnAccept,
        serving: &Handle,
        metrics: &Metrics,
    ) -> Result<Self, DatapathError> {
        let tried: Vec<_> = addresses.iter().map(|at| (*at, listen(*at))).collect();
        if need == Need::Now && tried.iter().all(|(_, listener)| listener.is_err()) {
            return Err(nowhere(tried));
        }
        let (give_back, stop) = (watch::Sender::new(false), watch::Sender::new(false));
        let place = |(address, listener)| {
            let mut place = Place {
                address,
                on_accept: on_accept.clone(),
                metrics: metrics.clone(),
                give_back: give_back.subscribe(),
                stop: stop.subscribe(),
                last_error: None,
            };
            let listener = place.note(listener);
            serving.spawn(place.serve(listener))
        };
        let tasks = tried.into_iter().map(place).collect();
        Ok(Self {
            give_back,
            stop,
            tasks,
        })
    }

    /// Lets an agent that was there before this one have what is new again. For the newer of two that ends first.
    pub async fn give_back(&self) {
        self.give_back.send_replace(true);
        // Whoever is about to be queued here is queued by then.
        sleep(BACKLOG_PAUSE).await;
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
    give_back: watch::Receiver<bool>,
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
            listener = self.note(listen(self.address));
        }
    }

    /// Says whether there is a listener. Each reason why there is none is told once, however often it
    /// is met.
    fn note(&mut self, listener: io::Result<TcpListener>) -> Option<TcpListener> {
        match listener {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(self.address);
                tracing::info!(%address, "node path listening");
                self.last_error = None;
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
        let accept = |stream: TcpStream, peer: SocketAddr, accepted: Instant| {
            (self.on_accept)(Accepted {
                stream,
                evidence: Evidence::NodePath {
                    peer: peer.ip().to_canonical(),
                },
                accepted,
                connected: None,
            });
        };
        let give_back = self.give_back(listener.try_clone());
        tokio::select! {
            () = accept_until(listener, self.stop.clone(), &self.metrics, accept) => {}
            () = give_back => {}
        }
        self.metrics.node_path.dec();
        self.metrics.listeners.dec();
    }

    /// Has an older listener get what is new once that is asked for. Never ends.
    async fn give_back(&self, listener: io::Result<TcpListener>) {
        let mut asked = self.give_back.clone();
        if let Ok(listener) = listener
            && asked.wait_for(|asked| *asked).await.is_ok()
            && let Err(error) = sockopt::prefer_listener(&listener, OLDER)
        {
            tracing::debug!(%error, "new connections come here to the end");
        }
        pending().await
    }
}

/// A listener that another agent may stand beside: the next one starts before this one ends. The
/// kernel lets nobody else in but programs of the same user.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    sockopt::prefer_listener(&socket, NEWER)?;
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
        sync::Arc,
    };

    use prometheus::Registry;
    use tokio::{sync::mpsc, time::timeout};

    use super::*;

    fn start(
        address: SocketAddr,
        need: Need,
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
        let path = NodePath::start(&[address], need, &on_accept, &handle, &metrics);
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

    /// As many connections as it takes for chance not to do the same.
    const CONNECTIONS: usize = 64;

    async fn connect_to(address: SocketAddr, accepted: &mut mpsc::UnboundedReceiver<Accepted>) {
        for _ in 0..CONNECTIONS {
            let client = TcpStream::connect(address).await.unwrap();
            let local = client.local_addr().unwrap();
            let accepted = timeout(Duration::from_secs(60), accepted.recv()).await;
            let accepted = accepted.expect("it went elsewhere").unwrap();
            assert_eq!(accepted.stream.peer_addr().unwrap(), local);
        }
    }

    #[tokio::test]
    async fn of_two_agents_the_newer_one_gets_what_is_new() {
        for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let free = TcpListener::bind((loopback, 0)).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let (old, mut to_old) = start(address, Need::Now);
            connect_to(address, &mut to_old).await;
            let (new, mut to_new) = start(address, Need::Now);
            connect_to(address, &mut to_new).await;
            // It is told to end before the older one.
            let new = new.unwrap();
            new.give_back().await;
            connect_to(address, &mut to_old).await;
            new.stop().await;
            connect_to(address, &mut to_old).await;

            let (next, mut to_next) = start(address, Need::Now);
            connect_to(address, &mut to_next).await;
            old.unwrap().stop().await;
            connect_to(address, &mut to_next).await;
            next.unwrap().stop().await;
        }
    }
}
