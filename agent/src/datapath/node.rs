//! The node path: ordinary listeners on the host, for callers that no program redirects.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpStream, runtime::Handle, sync::watch, task::JoinHandle, time::sleep};

use super::{Accepted, DatapathError, Metrics, OnAccept, accept::accept_until, listener::BACKLOG};
use crate::identity::Evidence;

/// How soon an address that cannot be listened on is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest time between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Listeners on addresses of the host. Only the token says who calls there.
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
        on_accept: &OnAccept,
        serving: &Handle,
        metrics: &Metrics,
    ) -> Result<Self, DatapathError> {
        let tried: Vec<_> = addresses.iter().map(|at| (*at, listen(*at))).collect();
        if need == Need::Now && tried.iter().all(|(_, listener)| listener.is_err()) {
            return Err(nowhere(tried));
        }
        let stop = watch::Sender::new(false);
        let place = |(address, listener)| {
            let mut place = Place {
                address,
                on_accept: on_accept.clone(),
                metrics: metrics.clone(),
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
        let accept = |stream: TcpStream, accepted: Instant| {
            (self.on_accept)(Accepted {
                stream,
                evidence: Evidence::NodePath,
                accepted,
                connected: None,
            });
        };
        accept_until(listener, self.stop.clone(), &self.metrics, accept).await;
        self.metrics.node_path.dec();
        self.metrics.listeners.dec();
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
    use std::{net::Ipv4Addr, sync::Arc};

    use prometheus::Registry;
    use tokio::sync::mpsc;

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

    #[tokio::test]
    async fn two_agents_may_listen_at_once() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let (old, _accepted) = start(address, Need::Now);
        let (new, mut accepted) = start(address, Need::Now);
        old.unwrap().stop().await;
        let _client = TcpStream::connect(address).await.unwrap();
        accepted.recv().await.unwrap();
        new.unwrap().stop().await;
    }
}
