//! Notices when links and addresses change in a network namespace.
//!
//! A listener is of use only as long as the namespace's `lo` is up and has the address: without it
//! a redirected connect would hang. The kernel says so on a netlink socket that was made in the
//! namespace.

use std::{
    collections::HashSet,
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage},
};
use rustix::{
    io::Errno,
    net::{
        self, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv,
        socket_with,
    },
};
use tokio::time::sleep;

use crate::{
    namespaces::location::Location,
    poll_set::{Key, PollSet},
};

/// The netlink groups of links, of IPv4 and of IPv6 addresses: RTMGRP_LINK, RTMGRP_IPV4_IFADDR and
/// RTMGRP_IPV6_IFADDR in linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// Subscribes to the changes in the calling thread's namespace.
pub(crate) fn subscribe() -> io::Result<OwnedFd> {
    let netlink = socket_with(
        net::AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        // The default is NETLINK_ROUTE.
        None,
    )?;
    bind(&netlink, &SocketAddrNetlink::new(0, GROUPS))?;
    Ok(netlink)
}

/// All addresses in the calling thread's namespace.
pub(crate) fn all() -> io::Result<Vec<IpAddr>> {
    let addresses = getifaddrs()?.filter_map(|interface| ip_of(&interface.address?));
    Ok(addresses.collect())
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    match address.family()? {
        AddressFamily::Inet => Some(address.as_sockaddr_in()?.ip().into()),
        AddressFamily::Inet6 => Some(address.as_sockaddr_in6()?.ip().into()),
        _ => None,
    }
}

/// The time between two reports. A process with CAP_NET_ADMIN in a pod can change addresses all
/// day.
const PAUSE: Duration = Duration::from_millis(100);

/// How many messages of one namespace are read at a time.
const MOST: usize = 64;

/// A subscription, and where it is.
pub(crate) struct Subscription {
    pub(crate) netlink: OwnedFd,
    pub(crate) location: Location,
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

/// Calls `changed` after changes, until it returns false.
pub(crate) async fn watch(
    subscriptions: Arc<PollSet<Subscription>>,
    changed: impl Fn(Location) -> bool,
) {
    loop {
        match report(&subscriptions, &changed).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::error!(%error, "cannot wait for changes of pods' addresses; trying again");
            }
        }
        sleep(PAUSE).await;
    }
}

/// Waits for news, and reports each location that has some, once, however fast there is more.
/// Returns what `changed` returns.
async fn report(
    subscriptions: &PollSet<Subscription>,
    changed: impl Fn(Location) -> bool,
) -> io::Result<bool> {
    let mut reported = HashSet::new();
    let mut batch = subscriptions.ready().await?;
    loop {
        let news: Vec<Key> = batch.keys().filter(|key| reported.insert(*key)).collect();
        if news.is_empty() {
            return Ok(true);
        }
        let mut locations = news.into_iter().filter_map(|key| read(subscriptions, key));
        if !locations.all(&changed) {
            return Ok(false);
        }
        batch = subscriptions.poll()?;
    }
}

/// Reads the news of a subscription, and returns where it is.
fn read(subscriptions: &PollSet<Subscription>, key: Key) -> Option<Location> {
    let subscription = subscriptions.get(key)?;
    let (location, drained) = (subscription.location, drain(&subscription.netlink));
    drop(subscription);
    if let Err(error) = drained {
        tracing::warn!(%error, "a watch on a pod's addresses ended");
        subscriptions.remove(key);
    }
    Some(location)
}

/// Throws the messages away: that there were any is all that matters, so lost ones do no harm.
/// Those beyond [`MOST`] are left for the next time, since a pod can make more of them than can be
/// read.
fn drain(netlink: &OwnedFd) -> rustix::io::Result<()> {
    let mut buffer = [0_u8; 4096];
    for _ in 0..MOST {
        match recv(netlink, &mut buffer, RecvFlags::empty()) {
            Ok(_) | Err(Errno::NOBUFS) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;

    #[test]
    fn a_pod_that_never_stops_changing_holds_nobody_up() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        for _ in 0..2 * MOST {
            socket
                .send_to(b"changed", socket.local_addr().unwrap())
                .unwrap();
        }
        let news = OwnedFd::from(socket);
        drain(&news).unwrap();
        let socket = UdpSocket::from(news);
        let left = std::iter::from_fn(|| socket.recv(&mut [0; 16]).ok());
        assert_eq!(left.count(), MOST);
        assert_eq!(drain(&OwnedFd::from(socket)), Ok(()));
    }
}
