//! What two agents say to each other, in bytes.
//!
//! Each begins with a greeting that names its version of all that follows, and says nothing more to
//! one that speaks another. Then the leader sends frames, and the successor says one word: that it
//! serves. A leader whose first frame is [`Frame::Extended`] also understands frames, of which the
//! successor's first one is the same.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// What every greeting begins with.
const NAME: &[u8; 8] = b"podcreds";
/// The version of the frames and of what is in them. A change of either counts it up,
/// unless an earlier build passes over what is new.
pub(super) const VERSION: u16 = 1;
/// The longest frame: a token and a body are a few KiB each.
pub(super) const LONGEST: u32 = 256 * 1024;
/// The longest frame that is passed over. After one that claims to be longer nothing can be
/// believed.
const LONGEST_SKIPPED: u32 = 16 * 1024 * 1024;

/// The successor's word.
const SERVING: u8 = b'!';

const CHANGE: u8 = 1;
const COMPLETE: u8 = 2;
const LEAVING: u8 = 3;
const EXTENDED: u8 = 4;
const REACH: u8 = 5;
const REACHED: u8 = 6;

/// One frame.
pub(super) enum Frame {
    /// What goes beyond the first builds is understood: changes that the successor tells, and
    /// questions about listeners.
    Extended,
    /// The leader asks whether the successor reaches these listeners: a question, in bytes.
    Reach(Vec<u8>),
    /// The successor reaches all listeners of the question with this number.
    Reached(u64),
    /// A change, in bytes.
    Change(Zeroizing<Vec<u8>>),
    /// The successor knows all there is. From here on it hears of what changes.
    Complete,
    /// The leader no longer serves, and this is its last word.
    Leaving,
    /// Something that this agent does not understand. It is only received.
    Unknown(&'static str),
}

/// Says which version this agent speaks.
pub(super) async fn greet(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut greeting = [0; 10];
    greeting[..8].copy_from_slice(NAME);
    greeting[8..].copy_from_slice(&VERSION.to_be_bytes());
    stream.write_all(&greeting).await
}

/// Hears which version the other one speaks.
pub(super) async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u16> {
    let mut name = [0; 8];
    stream.read_exact(&mut name).await?;
    if name != *NAME {
        return Err(nonsense("not an agent's greeting"));
    }
    stream.read_u16().await
}

/// Sends one frame.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let number;
    let (kind, payload) = match frame {
        Frame::Extended => (EXTENDED, [].as_slice()),
        Frame::Reach(bytes) => (REACH, bytes.as_slice()),
        Frame::Reached(question) => {
            number = question.to_be_bytes();
            (REACHED, number.as_slice())
        }
        Frame::Change(bytes) => (CHANGE, bytes.as_slice()),
        Frame::Complete => (COMPLETE, [].as_slice()),
        Frame::Leaving => (LEAVING, [].as_slice()),
        Frame::Unknown(what) => return Err(nonsense(what)),
    };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    if length > LONGEST {
        return Err(nonsense("a frame that is too long to send"));
    }
    stream.write_u8(kind).await?;
    stream.write_u32(length).await?;
    // Straight from the buffer that will be wiped: one in between would keep a copy.
    stream.write_all(payload).await
}

/// Receives one frame. Not to be given up half-way.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let kind = stream.read_u8().await?;
    receive_rest(stream, kind).await
}

async fn receive_rest(stream: &mut (impl AsyncRead + Unpin), kind: u8) -> io::Result<Frame> {
    let length = stream.read_u32().await?;
    if length > LONGEST {
        skip(stream, length).await?;
        return Ok(Frame::Unknown("it is too long"));
    }
    let mut payload = Zeroizing::new(vec![0; length as usize]);
    stream.read_exact(&mut payload).await?;
    match kind {
        CHANGE => Ok(Frame::Change(payload)),
        COMPLETE if payload.is_empty() => Ok(Frame::Complete),
        LEAVING if payload.is_empty() => Ok(Frame::Leaving),
        EXTENDED if payload.is_empty() => Ok(Frame::Extended),
        REACH => Ok(Frame::Reach(payload.to_vec())),
        REACHED => Ok(match <[u8; 8]>::try_from(payload.as_slice()) {
            Ok(number) => Frame::Reached(u64::from_be_bytes(number)),
            Err(_) => Frame::Unknown("it is no number"),
        }),
        _ => Ok(Frame::Unknown("it is of an unknown kind")),
    }
}

