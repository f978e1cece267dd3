//! A blocking HTTP/1 client that sends exactly what it is told and hides nothing.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde::Serialize;

/// Far more than any answer here.
const LIMIT: usize = 4 << 20;

/// An answer, as it came.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// Whether the server lets the connection live on.
    pub keep_alive: bool,
}

impl Answer {
    /// The value of the first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(held, _)| held == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.body).ok()
    }
}

/// Reads one answer.
///
/// # Errors
///
/// The stream's errors; `UnexpectedEof` when it ends before the answer does; `InvalidData` for what
/// is no HTTP/1 answer with a length or an end.
pub fn read_answer(stream: &mut impl Read) -> io::Result<Answer> {
    let mut received = Vec::with_capacity(4096);
    let (mut answer, start) = loop {
        if let Some(head) = parse_head(&received)? {
            break head;
        }
        if fill(stream, &mut received)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let length = match answer.header("content-length") {
        Some(text) => Some(text.parse::<usize>().map_err(invalid)?),
        None if answer.header("transfer-encoding").is_some() => return Err(invalid("chunked")),
        None if answer.status == 204 => Some(0),
        None => None,
    };
    let mut body = received.split_off(start);
    match length {
        Some(length) => {
            while body.len() < length {
                if fill(stream, &mut body)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            body.truncate(length);
        }
        None => while fill(stream, &mut body)? > 0 {},
    }
    answer.keep_alive &= length.is_some();
    answer.body = String::from_utf8(body).map_err(invalid)?;
    Ok(answer)
}

/// Takes what was received on a connection apart into its answers.
///
/// # Errors
///
/// `UnexpectedEof` when the last answer is not complete; `InvalidData` for what is no HTTP/1
/// answer.
pub fn split_answers(mut received: &[u8]) -> io::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    while !received.is_empty() {
        let (mut answer, start) = parse_head(received)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = answer.header("content-length").unwrap_or("0");
        let end = start + length.parse::<usize>().map_err(invalid)?;
        let body = received
            .get(start..end)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        answer.body = String::from_utf8(body.to_vec()).map_err(invalid)?;
        answers.push(answer);
        received = &received[end..];
    }
    Ok(answers)
}

fn parse_head(received: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let start = match response.parse(received).map_err(invalid)? {
        httparse::Status::Complete(start) => start,
        httparse::Status::Partial => return Ok(None),
    };
    let headers: Vec<(String, String)> = response
        .headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_ascii_lowercase(), value)
        })
        .collect();
    let mut answer = Answer {
        status: response.code.unwrap_or_default(),
        headers,
        body: String::new(),
        keep_alive: false,
    };
    answer.keep_alive = match answer
        .header("connection")
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("close") => false,
        Some("keep-alive") => true,
        _ => response.version == Some(1),
    };
    Ok(Some((answer, start)))
}

fn fill(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<usize> {
    if buffer.len() > LIMIT {
        return Err(invalid("the answer has no end"));
    }
    let mut chunk = [0; 4096];
    let count = stream.read(&mut chunk)?;
    buffer.extend_from_slice(&chunk[..count]);
    Ok(count)
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// `GET` of a `http://HOST:PORT/PATH` URL on a connection of its own, within five seconds.
///
/// # Errors
///
/// What connecting, sending or [`read_answer`] ran into.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    get_within(address, path, Duration::from_secs(5))
}

/// The same with another limit for connecting, and for each wait for bytes.
///
/// # Errors
///
/// What connecting, sending or [`read_answer`] ran into.
pub fn get_within(address: SocketAddr, path: &str, timeout: Duration) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    read_answer(&mut stream)
}
