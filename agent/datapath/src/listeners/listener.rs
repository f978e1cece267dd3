//! The listening sockets in a network namespace.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    ops::Range,
};

use podcreds_common::{BINDING_PRIORITY, FALLBACK_V4, LISTENER_PORT_MIN, LISTENER_V4};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{listeners::ports, programs::held_ports::HeldPort, sockopt};

/// Connections that wait to be accepted. A pod that floods fills only the queue of its own
/// listener.
pub(crate) const BACKLOG: i32 = 4096;

/// How many bytes the kernel keeps for a connection in each direction: the longest head, and
/// several answers. It doubles the number. Left alone it would keep 128 KiB and more, on the
/// agent's account, of what a pod sends and nobody has read yet.
const BUFFER: usize = 16 * 1024;

/// How many ports are tried. A pod can take them all, and every visit to it would take that much
/// longer.
const MOST_TRIED: usize = 512;
/// Where there may be a port that is not ours and free, if the kernel gives out ours alone.
const BELOW_OURS: Range<u16> = LISTENER_PORT_MIN - 16..LISTENER_PORT_MIN;

/// A listening socket and what is known of it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// The port that it got, in host order.
    pub(crate) port: u16,
    /// The cookie of its network namespace.
    pub(crate) netns: u64,
    /// Has the programs know its port.
    pub(crate) held: Option<HeldPort>,
}

/// Listens on [`LISTENER_V4`] in the calling thread's namespace.
///
/// It works before `lo` is up, and falls back to [`FALLBACK_V4`] and a port of the kernel's choice
/// when an application has taken all of ours that are tried. Never on a port to `avoid`.
pub(crate) fn open_v4(avoid: &[u16]) -> io::Result<Listener> {
    match open_on_first_free_port(IpAddr::V4(Ipv4Addr::from(LISTENER_V4)), avoid) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // The kernel may give out our ports alone, at which the programs would look for it at
            // the other address. Those below ours will do.
            let choices = std::iter::once(0).chain(BELOW_OURS);
            let fits = |open: &Listener| !ports::is_ours(open.port) && !avoid.contains(&open.port);
            let address = IpAddr::V4(Ipv4Addr::from(FALLBACK_V4));
            let mut opened = choices.filter_map(|port| open(address, port).ok());
            opened.find(fits).ok_or(error)
        }
        result => result,
    }
}

/// Listens on `::1` in the calling thread's namespace; `None` where it has no IPv6.
///
/// Only ports of our range will do: the programs look at no others of `::1`. Nor do those to
/// `avoid`.
pub(crate) fn open_v6(avoid: &[u16]) -> io::Result<Option<Listener>> {
    match open_on_first_free_port(IpAddr::V6(Ipv6Addr::LOCALHOST), avoid) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if lacks_ipv6(&error) || error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the calling thread's namespace has `::1`, now. In doubt it has.
pub(crate) fn has_ipv6() -> bool {
    !UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err_and(|error| lacks_ipv6(&error))
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

fn open_on_first_free_port(address: IpAddr, avoid: &[u16]) -> io::Result<Listener> {
    let wanted = ports::Wanted::read();
    let candidates = wanted.candidates().filter(|port| !avoid.contains(port));
    for port in candidates.take(MOST_TRIED) {
        match open(address, port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// A socket that can listen where connections of an agent that was here before are in TIME_WAIT.
pub(crate) fn socket_for(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    // Accepted connections inherit both.
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    Ok(socket)
}

fn open(address: IpAddr, port: u16) -> io::Result<Listener> {
    let address = SocketAddr::new(address, port);
    let socket = socket_for(address)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    } else {
        // A pod's `lo` may come up after its namespace was found.
        socket.set_freebind_v4(true)?;
    }
    // So that another agent's programs do not take this for an application that wants the port.
    socket.set_priority(BINDING_PRIORITY)?;
    socket.bind(&address.into())?;
    socket.set_priority(0)?;
    socket.listen(BACKLOG)?;
    // A fast-open connection can be accepted before its client's socket can be looked up.
    sockopt::disable_fast_open(&socket)?;
    let socket = TcpListener::from(socket);
    Ok(Listener {
        port: socket.local_addr()?.port(),
        netns: sockopt::netns_cookie(&socket)?,
        socket,
        held: None,
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use socket2::SockRef;

    use super::*;

    #[test]
    fn what_waits_on_a_connection_is_bounded() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = socket_for(address).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(BACKLOG).unwrap();
        listener.set_nonblocking(false).unwrap();
        let listener = TcpListener::from(listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert_eq!(accepted.recv_buffer_size().unwrap(), 2 * BUFFER);
        assert_eq!(accepted.send_buffer_size().unwrap(), 2 * BUFFER);
    }
}