/// Reads so many bytes and keeps none of them.
async fn skip(stream: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<()> {
    if length > LONGEST_SKIPPED {
        return Err(nonsense("a frame that is far too long"));
    }
    let mut left = length as usize;
    let mut buffer = Zeroizing::new(vec![0; 16 * 1024]);
    while left > 0 {
        let part = left.min(buffer.len());
        stream.read_exact(&mut buffer[..part]).await?;
        left -= part;
    }
    Ok(())
}

/// Says that this agent serves.
pub(super) async fn say_serving(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_u8(SERVING).await
}

/// Receives what a successor says: a frame, or `None` when it says that it serves. Not to be given
/// up half-way.
pub(super) async fn hear_successor(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<Frame>> {
    match stream.read_u8().await? {
        SERVING => Ok(None),
        kind @ (CHANGE | EXTENDED | REACHED) => receive_rest(stream, kind).await.map(Some),
        _ => Err(nonsense("not what a successor says")),
    }
}

/// The other one does not keep to what is agreed.
pub(super) fn nonsense(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::runtime::Builder;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn frames_arrive_as_they_were_sent() {
        let payload = b"some bytes".to_vec();
        let mut wire = Vec::new();
        run(async {
            greet(&mut wire).await.unwrap();
            let change = Frame::Change(Zeroizing::new(payload.clone()));
            let reach = Frame::Reach(payload.clone());
            for frame in [change, Frame::Complete, reach, Frame::Leaving] {
                send(&mut wire, &frame).await.unwrap();
            }
            let mut wire = wire.as_slice();
            assert_eq!(hear(&mut wire).await.unwrap(), VERSION);
            let Frame::Change(received) = receive(&mut wire).await.unwrap() else {
                panic!("not a change");
            };
            assert_eq!(*received, payload);
            assert!(matches!(receive(&mut wire).await, Ok(Frame::Complete)));
            let Frame::Reach(received) = receive(&mut wire).await.unwrap() else {
                panic!("not a question");
            };
            assert_eq!(received, payload);
            assert!(matches!(receive(&mut wire).await, Ok(Frame::Leaving)));
            let end = receive(&mut wire).await.err().map(|error| error.kind());
            assert_eq!(end, Some(io::ErrorKind::UnexpectedEof));
        });
    }

    #[test]
    fn a_successors_words_are_told_from_its_frames() {
        run(async {
            let mut wire = Vec::new();
            send(&mut wire, &Frame::Extended).await.unwrap();
            say_serving(&mut wire).await.unwrap();
            send(&mut wire, &Frame::Reached(7 << 40)).await.unwrap();
            send(&mut wire, &Frame::Leaving).await.unwrap();
            let mut wire = wire.as_slice();
            let mut heard = async || hear_successor(&mut wire).await;
            assert!(matches!(heard().await, Ok(Some(Frame::Extended))));
            assert!(matches!(heard().await, Ok(None)));
            let reached = heard().await;
            assert!(matches!(reached, Ok(Some(Frame::Reached(number))) if number == 7 << 40));
            // Only a leader says that.
            assert!(heard().await.is_err());
        });
    }

    #[test]
    fn too_much_is_not_sent_and_passed_over() {
        run(async {
            let long = Frame::Change(Zeroizing::new(vec![0; LONGEST as usize + 1]));
            let mut wire = Vec::new();
            assert!(send(&mut wire, &long).await.is_err());
            assert!(wire.is_empty());

            wire.push(CHANGE);
            wire.extend((LONGEST + 1).to_be_bytes());
            wire.extend(vec![0; LONGEST as usize + 1]);
            wire.extend([77, 0, 0, 0, 2, 1, 2]);
            send(&mut wire, &Frame::Complete).await.unwrap();
            let mut wire = wire.as_slice();
            for _ in 0..2 {
                assert!(matches!(receive(&mut wire).await, Ok(Frame::Unknown(_))));
            }
            assert!(matches!(receive(&mut wire).await, Ok(Frame::Complete)));
            let mut header = &[CHANGE, 0xff, 0xff, 0xff, 0xff][..];
            let error = receive(&mut header).await.err().map(|error| error.kind());
            assert_eq!(error, Some(io::ErrorKind::InvalidData));
        });
    }

    proptest! {
        #[test]
        fn garbage_is_told_from_frames(bytes: Vec<u8>) {
            run(async {
                let mut wire = bytes.as_slice();
                while receive(&mut wire).await.is_ok() {}
                let heard = hear(&mut bytes.as_slice()).await;
                prop_assert!(heard.is_err() || bytes.starts_with(NAME));
                Ok(())
            })?;
        }
    }
}
