//! Listeners of the host that agents share: the one that comes next takes them over from the one
//! that is there.
//!
//! Sharing an address with `SO_REUSEPORT` would do without any of this, but the kernel then lets
//! every program of the same user listen there too, a pod in the host's network perhaps, and get
//! other pods' tokens.

use std::{
    collections::{HashMap, HashSet},
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

/// The most listeners that are lent, one for each address.
const MOST: usize = 32;

/// How many bytes their descriptors take in a message.
const SPACE: usize = cmsg_space!(ScmRights(MOST));

/// A way to the agent that is here already. May block for a moment.
pub(crate) type Ask = Box<dyn Fn() -> io::Result<UnixStream> + Send + Sync>;

/// What this agent lends, and where it borrows.
pub struct Lending {
    listeners: Mutex<Listeners>,
    ask: Ask,
}

#[derive(Default)]
struct Listeners {
    lent: HashMap<SocketAddr, TcpListener>,
    /// Where another agent may have the same listener.
    shared: HashSet<SocketAddr>,
}

impl Lending {
    /// Lends nothing yet, and borrows from the agent that `ask` leads to.
    pub fn new(ask: Ask) -> Self {
        Self {
            listeners: Mutex::default(),
            ask,
        }
    }

    /// Hands all that is lent over a connection. Each listener is then the other agent's as well.
    ///
    /// # Errors
    ///
    /// When the other end does not take it at once.
    pub fn lend(&self, stream: &UnixStream) -> io::Result<()> {
        let mut listeners = self.listeners();
        let Listeners { lent, shared } = &mut *listeners;
        let descriptors: Vec<BorrowedFd<'_>> = lent.values().take(MOST).map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // A message without a byte of payload is none.
        let payload = [IoSlice::new(&[0])];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        shared.extend(lent.keys());
        sendmsg(stream, &payload, &mut rights, flags)?;
        Ok(())
    }

    /// The other agent's listener at an address. May block for a moment.
    pub(crate) fn borrow(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let listeners = receive(&(self.ask)()?)?;
        let wanted = |listener: &TcpListener| listener.local_addr().is_ok_and(|it| it == address);
        let listener = listeners.into_iter().find(wanted);
        let listener = listener.ok_or(io::ErrorKind::NotFound)?;
        self.listeners().shared.insert(address);
        Ok(listener)
    }

    /// Lends a listener from now on, or none any more. Returns whether no other agent can have the
    /// one at this address.
    pub(crate) fn set(&self, address: SocketAddr, listener: Option<TcpListener>) -> bool {
        let mut listeners = self.listeners();
        match listener {
            Some(listener) => listeners.lent.insert(address, listener),
            None => listeners.lent.remove(&address),
        };
        !listeners.shared.contains(&address)
    }

    /// Takes it that no other agent has any of the listeners, unless it borrows after this.
    pub(crate) fn forget_others(&self) {
        self.listeners().shared.clear();
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listeners that the other end lends.
fn receive(stream: &UnixStream) -> io::Result<Vec<TcpListener>> {
    let mut byte = [0];
    let mut payload = [IoSliceMut::new(&mut byte)];
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    recvmsg(stream, &mut payload, &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = rights.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(descriptors.flatten().map(TcpListener::from).collect())
}
