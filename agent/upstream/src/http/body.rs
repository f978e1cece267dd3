//! Reading answers: no more than fits, into a buffer that is wiped.

use std::{error::Error, mem};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use zeroize::Zeroizing;

/// The largest answer that is read, in bytes. EKS Auth's have some 3 KB, key sets a few keys of 400
/// bytes.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// What most answers fit into.
const USUAL: usize = 8 * 1024;

/// An answer has no end.
#[derive(Debug, thiserror::Error)]
#[error("the answer is larger than {MAX_BYTES} bytes")]
pub(super) struct TooLarge;

/// The whole body. What it was read into is wiped when the last of its clones goes.
///
/// # Errors
///
/// [`TooLarge`], and those of the connection.
pub(super) async fn read(mut body: Incoming) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    let promised = body.size_hint().lower();
    if promised > MAX_BYTES as u64 {
        return Err(TooLarge.into());
    }
    let mut read = Zeroizing::new(Vec::with_capacity(USUAL.max(promised as usize)));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if read.len() + data.len() > MAX_BYTES {
                return Err(TooLarge.into());
            }
            append(&mut read, &data);
        }
    }
    Ok(Bytes::from_owner(read))
}

/// Appends, and leaves no copy behind where it takes a larger buffer.
fn append(buffer: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    let needed = buffer.len() + data.len();
    if needed > buffer.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
        larger.extend_from_slice(buffer);
        drop(mem::replace(buffer, larger));
    }
    buffer.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_grows_is_kept_whole() {
        let mut buffer = Zeroizing::new(Vec::new());
        for count in 1..100 {
            append(&mut buffer, &[count; 37]);
        }
        assert_eq!(buffer.len(), 99 * 37);
        assert_eq!((buffer[0], buffer[99 * 37 - 1]), (1, 99));
    }
}
