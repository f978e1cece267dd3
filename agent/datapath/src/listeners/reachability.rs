//! Whether a listener in a pod's network namespace can be reached, found out by connecting to it as
//! the pod does.
//!
//! `lo` may be down or without an address, and a packet filter may drop what goes there, refuse it,
//! or send it to a service mesh's proxy. A pod that is redirected to such a listener waits in vain,
//! so it is not redirected: it goes where it wanted to, to the node path. What counts is that the
//! listener accepts the very connection.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpStream, sync::oneshot, time::timeout};

use crate::poll_set::Key;

/// How long a new listener is waited for. On loopback it takes microseconds; on a machine that has
/// no time at all, the listener is published a little later.
const NEW_PATIENCE: Duration = Duration::from_millis(20);
/// The time between two looks at a new listener's queue.
const LOOK: Duration = Duration::from_millis(1);
/// How long one is waited for that is accepted from already: a lost packet is sent again after a
/// second.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The connections of the agent's own that listeners are to expect, one of a listener at most, and
/// nearly always none. Clones are the same ones.
#[derive(Clone, Default)]
pub(crate) struct Expected(Arc<Mutex<HashMap<Key, Awaited>>>);

/// The port that the connection comes from, and where to report that it was accepted.
type Awaited = (u16, oneshot::Sender<()>);

/// A connection of the agent's own, under way.
pub(crate) struct ReachabilityAttempt {
    socket: Socket,
    accepted: oneshot::Receiver<()>,
}

impl Expected {
    /// Whether a connection that a listener has accepted, from this port, is the agent's own. It is
    /// so once.
    pub(crate) fn is_own(&self, listener: Key, port: u16) -> bool {
        let mut expected = self.lock();
        let is_own = expected.get(&listener).is_some_and(|(own, _)| *own == port);
        let own = is_own.then(|| expected.remove(&listener)).flatten();
        // An error means that the waiter has given up.
        own.map(|(_, accepted)| accepted.send(())).is_some()
    }

    /// A listener is gone.
    pub(crate) fn forget(&self, listener: Key) {
        self.lock().remove(&listener);
    }

    /// A listener is to expect a connection from this port, in place of any other. What is returned
    /// hears of it.
    pub(crate) fn expect(&self, listener: Key, port: u16) -> oneshot::Receiver<()> {
        let (accept, accepted) = oneshot::channel();
        self.lock().insert(listener, (port, accept));
        accepted
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Awaited>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an attempt has failed because of the pod's network. Everything else (the agent has no
/// descriptors, the pod has no free ports) says nothing about the listener.
pub(crate) fn is_no_way(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        AddrNotAvailable
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
            | TimedOut
    )
}

/// Begins to connect to a listener, from the calling thread's namespace. `expect` has the listener
/// expect a connection from a port.
///
/// # Errors
///
/// When that cannot be; [`is_no_way`] says whether the pod's network is the reason.
pub(crate) fn begin(
    listener: SocketAddr,
    expect: impl FnOnce(u16) -> oneshot::Receiver<()>,
) -> io::Result<ReachabilityAttempt> {
    let (socket, port) = prepare(listener)?;
    let accepted = expect(port);
    match socket.connect(&listener.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        _ => Ok(ReachabilityAttempt { socket, accepted }),
    }
}

/// Whether a new listener can be reached from the calling thread's namespace, before anything
/// else accepts from it; in doubt it can. No pod has been sent there yet, so whatever else comes
/// is dropped.
pub(crate) fn reaches(listener: &TcpListener) -> bool {
    let deadline = Instant::now() + NEW_PATIENCE;
    let connect = || {
        let address = listener.local_addr()?;
        let (socket, port) = prepare(address)?;
        socket.connect_timeout(&address.into(), NEW_PATIENCE)?;
        io::Result::Ok((socket, port))
    };
    let (_socket, own) = match connect() {
        Ok(connected) => connected,
        Err(error) => return !is_no_way(&error),
    };
    loop {
        match listener.accept() {
            Ok((_, peer)) if peer.port() == own => return true,
            Ok(_) => {}
            Err(_) if Instant::now() < deadline => thread::sleep(LOOK),
            Err(_) => return false,
        }
    }
}

/// A socket of the pod's own address, and its port.
fn prepare(listener: SocketAddr) -> io::Result<(Socket, u16)> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let domain = Domain::for_address(listener);
    let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
    // Closed by a reset, so that it leaves nothing behind in the pod's namespace.
    socket.set_linger(Some(Duration::ZERO))?;
    let own: IpAddr = match listener {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    socket.bind(&SocketAddr::new(own, 0).into())?;
    let bound = socket.local_addr()?.as_socket();
    let port = bound.ok_or(io::ErrorKind::AddrNotAvailable)?.port();
    Ok((socket, port))
}

impl ReachabilityAttempt {
    /// Waits until the listener has accepted it. False when that takes too long, or something else
    /// has.
    pub(crate) async fn succeeds(self) -> bool {
        timeout(PATIENCE, self.wait()).await.unwrap_or(false)
    }

