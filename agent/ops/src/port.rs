//! Ports that one agent hands on to the next.
//!
//! In an update two agents overlap on a node, and both are told the same ports. The one that is
//! there keeps answering; the new one waits for its turn. If both answered, a scraper would see
//! counters jump back and forth, and a probe of one would reach the other.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rustix::{io::Errno, net::sockopt::set_ipv6_v6only};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::sleep,
};
use tracing::info;

/// Clients that wait to be accepted: many, so that kubelet finds room in a flood.
const BACKLOG: u32 = 1024;
/// How often a port that another agent listens on is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another with {flag}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// The flag that moves it.
    pub flag: &'static str,
    /// Why not.
    pub source: io::Error,
}

/// An address that is ours as soon as no other agent listens on it.
#[derive(Debug)]
pub struct ReservedPort {
    socket: TcpSocket,
    address: SocketAddr,
}

/// Reserves an address, beside an agent that listens on it. Port 0 takes any free one.
///
/// 0.0.0.0 and `::` are all addresses of both families, as for programs in Go: on a cluster of IPv6
/// nobody could ask at those of IPv4. Where the machine has no IPv6, they are all of IPv4, and
/// 0.0.0.0 also where another program has the port of IPv6.
///
/// # Errors
///
/// A [`BindError`] that names the `flag` to change, when the address does not exist or the port
/// belongs to a program of another kind.
pub fn reserve(ip: IpAddr, port: u16, flag: &'static str) -> Result<ReservedPort, BindError> {
    let bound = match ip.is_unspecified() {
        true => bind_both_families(ip, port, bind),
        false => bind(SocketAddr::new(ip, port)),
    };
    bound.map_err(|source| BindError {
        address: SocketAddr::new(ip, port),
        flag,
        source,
    })
}

fn bind_both_families<T>(
    ip: IpAddr,
    port: u16,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let bound = bind((Ipv6Addr::UNSPECIFIED, port).into());
    let is_ipv4_enough = match bound.as_ref().err().and_then(Errno::from_io_error) {
        Some(Errno::AFNOSUPPORT) => true,
        Some(Errno::ADDRINUSE) => ip.is_ipv4(),
        _ => false,
    };
    match is_ipv4_enough {
        true => bind((Ipv4Addr::UNSPECIFIED, port).into()),
        false => bound,
    }
}

fn bind(address: SocketAddr) -> io::Result<ReservedPort> {
    let socket = socket(address)?;
    // Agents let each other bind; the kernel sees to it that they belong to the same user.
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    let address = socket.local_addr()?;
    Ok(ReservedPort { socket, address })
}

impl ReservedPort {
    /// Waits until nobody listens on the address any more, and listens.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub async fn listen(self) -> io::Result<TcpListener> {
        let address = self.address;
        if !is_free(address) {
            info!(%address, "another agent answers here until it ends");
        }
        while !is_free(address) {
            sleep(LOOK_EVERY).await;
        }
        self.socket.listen(BACKLOG)
    }
}

/// Whether nobody listens there. Sockets that are merely bound, such as ours, do not count.
fn is_free(address: SocketAddr) -> bool {
    socket(address)
        .and_then(|socket| socket.bind(address))
        .is_ok()
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if address.is_ipv6() {
        // The machine's default may be another.
        set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{net::TcpStream, time::timeout};

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn a_port_of_another_program_names_the_flag() {
        let other = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let address = other.local_addr().unwrap();
        let error = reserve(address.ip(), address.port(), "--probe-port").unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains("--probe-port"), "{text}");
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        for ip in [
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ] {
            let listener = reserve(ip, 0, "--port").unwrap().listen().await.unwrap();
            let port = listener.local_addr().unwrap().port();
            for client in [LOCALHOST, Ipv6Addr::LOCALHOST.into()] {
                let _client = TcpStream::connect((client, port)).await.unwrap();
                listener.accept().await.unwrap();
            }
        }
        let without_ipv6 = |address: SocketAddr| match address.is_ipv6() {
            true => Err(Errno::AFNOSUPPORT.into()),
            false => Ok(address),
        };
        let unspecified = [
            Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::from(Ipv6Addr::UNSPECIFIED),
        ];
        for ip in unspecified {
            let bound = bind_both_families(ip, 1, without_ipv6).unwrap();
            assert_eq!(bound, (Ipv4Addr::UNSPECIFIED, 1).into());
        }
        let taken = |address: SocketAddr| match address.is_ipv6() {
            true => Err(Errno::ADDRINUSE.into()),
            false => Ok(address),
        };
        let bound = unspecified.map(|ip| bind_both_families(ip, 1, taken).is_ok());
        assert_eq!(bound, [true, false]);
    }

    #[tokio::test]
    async fn agents_answer_one_after_the_other() {
        let first = reserve(LOCALHOST, 0, "--port").unwrap();
        let address = first.address;
        let first = first.listen().await.unwrap();

        let second = reserve(address.ip(), address.port(), "--port").unwrap();
        let mut second = tokio::spawn(second.listen());
        let early = timeout(3 * LOOK_EVERY, &mut second).await;
        assert!(early.is_err(), "both listen: {early:?}");
        // As long as both are there, all clients are the first one's.
        for _ in 0..20 {
            let _client = TcpStream::connect(address).await.unwrap();
            first.accept().await.unwrap();
        }

        drop(first);
        let second = second.await.unwrap().unwrap();
        assert_eq!(second.local_addr().unwrap(), address);
        let _client = TcpStream::connect(address).await.unwrap();
        second.accept().await.unwrap();
    }
}
