//! Pods and tokens for tests, by number and name.

use podcreds_types::{PodUid, Token, TokenDigest};

use crate::Subject;

/// A pod's UID.
#[expect(
    clippy::expect_used,
    reason = "32 hexadecimal digits are a UID whatever they are"
)]
pub fn uid(number: u16) -> PodUid {
    format!("{number:032x}").parse().expect("a UID")
}

/// A pod.
pub fn subject(pod: u16) -> Subject {
    Subject::Pod(uid(pod))
}

/// A token's digest.
pub fn digest(token: &str) -> TokenDigest {
    Token::new(token).digest()
}
