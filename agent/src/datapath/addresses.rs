//! Hears when IPv6 addresses come and go in a network namespace.
//!
//! A listener on `::1` is of use only as long as the namespace has that address: without it a redirected
//! connect would hang. The kernel says so on a netlink socket that was made in the namespace.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// The netlink group of IPv6 addresses: RTMGRP_IPV6_IFADDR in linux/rtnetlink.h.
const IPV6_ADDRESSES: u32 = 0x100;

/// Subscribes to the changes in the calling thread's namespace.
pub(super) fn subscribe() -> io::Result<OwnedFd> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, IPV6_ADDRESSES))?;
    Ok(netlink)
}

/// The shortest time between two reports. Who has CAP_NET_ADMIN in a pod can change addresses all day.
const PAUSE: Duration = Duration::from_millis(100);

/// Calls `changed` after changes, until it says that nobody listens any more.
pub(super) async fn watch(netlink: OwnedFd, changed: impl Fn() -> bool) -> io::Result<()> {
    // SAFETY: an OwnedFd keeps its descriptor open, and the same one, until it is dropped.
    let netlink = unsafe { AsyncFd::register_with_interest(netlink, Interest::READABLE) }?;
    loop {
        let mut ready = netlink.readable().await?;
        if let Ok(drained) = ready.try_io(|netlink| drain(netlink.get_ref())) {
            drained?;
            if !changed() {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Throws the messages away: that there were any is all that matters, so lost ones do no harm.
fn drain(netlink: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut heard = false;
    loop {
        match recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(_) | Err(Errno::ENOBUFS) => heard = true,
            Err(Errno::EAGAIN) if heard => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
