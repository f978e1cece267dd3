//! `podcreds probe`: asks a running agent how it is, through the socket that it alone serves.
//!
//! Where two agents share a node's network, a port does not tell which of them answers.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use podcreds_local::parse_answer;

/// The agent answers within milliseconds, and on a busy machine within a second, or not at all.
/// Less than kubelet waits, so that it hears why.
const TIMEOUT: Duration = Duration::from_secs(3);
/// More than any answer has.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The agent says that it is not well, in these words.
    #[error("{0}")]
    Unwell(String),
    /// There is no answer.
    #[error("no answer from {socket}: {source}", socket = socket.display())]
    NoAnswer {
        /// The socket that was asked.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Asks for `path`, and returns the answer's text.
///
/// # Errors
///
/// Any [`ProbeError`].
pub fn ask(socket: &Path, path: &str) -> Result<String, ProbeError> {
    let answer = fetch(socket, path).map_err(|source| ProbeError::NoAnswer {
        socket: socket.to_owned(),
        source,
    })?;
    let (status, body) = parse_answer(&answer).unwrap_or_default();
    let body = String::from_utf8_lossy(body);
    match status {
        200 => Ok(body.into_owned()),
        _ => Err(ProbeError::Unwell(body.trim_end().to_owned())),
    }
}

fn fetch(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}
