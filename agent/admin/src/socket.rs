//! An agent's own socket, beside those of others.

use std::{
    fs, io,
    os::unix::net::UnixListener,
    path::Path,
    time::{Duration, SystemTime},
};

use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

use crate::folder::{AdminFolder, FolderError, FolderProblem};

/// How the names of sockets begin and end.
pub(crate) const PREFIX: &str = "admin-";
pub(crate) const SUFFIX: &str = ".sock";
/// How the name of one ends that does not listen yet.
const MAKING: &str = ".new";
/// After so long such a one is a dead agent's.
const MAKING_TAKES: Duration = Duration::from_secs(60);
/// Operators that wait to be accepted.
const BACKLOG: i32 = 16;

/// A socket to which only root can connect. Its file goes when this is dropped.
pub struct Socket {
    pub(crate) listener: UnixListener,
    pub(crate) place: SocketFile,
}

/// The file of a socket, until this is dropped.
pub(crate) struct SocketFile {
    folder: AdminFolder,
    name: String,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it is left behind, the next agent removes it.
        let _ = fs::remove_file(self.folder.inside(&self.name));
    }
}

impl Socket {
    /// Listens in a folder of root's, which is made if need be. What agents that were killed have
    /// left behind there is removed.
    ///
    /// # Errors
    ///
    /// A [`FolderError`] when the folder cannot be used, or could be another user's.
    pub fn bind(path: &Path) -> Result<Self, FolderError> {
        let folder = AdminFolder::open(path)?;
        Self::bind_in(folder).map_err(|error| FolderError::new(path, FolderProblem::Io(error)))
    }

    fn bind_in(folder: AdminFolder) -> io::Result<Self> {
        for name in folder.names(PREFIX)? {
            if is_left_behind(&folder, &name) {
                remove(&folder, &name)?;
            }
        }
        // A name that no other agent has, whatever namespace its process ID is of.
        let own = format!("{PREFIX}{:016x}", fastrand::u64(..));
        let (making, name) = (format!("{own}{MAKING}"), format!("{own}{SUFFIX}"));
        let socket = RawSocket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        // What it is given now is what its file has from the first moment.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        socket.bind(&SockAddr::unix(folder.inside(&making))?)?;
        socket.listen(BACKLOG)?;
        // Not before it listens: one that refuses connections is taken for a dead agent's.
        fs::rename(folder.inside(&making), folder.inside(&name))?;
        Ok(Self {
            listener: socket.into(),
            place: SocketFile { folder, name },
        })
    }
}

/// Removes a file that another agent, which starts as well, may have removed just now.
fn remove(folder: &AdminFolder, name: &str) -> io::Result<()> {
    match fs::remove_file(folder.inside(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Whether nobody answers at a socket any more.
fn is_left_behind(folder: &AdminFolder, name: &str) -> bool {
    let path = folder.inside(name);
    if name.ends_with(MAKING) {
        let made = fs::symlink_metadata(&path).and_then(|found| found.modified());
        let age = made.map(|made| SystemTime::now().duration_since(made));
        return age.is_ok_and(|age| age.is_ok_and(|age| age > MAKING_TAKES));
    }
    let connect = || {
        let socket = RawSocket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        socket.connect(&SockAddr::unix(&path)?)
    };
    // One that stands still has a full queue at most.
    name.ends_with(SUFFIX)
        && connect().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
