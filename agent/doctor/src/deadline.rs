//! Exchanges with whatever answers, which may do so a byte at a time.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// How much is read at once.
const CHUNK: usize = 16 * 1024;

/// Sends a request, and appends what comes back to `answer`: at most `most` bytes. All of it has
/// until `deadline`.
///
/// # Errors
///
/// When the connection fails, or the deadline is over before its end.
pub(crate) fn exchange(
    mut stream: &TcpStream,
    request: &[u8],
    answer: &mut Vec<u8>,
    most: usize,
    deadline: Instant,
) -> io::Result<()> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(request)?;
    let mut chunk = zeroize::Zeroizing::new([0; CHUNK]);
    while answer.len() < most {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let room = CHUNK.min(most - answer.len());
        let Some(space) = chunk.get_mut(..room) else {
            break;
        };
        match stream.read(space) {
            Ok(0) => break,
            Ok(count) => answer.extend(space.iter().take(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn one_that_answers_a_byte_at_a_time_does_not_hold_it_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        thread::spawn(move || {
            let (mut to, _) = listener.accept().unwrap();
            while to.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        let started = Instant::now();
        let deadline = started + Duration::from_millis(100);
        let mut answer = Vec::new();
        let late = exchange(&stream, b"x", &mut answer, 1 << 20, deadline);
        assert!(late.is_err());
        assert!(!answer.is_empty());
        assert!(started.elapsed() < Duration::from_secs(2));
        let deadline = Instant::now() + Duration::from_secs(5);
        answer.clear();
        exchange(&stream, b"x", &mut answer, 3, deadline).unwrap();
        assert_eq!(answer, b"xxx");
    }
}