    async fn wait(self) -> bool {
        let Ok(stream) = TcpStream::from_std(self.socket.into()) else {
            return false;
        };
        let connected = stream.writable().await;
        if connected.is_err() || !matches!(stream.take_error(), Ok(None)) {
            return false;
        }
        self.accepted.await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    const LISTENER: Key = 1;

    #[test]
    fn a_new_listener_is_reached_whatever_else_waits_there() {
        let (listener, address) = listener();
        let _others: Vec<_> = (0..3)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        assert!(reaches(&listener));
        socket2::SockRef::from(&listener)
            .shutdown(std::net::Shutdown::Both)
            .unwrap();
        assert!(!reaches(&listener));
    }

    #[tokio::test]
    async fn an_attempt_succeeds_when_the_listener_accepts_it_and_no_other() {
        let (listener, address) = listener();
        let expected = Expected::default();
        let _other = std::net::TcpStream::connect(address).unwrap();
        let attempt = begin(address, |port| expected.expect(LISTENER, port)).unwrap();
        let (_, other) = listener.accept().unwrap();
        assert!(!expected.is_own(LISTENER, other.port()));
        let succeeds = tokio::spawn(attempt.succeeds());
        let own = loop {
            match listener.accept() {
                Ok((_, own)) => break own,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert!(!expected.is_own(LISTENER + 1, own.port()));
        assert!(expected.is_own(LISTENER, own.port()));
        assert!(!expected.is_own(LISTENER, own.port()));
        assert!(succeeds.await.unwrap());
    }

    #[tokio::test]
    async fn an_attempt_fails_when_its_listener_is_gone() {
        let (_listener, address) = listener();
        let expected = Expected::default();
        let attempt = begin(address, |port| expected.expect(LISTENER, port)).unwrap();
        expected.forget(LISTENER);
        assert!(expected.lock().is_empty());
        assert!(!attempt.succeeds().await);
    }

    #[tokio::test]
    async fn what_is_accepted_by_nobody_or_somebody_else_does_not_succeed() {
        let (listener, address) = listener();
        let expected = Expected::default();
        let expect = |port| expected.expect(LISTENER, port);
        assert!(!begin(address, expect).unwrap().succeeds().await);
        drop(listener);
        // Refused: at once, or when it is waited for.
        let refused = match begin(address, expect) {
            Ok(attempt) => !attempt.succeeds().await,
            Err(_) => true,
        };
        assert!(refused);
    }

    #[test]
    fn only_the_networks_trouble_counts() {
        for (errno, is_it) in [
            (Errno::ADDRNOTAVAIL, true),
            (Errno::NETUNREACH, true),
            (Errno::PERM, true),
            (Errno::CONNREFUSED, true),
            (Errno::ADDRINUSE, false),
            (Errno::MFILE, false),
            (Errno::NOBUFS, false),
        ] {
            assert_eq!(is_no_way(&io::Error::from(errno)), is_it, "{errno}");
        }
    }
}
