//! The tokens of one pod that its credentials may be given to.

use std::mem;

use crate::types::{Token, TokenDigest};

/// Older tokens that are good beside the latest one: processes read a rotated token at their leisure.
const OLDER: usize = 3;

/// Tokens that EKS Auth has accepted, or that somebody has verified.
#[derive(Default)]
pub(super) struct Accepted {
    /// The last one, in place: it is the one that nearly every request shows.
    latest: Option<TokenDigest>,
    /// Those that it replaced, the youngest first.
    older: Vec<TokenDigest>,
    /// The latest token itself, which renews the credentials.
    token: Option<Token>,
}

impl Accepted {
    /// Whether a token is one of them.
    pub(super) fn contains(&self, digest: &TokenDigest) -> bool {
        self.latest.as_ref() == Some(digest) || self.older.contains(digest)
    }

    /// The token to renew the credentials with, unless it has been revoked.
    pub(super) fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Adds a token, as the latest.
    pub(super) fn add(&mut self, token: Token, digest: TokenDigest) {
        self.older.retain(|older| *older != digest);
        if let Some(before) = self.latest.replace(digest)
            && before != digest
        {
            self.older.insert(0, before);
            self.older.truncate(OLDER);
        }
        self.token = Some(token);
    }

    /// Removes a token. Without the latest one, the credentials cannot be renewed.
    pub(super) fn revoke(&mut self, digest: &TokenDigest) {
        self.older.retain(|older| older != digest);
        if self.latest.as_ref() == Some(digest) {
            self.latest = None;
            self.token = None;
        }
    }

    /// What it takes beyond its own size.
    pub(super) fn heap_bytes(&self) -> usize {
        let token = self.token.as_ref().map_or(0, |token| token.expose().len());
        token + self.older.capacity() * mem::size_of::<TokenDigest>()
    }
}
