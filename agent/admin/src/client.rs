//! The commands' side: asks all agents that answer.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use podcreds_local::{check_peer, connect, exchange, parse_answer};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    SetLogLevel, Target,
    server::{LOG_LEVEL, REFRESH, STATUS},
    socket::{PREFIX, SUFFIX},
};

/// An agent answers within milliseconds, on a busy machine within a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// It waits half a minute for EKS Auth.
const REFRESH_PATIENCE: Duration = Duration::from_secs(45);
/// More than any answer has.
const LONGEST: usize = 64 << 20;

/// What an operator asks.
#[derive(Clone, Debug)]
pub enum Question {
    /// How is it?
    Status,
    /// Fetch credentials anew.
    Refresh(Target),
    /// How much is logged?
    LogLevel,
    /// Log so much.
    SetLogLevel(SetLogLevel),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The caller may not look.
    #[error("{folder}: only root may ask an agent; run this as root", folder = .0.display())]
    NotPermitted(PathBuf),
    /// Nobody is there.
    #[error(
        "no agent answers in {folder}: is it running on this node? Run this where it runs, such as \
         inside its container (kubectl exec -n NAMESPACE POD -- /podcreds status), and name its \
         --admin-dir if it has one",
        folder = .0.display()
    )]
    Nobody(PathBuf),
    /// One is there and does not answer.
    #[error("the agent at {socket} does not answer: {source}", socket = socket.display())]
    NoAnswer {
        /// Where it is.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no such pod.
    #[error("{0}")]
    NotFound(String),
    /// It does not take the question.
    #[error("{0}")]
    Invalid(String),
}

/// Asks every agent in the folder, at the same time. What each says, or why it does not. An agent
/// that has ended is not among them.
///
/// # Errors
///
/// When none is there, or the caller may not look.
pub fn ask_all<T: DeserializeOwned + Send>(
    folder: &Path,
    question: &Question,
) -> Result<Vec<Result<T, AskError>>, AskError> {
    let nobody = || AskError::Nobody(folder.to_owned());
    let entries = fs::read_dir(folder).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => AskError::NotPermitted(folder.to_owned()),
        _ => nobody(),
    })?;
    let is_socket = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
    };
    let mut sockets: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_socket)
        .collect();
    sockets.sort();
    let answers: Vec<_> = thread::scope(|scope| {
        let start = |socket| scope.spawn(move || ask::<T>(socket, question));
        let asked: Vec<_> = sockets.iter().map(PathBuf::as_path).map(start).collect();
        asked
            .into_iter()
            .filter_map(|asked| asked.join().ok().flatten())
            .collect()
    });
    match answers.is_empty() {
        true => Err(nobody()),
        false => Ok(answers),
    }
}

/// Asks the agent at one socket. `None` if it has ended.
fn ask<T: DeserializeOwned>(socket: &Path, question: &Question) -> Option<Result<T, AskError>> {
    let asked = Instant::now();
    let answer = fetch(socket, question);
    tracing::debug!(
        socket = %socket.display(),
        elapsed = ?asked.elapsed(),
        error = answer.as_ref().err().map(tracing::field::display),
        "asked an agent"
    );
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Some(Err(AskError::NotPermitted(socket.to_owned())));
        }
        Err(source) => return Some(Err(no_answer(socket, source))),
    };
    Some(understand(socket, &answer))
}

fn fetch(socket: &Path, question: &Question) -> io::Result<Vec<u8>> {
    let stream = connect(socket, Instant::now() + PATIENCE)?;
    check_peer(&stream)?;
    let patience = match question {
        Question::Refresh(_) => REFRESH_PATIENCE,
        _ => PATIENCE,
    };
    let deadline = Instant::now() + patience;
    let (method, path, body) = match question {
        Question::Status => ("GET", STATUS, String::new()),
        Question::LogLevel => ("GET", LOG_LEVEL, String::new()),
        Question::SetLogLevel(wanted) => ("PUT", LOG_LEVEL, serde_json::to_string(wanted)?),
        Question::Refresh(target) => ("POST", REFRESH, serde_json::to_string(target)?),
    };
    let length = body.len();
    // In this version of HTTP an answer ends with the connection.
    let request = format!("{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
    let mut answer = Vec::new();
    exchange(&stream, request.as_bytes(), &mut answer, LONGEST, deadline)?;
    Ok(answer)
}

#[derive(Deserialize)]
struct Failure {
    error: String,
}

fn understand<T: DeserializeOwned>(socket: &Path, answer: &[u8]) -> Result<T, AskError> {
    let Some((status, body)) = parse_answer(answer) else {
        return Err(no_answer(socket, io::ErrorKind::UnexpectedEof.into()));
    };
    let failure = || match serde_json::from_slice(body) {
        Ok(Failure { error }) => error,
        Err(error) => error.to_string(),
    };
    match status {
        200 => serde_json::from_slice(body)
            .map_err(|error| no_answer(socket, io::Error::new(io::ErrorKind::InvalidData, error))),
        403 => Err(AskError::NotPermitted(socket.to_owned())),
        404 => Err(AskError::NotFound(failure())),
        400 => Err(AskError::Invalid(failure())),
        _ => Err(no_answer(socket, io::Error::other(failure()))),
    }
}

fn no_answer(socket: &Path, source: io::Error) -> AskError {
    let socket = socket.to_owned();
    AskError::NoAnswer { socket, source }
}
