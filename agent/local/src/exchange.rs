//! Exchanges with whatever answers, which may do so a byte at a time, or not at all.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use zeroize::Zeroizing;

/// How much is read at once.
const CHUNK: usize = 16 * 1024;
/// With less than this left, the time counts as over: a limit of zero would be none.
const SHORTEST: Duration = Duration::from_millis(1);

/// Connects to a Unix socket. A process that stands still accepts nobody, and where as many wait as
/// it has room for, the next one would wait with them for ever.
///
/// # Errors
///
/// When nobody listens there; `TimedOut` when the deadline is over.
pub fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    // This limits connecting as well.
    socket.set_write_timeout(Some(left(deadline)?))?;
    socket.connect(&SockAddr::unix(path)?).map_err(in_words)?;
    Ok(socket.into())
}

/// Sends a request, and appends what comes back to `answer`: at most `most` bytes. All of it has
/// until `deadline`.
///
/// # Errors
///
/// When the connection fails; `TimedOut` when the deadline is over before its end.
pub fn exchange<S>(
    mut stream: &S,
    request: &[u8],
    answer: &mut Vec<u8>,
    most: usize,
    deadline: Instant,
) -> io::Result<()>
where
    S: AsFd,
    for<'a> &'a S: Read + Write,
{
    let limits = SockRef::from(stream);
    limits.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request).map_err(in_words)?;
    // There may be secrets in it.
    let mut chunk = Zeroizing::new([0; CHUNK]);
    while answer.len() < most {
        limits.set_read_timeout(Some(left(deadline)?))?;
        let room = CHUNK.min(most - answer.len());
        let Some(space) = chunk.get_mut(..room) else {
            break;
        };
        match stream.read(space) {
            Ok(0) => break,
            Ok(count) => answer.extend(space.iter().take(count)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(in_words(error)),
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        left if left < SHORTEST => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// The kernel says that a limit is over as if somebody had not wanted to wait.
fn in_words(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        thread,
    };

    use super::*;

    #[test]
    fn one_that_answers_a_byte_at_a_time_does_not_hold_it_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut to, _) = listener.accept().unwrap();
        // At once, so that there is something however late the thread is.
        to.write_all(b"x").unwrap();
        thread::spawn(move || {
            while to.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        let started = Instant::now();
        let deadline = started + Duration::from_millis(100);
        let mut answer = Vec::new();
        let late = exchange(&stream, b"x", &mut answer, 1 << 20, deadline);
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(!answer.is_empty());
        assert!(started.elapsed() < Duration::from_secs(2));
        let deadline = Instant::now() + Duration::from_secs(5);
        answer.clear();
        exchange(&stream, b"x", &mut answer, 3, deadline).unwrap();
        assert_eq!(answer, b"xxx");
    }

    #[test]
    fn one_that_accepts_nobody_or_says_nothing_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let agent = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        agent.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        agent.listen(1).unwrap();
        let patience = Duration::from_millis(50);
        let mut waiting = Vec::new();
        let (error, took) = loop {
            let started = Instant::now();
            match connect(&path, started + patience) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break (error, started.elapsed()),
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(
            (patience - SHORTEST..50 * patience).contains(&took),
            "{took:?}"
        );
        let first = waiting.first().expect("there was room for some");
        let deadline = Instant::now() + patience;
        let silent = exchange(first, b"x", &mut Vec::new(), 1, deadline);
        assert_eq!(silent.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
