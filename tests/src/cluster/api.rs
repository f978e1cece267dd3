//! The API server, for tests: plain requests with all rights, over the socket of `kubectl proxy`.

use std::{
    fmt,
    io::{self, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;

use super::layout::Layout;
use crate::http::client::{Answer, read_answer};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where the API server is.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

/// Why a request has failed.
#[derive(Debug)]
pub enum ApiError {
    /// The API server could not be reached, or broke off.
    Unreachable(io::Error),
    /// It said no.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its reason, in words.
        message: String,
    },
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the API server cannot be reached: {why}"),
            Self::Refused { status, message } => write!(f, "HTTP {status}: {message}"),
        }
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// Whether it says that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

type Result<T> = std::result::Result<T, ApiError>;

impl Api {
    /// That of the node in which this process is.
    pub fn of(layout: &Layout) -> Self {
        Self {
            socket: layout.api_socket(),
        }
    }

    /// Whether it is ready to serve.
    pub fn is_ready(&self) -> bool {
        self.text("/readyz").is_ok()
    }

    /// Reads an object, or a list of them.
    ///
    /// # Errors
    ///
    /// See [`ApiError`].
    pub fn get(&self, path: &str) -> Result<Value> {
        json(&self.text(path)?)
    }

    /// Reads what is text, such as a log.
    ///
    /// # Errors
    ///
    /// See [`ApiError`].
    pub fn text(&self, path: &str) -> Result<String> {
        self.send("GET", path, "", "")
    }

    /// Makes an object, and returns it as it was made.
    ///
    /// # Errors
    ///
    /// See [`ApiError`].
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        json(&self.send("POST", path, "application/json", &object.to_string())?)
    }

    /// Changes those fields of an object that are given.
    ///
    /// # Errors
    ///
    /// See [`ApiError`].
    pub fn patch(&self, path: &str, fields: &Value) -> Result<Value> {
        let kind = "application/merge-patch+json";
        json(&self.send("PATCH", path, kind, &fields.to_string())?)
    }

    /// Deletes an object. One that does not exist is as good.
    ///
    /// # Errors
    ///
    /// See [`ApiError`].
    pub fn delete(&self, path: &str) -> Result<()> {
        match self.send("DELETE", path, "", "") {
            Err(why) if !why.is_not_found() => Err(why),
            _ => Ok(()),
        }
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<String> {
        let answer = self
            .exchange(method, path, kind, body)
            .map_err(ApiError::Unreachable)?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        let status = answer.json().unwrap_or_default();
        let message = status["message"].as_str().unwrap_or(&answer.body);
        Err(ApiError::Refused {
            status: answer.status,
            message: message.to_owned(),
        })
    }

    fn exchange(&self, method: &str, path: &str, kind: &str, body: &str) -> io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        // An answer in HTTP/1.0 ends with the connection, so it never comes in chunks.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        read_answer(&mut stream)
    }
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|why| ApiError::Unreachable(why.into()))
}
