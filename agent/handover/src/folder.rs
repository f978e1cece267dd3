//! The folder in which agents meet: two locks and two sockets, all of them root's.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::{UnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
};

use podcreds_local::{FolderProblem, RootFolder, check_owner};
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixStream;

use super::{HandoverError, error::HandoverProblem};

/// Held by the agent that has the say.
pub(super) const LEADER: &str = "leader.lock";
/// Held by the agent that comes next.
pub(super) const SUCCESSOR: &str = "heir.lock";
/// Where the leader tells the successor what it has.
pub(super) const TALK: &str = "leader.sock";
/// Where it lends the successor what cannot be told.
pub(super) const LEND: &str = "lend.sock";
/// Successors that wait to be heard. There is only one at a time.
const BACKLOG: i32 = 4;

/// A folder that only root can have prepared.
pub(super) struct HandoverFolder {
    path: PathBuf,
    folder: RootFolder,
}

/// A lock that ends with its holder, however that ends.
pub(super) struct Lock {
    _file: File,
}

impl HandoverFolder {
    /// Opens the folder, and makes it if need be.
    pub(super) fn open(path: &Path) -> Result<Self, HandoverError> {
        let folder = RootFolder::open(path).map_err(|problem| HandoverError::new(path, problem))?;
        let path = path.to_owned();
        Ok(Self { path, folder })
    }

    /// Takes a lock, unless another agent holds it.
    pub(super) fn try_lock(&self, name: &str) -> Result<Option<Lock>, HandoverError> {
        let path = self.path.join(name);
        let flags =
            OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open(self.folder.inside(name), flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| match errno {
                Errno::LOOP | Errno::ISDIR | Errno::NXIO => HandoverProblem::NoFile(errno.into()),
                errno => FolderProblem::Io(errno.into()).into(),
            })
            .map_err(|problem| HandoverError::new(&path, problem))?;
        let file = File::from(file);
        let metadata = self.io(file.metadata())?;
        check_owner(&metadata).map_err(|problem| HandoverError::new(&path, problem))?;
        // Who can read a file can lock it.
        if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
            return Err(HandoverError::new(&path, HandoverProblem::Shared));
        }
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => self.io(Err(error)),
        }
    }

    /// Listens for the successor. Only the holder of [`LEADER`] does that, so a socket that is
    /// there is a dead one's.
    pub(super) fn listen(&self, name: &str) -> Result<UnixListener, HandoverError> {
        if self.has_socket(name)? {
            self.io(fs::remove_file(self.folder.inside(name)))?;
        }
        self.io(self.folder.listen(name, BACKLOG))
    }

    /// Connects to the leader. `None` if it does not listen.
    pub(super) async fn connect(&self) -> Result<Option<UnixStream>, HandoverError> {
        if !self.has_socket(TALK)? {
            return Ok(None);
        }
        Ok(UnixStream::connect(self.folder.inside(TALK)).await.ok())
    }

    /// Connects to where the leader lends. Does not wait for one that stands still, but reading
    /// there may.
    pub(super) fn connect_to_lender(&self) -> io::Result<StdUnixStream> {
        if !self.has_socket(LEND).map_err(io::Error::other)? {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        socket.connect(&SockAddr::unix(self.folder.inside(LEND))?)?;
        socket.set_nonblocking(false)?;
        Ok(socket.into())
    }

    /// Looks at the sockets, if they are there.
    pub(super) fn check_sockets(&self) -> Result<(), HandoverError> {
        [TALK, LEND]
            .iter()
            .try_for_each(|name| self.has_socket(name).map(drop))
    }

    /// Whether the socket is there, and one that root has made.
    fn has_socket(&self, name: &str) -> Result<bool, HandoverError> {
        let path = self.path.join(name);
        let metadata = match fs::symlink_metadata(self.folder.inside(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            metadata => self.io(metadata)?,
        };
        if !metadata.file_type().is_socket() {
            return Err(HandoverError::new(&path, HandoverProblem::NoSocket));
        }
        check_owner(&metadata).map_err(|problem| HandoverError::new(&path, problem))?;
        Ok(true)
    }

    fn io<T>(&self, result: io::Result<T>) -> Result<T, HandoverError> {
        result.map_err(|error| HandoverError::new(&self.path, FolderProblem::Io(error)))
    }
}
