//! Listeners of the host that agents share: the one that comes next takes them over from the one that is there.
//!
//! Sharing an address with `SO_REUSEPORT` would do without any of this, but the kernel then lets every program of the
//! same user listen there too, a pod in the host's network perhaps, and get other pods' tokens.

use std::{
    collections::HashMap,
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};

/// The most listeners that are lent, one for each address.
const MOST: usize = 32;

/// A way to the agent that is here already. May block for a moment.
pub(super) type Ask = Box<dyn Fn() -> io::Result<UnixStream> + Send + Sync>;

/// What this agent lends, and where it borrows.
pub struct Lending {
    lent: Mutex<HashMap<SocketAddr, TcpListener>>,
    ask: Ask,
}

impl Lending {
    /// Lends nothing yet, and borrows from the agent that `ask` leads to.
    pub fn new(ask: Ask) -> Self {
        Self {
            lent: Mutex::default(),
            ask,
        }
    }

    /// Hands all that is lent over a connection. Each listener is then the other agent's as well.
    ///
    /// # Errors
    ///
    /// When the other end does not take it at once.
    pub fn lend(&self, stream: &UnixStream) -> io::Result<()> {
        let lent = self.lent();
        let descriptors: Vec<RawFd> = lent.values().take(MOST).map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let rights = if descriptors.is_empty() {
            &[][..]
        } else {
            &rights
        };
        // A message of rights alone is none.
        let payload = [IoSlice::new(&[0])];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(stream.as_raw_fd(), &payload, rights, flags, None)?;
        Ok(())
    }

    /// The other agent's listener at an address. May block for a moment.
    pub(super) fn borrow(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let listeners = receive(&(self.ask)()?)?;
        let wanted = |listener: &TcpListener| listener.local_addr().is_ok_and(|it| it == address);
        let listener = listeners.into_iter().find(wanted);
        listener.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Lends a listener from now on, or none any more.
    pub(super) fn set(&self, address: SocketAddr, listener: Option<TcpListener>) {
        match listener {
            Some(listener) => self.lent().insert(address, listener),
            None => self.lent().remove(&address),
        };
    }

    fn lent(&self) -> MutexGuard<'_, HashMap<SocketAddr, TcpListener>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listeners that the other end lends.
fn receive(stream: &UnixStream) -> io::Result<Vec<TcpListener>> {
    let mut byte = [0];
    let mut payload = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([RawFd; MOST]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut payload, Some(&mut space), flags)?;
    let rights = message.cmsgs()?.filter_map(|part| match part {
        ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    // SAFETY: the kernel has just opened these for this process, and nobody else knows of them.
    let own = |descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(rights.flatten().map(own).map(TcpListener::from).collect())
}
