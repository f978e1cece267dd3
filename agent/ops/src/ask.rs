//! `podcreds probe`: asks a running agent how it is, through the socket that it alone serves.
//!
//! Where two agents share a node's network, a port does not tell which of them answers.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use podcreds_local::{connect, exchange, parse_answer};

/// The agent answers within milliseconds, and on a busy machine within a second, or not at all.
/// Less than kubelet waits, so that it hears why.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than any answer has.
const LONGEST_ANSWER: usize = 64 * 1024;

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
    let answer = fetch(socket, path, PATIENCE).map_err(|source| ProbeError::NoAnswer {
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

fn fetch(socket: &Path, path: &str, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let stream = connect(socket, deadline)?;
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    let mut answer = Vec::new();
    exchange(
        &stream,
        request.as_bytes(),
        &mut answer,
        LONGEST_ANSWER,
        deadline,
    )?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use tokio::net::UnixSocket;

    use super::*;

    #[tokio::test]
    async fn an_agent_that_accepts_nobody_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent.sock");
        let agent = UnixSocket::new_stream().unwrap();
        agent.bind(&socket).unwrap();
        let _agent = agent.listen(1).unwrap();
        let patience = Duration::from_millis(50);
        let mut waiting = Vec::new();
        while let Ok(one) = connect(&socket, Instant::now() + patience) {
            waiting.push(one);
        }
        let (answer, answered) = mpsc::channel();
        thread::spawn(move || answer.send(fetch(&socket, "/healthz", patience)));
        let answer = answered.recv_timeout(Duration::from_secs(20));
        let error = answer.expect("it waits for ever").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
