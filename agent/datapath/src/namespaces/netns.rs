//! Network namespaces: which one a process is in, and work inside of one.

use std::{
    fs::{self, File, Metadata},
    io,
    os::{
        fd::AsFd,
        unix::{fs::MetadataExt, net::UnixDatagram},
    },
    path::Path,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sockopt;

/// What tells two namespaces apart without entering them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NetnsId {
    device: u64,
    inode: u64,
}

impl NetnsId {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
        }
    }
}

/// A network namespace, kept alive by an open file.
#[derive(Debug)]
pub(crate) struct Netns {
    file: File,
    id: NetnsId,
}

impl Netns {
    /// The namespace that the agent itself is in: the host's.
    pub(crate) fn of_agent() -> io::Result<Self> {
        Self::open(Path::new("/proc/self/ns/net"))
    }

    /// The namespace that a process is in right now.
    pub(crate) fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// Which namespace a process is in right now, without keeping it alive.
    pub(crate) fn id_of_process(pid: u32) -> io::Result<NetnsId> {
        fs::metadata(format!("/proc/{pid}/ns/net")).map(|file| NetnsId::of(&file))
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let id = NetnsId::of(&file.metadata()?);
        Ok(Self { file, id })
    }

    pub(crate) fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `work` on a thread that has entered the namespace, and waits for it.
    ///
    /// The thread is made for this and ends with it: no thread that serves ever changes its
    /// namespace, so none can be left in a wrong one.
    pub(crate) fn run<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        thread::scope(|scope| {
            let worker = thread::Builder::new()
                .name("netns".to_owned())
                .stack_size(128 * 1024)
                .spawn_scoped(scope, || {
                    let network = Some(LinkNameSpaceType::Network);
                    move_into_link_name_space(self.file.as_fd(), network)?;
                    work()
                })?;
            worker
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
        })
    }
}

/// The cookie of the namespace that the calling thread is in.
pub(crate) fn current_cookie() -> io::Result<u64> {
    sockopt::netns_cookie(&UnixDatagram::unbound()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_namespace_is_its_own() {
        let by_self = Netns::of_agent().unwrap();
        let by_pid = Netns::of_process(std::process::id()).unwrap();
        assert_eq!(by_self.id(), by_pid.id());
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        assert!(Netns::of_process(u32::MAX).is_err());
    }
}
