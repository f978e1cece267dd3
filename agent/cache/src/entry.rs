//! One subject's entry: its credentials, ready to be sent, and the tokens that were refused.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
};

use bytes::Bytes;
use podcreds_types::TokenDigest;

use crate::{
    Lookup, Subject, accepted::AcceptedTokens, clock::Reading, freshness::Freshness,
    refused::RefusedTokens,
};

/// What there is of one subject.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) kept: Option<Kept>,
    pub(crate) refused: RefusedTokens,
}

/// Credentials in memory.
pub(crate) struct Kept {
    /// The response's body.
    pub(crate) body: Bytes,
    pub(crate) freshness: Freshness,
    /// The tokens that may have them.
    pub(crate) accepted: AcceptedTokens,
    /// The role that they are of. One text for all who have it.
    pub(crate) role: Option<Arc<str>>,
    /// Whether a request has asked for them since they were last renewed unasked.
    pub(crate) asked: AtomicBool,
    /// When a request has last asked for them, in seconds since the machine started; 0 if none has.
    pub(crate) asked_at: AtomicU32,
    /// Which hit of all was the last one here.
    pub(crate) last_used: AtomicU64,
    /// Renewals in a row that failed.
    pub(crate) failures: u32,
    /// Whether they came from the agent before this one.
    pub(crate) inherited: bool,
}

impl Entry {
    /// What there is for a token.
    pub(crate) fn get(&self, digest: &TokenDigest, now: Reading) -> Lookup {
        if let Some(kept) = self.valid(digest, now) {
            return match kept.freshness.is_stale(now) {
                true => Lookup::Stale(kept.body.clone()),
                false => Lookup::Fresh(kept.body.clone(), kept.freshness.age(now)),
            };
        }
        match self.refused.get(digest, now.boot) {
            Some(error) => Lookup::Refused(error.clone()),
            None => Lookup::Nothing,
        }
    }

    /// The credentials that a token may have, if they have not expired.
    pub(crate) fn valid(&self, digest: &TokenDigest, now: Reading) -> Option<&Kept> {
        let kept = self.kept.as_ref()?;
        let is_valid = kept.accepted.contains(digest) && !kept.freshness.has_expired(now);
        is_valid.then_some(kept)
    }

    /// Whether nothing is left of it.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_none() && self.refused.is_empty()
    }
}

impl Kept {
    /// What the entry takes in memory, without the map's own overhead.
    pub(crate) fn bytes(&self) -> i64 {
        let heap = self.body.len() + self.accepted.heap_bytes();
        (mem::size_of::<(Subject, Entry)>() + heap) as i64
    }
}
