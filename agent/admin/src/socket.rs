//! An agent's own socket, beside those of others.

use std::{
    fs, io,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use podcreds_local::{FolderProblem, RootFolder};
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};

/// How the names of sockets begin and end.
pub(crate) const PREFIX: &str = "admin-";
pub(crate) const SUFFIX: &str = ".sock";
/// How the name of one ends that does not listen yet.
const MAKING: &str = ".new";
/// After so long such a one is a dead agent's.
const MAKING_TAKES: Duration = Duration::from_secs(60);
/// Operators that wait to be accepted.
const BACKLOG: i32 = 16;

/// Why there is no socket for operators.
#[derive(Debug, thiserror::Error)]
#[error("--admin-dir {path}: {problem}", path = path.display())]
pub struct FolderError {
    path: PathBuf,
    #[source]
    problem: FolderProblem,
}

/// A socket to which only root can connect. Its file goes when this is dropped.
pub struct Socket {
    pub(crate) listener: UnixListener,
    pub(crate) place: SocketFile,
}

/// The file of a socket, until this is dropped.
pub(crate) struct SocketFile {
    folder: RootFolder,
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
        let bound = RootFolder::open(path).and_then(|folder| Ok(Self::bind_in(folder)?));
        bound.map_err(|problem| FolderError {
            path: path.to_owned(),
            problem,
        })
    }

    fn bind_in(folder: RootFolder) -> io::Result<Self> {
        for name in names(&folder)? {
            if is_left_behind(&folder, &name) {
                remove(&folder, &name)?;
            }
        }
        // A name that no other agent has, whatever namespace its process ID is of.
        let own = format!("{PREFIX}{:016x}", fastrand::u64(..));
        let (making, name) = (format!("{own}{MAKING}"), format!("{own}{SUFFIX}"));
        let listener = folder.listen(&making, BACKLOG)?;
        // Not before it listens: one that refuses connections is taken for a dead agent's.
        fs::rename(folder.inside(&making), folder.inside(&name))?;
        Ok(Self {
            listener,
            place: SocketFile { folder, name },
        })
    }
}

/// The names of sockets in it.
fn names(folder: &RootFolder) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder.inside("."))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(PREFIX)).collect())
}

/// Removes a file that another agent, which starts as well, may have removed just now.
fn remove(folder: &RootFolder, name: &str) -> io::Result<()> {
    match fs::remove_file(folder.inside(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Whether nobody answers at a socket any more.
fn is_left_behind(folder: &RootFolder, name: &str) -> bool {
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
