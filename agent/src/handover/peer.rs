//! Who is at the other end.

use std::io;

use tokio::net::UnixStream;

/// Makes sure that the other end is root's, by the kernel's word. The folder keeps others out already; this holds
/// also where somebody has opened it to them.
pub(super) fn check(stream: &UnixStream) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    match uid {
        0 => Ok(()),
        uid => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("user {uid} is at the other end, not root"),
        )),
    }
}
