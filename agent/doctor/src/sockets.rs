//! What the kernel says of sockets, and of the processes that hold them.

use std::net::SocketAddr;

use procfs::{
    net::{TcpNetEntry, TcpState, tcp, tcp6},
    process::{self, FDTarget, all_processes},
};

/// A process, by what it calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// At most 15 characters.
    pub(crate) name: String,
}

/// The other end of a connection of this process's network, as the kernel has it.
pub(crate) fn peer_of(local: SocketAddr) -> Option<SocketAddr> {
    peer_in(sockets(), local)
}

/// The processes that listen at an address, or at all addresses on its port, in this process's
/// network. `None` if nothing listens there; empty if the process cannot be found.
pub(crate) fn listeners_at(at: SocketAddr) -> Option<Vec<Process>> {
    let inodes = listening_in(sockets(), at);
    (!inodes.is_empty()).then(|| holders(&inodes))
}

/// Both tables: a socket of all IPv6 addresses may have all of IPv4 as well.
fn sockets() -> impl Iterator<Item = TcpNetEntry> {
    tcp().into_iter().chain(tcp6()).flatten()
}

fn peer_in(
    mut sockets: impl Iterator<Item = TcpNetEntry>,
    local: SocketAddr,
) -> Option<SocketAddr> {
    let own = sockets.find(|it| it.local_address == local);
    own.map(|it| it.remote_address)
}

/// The inodes of the sockets that listen there.
fn listening_in(sockets: impl Iterator<Item = TcpNetEntry>, at: SocketAddr) -> Vec<u64> {
    let listens = |it: &TcpNetEntry| {
        let own = it.local_address;
        let is_there = own.ip() == at.ip() || own.ip().is_unspecified();
        it.state == TcpState::Listen && own.port() == at.port() && is_there
    };
    sockets.filter(listens).map(|it| it.inode).collect()
}

/// The processes that hold one of these sockets.
fn holders(inodes: &[u64]) -> Vec<Process> {
    let holds = |process: &process::Process| {
        let mut descriptors = process.fd().into_iter().flatten().flatten();
        descriptors
            .any(|it| matches!(it.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
    };
    let processes = all_processes().into_iter().flatten().flatten();
    let named = |process: process::Process| Process {
        pid: process.pid(),
        name: process.stat().map(|stat| stat.comm).unwrap_or_default(),
    };
    processes.filter(holds).map(named).collect()
}

#[cfg(test)]
mod tests {
    use procfs::{FromReadSI, current_system_info, net::TcpNetEntries};

    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st\n\
        0: 17AAFEA9:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1 0\n\
        1: 0100007F:9C40 0100007F:F503 01 00000000:00000000 00:00000000 00000000 0 0 12 1 0\n";

    #[test]
    fn a_connection_and_a_listener_are_found_in_the_kernels_table() {
        let local = "127.0.0.1:40000".parse().unwrap();
        let table = || {
            let table = TcpNetEntries::from_read(TABLE.as_bytes(), current_system_info());
            table.unwrap().0.into_iter()
        };
        let peer = peer_in(table(), local);
        assert_eq!(peer, Some("127.0.0.1:62723".parse().unwrap()));
        assert_eq!(peer_in(table(), "127.0.0.1:1".parse().unwrap()), None);
        let listening = |at: &str| listening_in(table(), at.parse().unwrap());
        assert_eq!(listening("169.254.170.23:80"), [4711]);
        assert!(listening("127.0.0.1:40000").is_empty());
    }

    #[test]
    fn a_listener_of_this_process_is_found_with_its_name() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = listeners_at(SocketAddr::new([127, 0, 0, 1].into(), port)).unwrap();
        assert!(
            found
                .iter()
                .any(|it| it.pid == std::process::id().cast_signed()),
            "{found:?}"
        );
        drop(listener);
        assert_eq!(
            listeners_at(SocketAddr::new([127, 0, 0, 1].into(), port)),
            None
        );
    }
}
