//! A socket in the file system that this agent alone answers on.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// A socket that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}: {source}; choose another with {flag}", path.display())]
pub struct SocketError {
    /// Where.
    pub path: PathBuf,
    /// The flag that moves it.
    pub flag: &'static str,
    /// Why not.
    pub source: io::Error,
}

/// Listens on a socket. One that a process has left behind is replaced; one that answers is not.
///
/// # Errors
///
/// A [`SocketError`] that names the `flag` to change.
pub fn bind(path: &Path, flag: &'static str) -> Result<UnixListener, SocketError> {
    replace(path).map_err(|source| SocketError {
        path: path.to_owned(),
        flag,
        source,
    })
}

fn replace(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        result => result,
    }
}

/// Whether it is a socket that nobody answers on any more.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAG: &str = "--probe-socket";

    #[tokio::test]
    async fn a_socket_is_replaced_when_nobody_answers_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let first = bind(&path, FLAG).unwrap();
        let taken = bind(&path, FLAG).unwrap_err().to_string();
        assert!(
            taken.contains(FLAG) && taken.contains("agent.sock"),
            "{taken}"
        );
        drop(first);
        assert!(path.exists());
        let _second = bind(&path, FLAG).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "mine").unwrap();
        bind(&path, FLAG).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
