//! Who is at the other end.

use std::{io, os::fd::AsFd};

// Not rustix: it has no room for a peer in another PID namespace, whose PID is 0 here.
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// Makes sure that the other end is root's, by the kernel's word. The folder keeps others out
/// already; this holds also where somebody has opened it to them.
///
/// # Errors
///
/// When it is another user's, or no socket.
pub fn check_peer(stream: &impl AsFd) -> io::Result<()> {
    let uid = getsockopt(stream, PeerCredentials)?.uid();
    match uid {
        0 => Ok(()),
        uid => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("user {uid} is at the other end, not root"),
        )),
    }
}
