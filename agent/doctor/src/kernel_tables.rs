//! What the kernel says of sockets, and of the processes that hold them.

use std::{fs, net::SocketAddr, path::Path};

/// The state of a listening socket in the kernel's tables (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// A process, by what it calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// At most 15 characters.
    pub(crate) name: String,
}

/// An address as the kernel's tables have it: words in host order, in hexadecimal.
pub(crate) fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(8 * at..8 * at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match ip.len() {
        8 => Some(SocketAddr::new(word(0)?.into(), port)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0_u8; 16];
            bytes.copy_from_slice(words.as_flattened());
            Some(SocketAddr::new(bytes.into(), port))
        }
        _ => None,
    }
}

/// The other end of a connection of the calling thread's network, as the kernel has it.
pub(crate) fn peer_of(local: SocketAddr) -> Option<SocketAddr> {
    peer_in(&table_of(local)?, local)
}

/// The processes that listen at an address, or at all addresses on its port, in the calling
/// thread's network. `None` if nothing listens there; empty if the process cannot be found.
pub(crate) fn listeners_at(at: SocketAddr) -> Option<Vec<Process>> {
    // A socket of all IPv6 addresses may have all of IPv4 as well.
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    let tables = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok());
    let inodes: Vec<u64> = tables.flat_map(|table| listening_in(&table, at)).collect();
    (!inodes.is_empty()).then(|| holders(&inodes))
}

fn table_of(local: SocketAddr) -> Option<String> {
    let table = match local {
        SocketAddr::V4(_) => "/proc/thread-self/net/tcp",
        SocketAddr::V6(_) => "/proc/thread-self/net/tcp6",
    };
    fs::read_to_string(table).ok()
}

fn peer_in(table: &str, local: SocketAddr) -> Option<SocketAddr> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (own, peer) = (address(fields.next()?)?, address(fields.next()?)?);
        (own == local).then_some(peer)
    })
}

/// The inodes of the sockets that listen there.
fn listening_in(table: &str, at: SocketAddr) -> Vec<u64> {
    let lines = table.lines().skip(1);
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let own = address(fields.get(1)?)?;
        let is_there =
            own.port() == at.port() && (own.ip() == at.ip() || own.ip().is_unspecified());
        let listens = fields.get(3) == Some(&LISTEN);
        (is_there && listens).then(|| fields.get(9)?.parse().ok())?
    };
    lines.filter_map(inode).collect()
}

/// The processes that hold one of these sockets.
fn holders(inodes: &[u64]) -> Vec<Process> {
    let names: Vec<_> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let holds = |pid: u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        descriptors.flatten().any(|descriptor| {
            let held = fs::read_link(descriptor.path());
            held.is_ok_and(|held| names.iter().any(|name| held == Path::new(name)))
        })
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|it| it.file_name().to_str()?.parse().ok());
    pids.filter(|pid| holds(*pid)).map(named).collect()
}

fn named(pid: u32) -> Process {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Process {
        pid,
        name: name.trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st\n\
        0: 17AAFEA9:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1 0\n\
        1: 0100007F:9C40 0100007F:F503 01 00000000:00000000 00:00000000 00000000 0 0 12 1 0\n";

    #[test]
    fn a_connection_and_a_listener_are_found_in_the_kernels_table() {
        let local = "127.0.0.1:40000".parse().unwrap();
        let peer = peer_in(TABLE, local);
        assert_eq!(peer, Some("127.0.0.1:62723".parse().unwrap()));
        assert_eq!(peer_in(TABLE, "127.0.0.1:1".parse().unwrap()), None);
        let listening = |at: &str| listening_in(TABLE, at.parse().unwrap());
        assert_eq!(listening("169.254.170.23:80"), [4711]);
        assert!(listening("127.0.0.1:40000").is_empty());
        let v6 = address("00000000000000000000000001000000:0050");
        assert_eq!(v6, Some("[::1]:80".parse().unwrap()));
    }

    #[test]
    fn a_listener_of_this_process_is_found_with_its_name() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = listeners_at(SocketAddr::new([127, 0, 0, 1].into(), port)).unwrap();
        assert!(
            found.iter().any(|it| it.pid == std::process::id()),
            "{found:?}"
        );
        drop(listener);
        assert_eq!(
            listeners_at(SocketAddr::new([127, 0, 0, 1].into(), port)),
            None
        );
    }
}
