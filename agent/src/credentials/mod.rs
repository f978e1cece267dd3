//! Credentials in memory: what has been fetched, kept ready to be sent.

use crate::types::{PodUid, TokenDigest};

/// Whose credentials are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A pod that the kernel has identified.
    Pod(PodUid),
    /// Whoever holds this token: on the node path nothing else says who is asking, and claims that
    /// nobody has verified must not choose somebody else's entry.
    Bearer(TokenDigest),
}
