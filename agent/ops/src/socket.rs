//! A socket in the file system that this agent alone answers on.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use podcreds_local::connect;
use tokio::net::UnixListener;

/// To connect. Who listens and has room for another client takes it at once.
const PATIENCE: Duration = Duration::from_millis(100);

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
    // One that stands still is there, and may not have room for another client.
    is_socket && connect(path, Instant::now() + PATIENCE).is_err_and(refused)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use tokio::net::UnixSocket;

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
        assert!(connect(&path, Instant::now() + PATIENCE).is_ok());
    }

    #[tokio::test]
    async fn one_that_stands_still_is_there_and_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let agent = UnixSocket::new_stream().unwrap();
        agent.bind(&path).unwrap();
        let _agent = agent.listen(1).unwrap();
        let mut waiting = Vec::new();
        while let Ok(one) = connect(&path, Instant::now() + PATIENCE) {
            waiting.push(one);
        }
        let (send, receive) = mpsc::channel();
        thread::spawn(move || send.send(is_left_behind(&path)));
        let is_left_behind = receive.recv_timeout(Duration::from_secs(20));
        assert!(!is_left_behind.expect("it waits for ever"));
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
