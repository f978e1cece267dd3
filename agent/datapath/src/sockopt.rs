//! Socket options that neither the standard library nor socket2 nor rustix knows.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// From the kernel's asm-generic/socket.h; libc does not have it on every platform.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The cookie of the network namespace of a socket, as the eBPF programs see it.
pub(super) fn netns_cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut size = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes at most
    // `size` bytes, which is what `cookie` holds.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Turns TCP fast open off for a listener. A sysctl can have turned it on for all of them.
pub(super) fn disable_fast_open(listener: &impl AsFd) -> io::Result<()> {
    let queue: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel reads the given
    // number of bytes of `queue`.
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN,
            (&raw const queue).cast(),
            size_of_val(&queue) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
