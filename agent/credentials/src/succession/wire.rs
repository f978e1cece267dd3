//! A change in bytes: JSON, in which the body stands as it is.

use std::{borrow::Cow, time::SystemTime};

use bytes::Bytes;
use podcreds_types::{Token, TokenDigest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{Change, Kept};
use crate::{Subject, accepted::Accepted, freshness::Ages};

/// Room for all but the body and the token.
const FRAME: usize = 2048;

#[derive(Serialize, Deserialize)]
struct Message<'a> {
    subject: Subject,
    #[serde(borrow)]
    kept: Option<Entry<'a>>,
}

/// As much of a message as can be read however its entry looks.
#[derive(Deserialize)]
struct About {
    subject: Subject,
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    fetched: SystemTime,
    refresh_at: SystemTime,
    stale_at: SystemTime,
    expiration: SystemTime,
    latest: Option<TokenDigest>,
    older: Vec<TokenDigest>,
    #[serde(borrow)]
    renewing: Option<Cow<'a, str>>,
    asked: bool,
    failures: u32,
}

impl Change {
    /// The change in bytes, in a buffer that is wiped when it is dropped. `None` for what no store has: a body
    /// that is not JSON, or a time before 1970.
    pub fn encode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let kept = match &self.kept {
            Some(kept) => Some(Entry::of(kept)?),
            None => None,
        };
        let secrets = kept.as_ref().map_or(0, |entry| {
            entry.body.get().len() + entry.renewing.as_ref().map_or(0, |token| token.len())
        });
        let message = Message {
            subject: self.subject,
            kept,
        };
        // Large enough from the start: a buffer that grows leaves copies behind that nobody wipes.
        let mut buffer = Zeroizing::new(Vec::with_capacity(FRAME + secrets));
        serde_json::to_writer(&mut *buffer, &message).ok()?;
        Some(buffer)
    }

    /// In place of one that cannot be told: nothing is kept of this subject's credentials.
    pub fn gone(subject: Subject) -> Self {
        let kept = None;
        Self { subject, kept }
    }

    /// In place of one that cannot be read: nothing is kept of what it is about, if at least that
    /// can be read.
    pub fn gone_by(bytes: &[u8]) -> Option<Self> {
        let About { subject } = serde_json::from_slice(bytes).ok()?;
        Some(Self::gone(subject))
    }

    /// Reads a change. `None` if these are not the bytes of one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let Message { subject, kept } = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            subject,
            kept: kept.map(Kept::from),
        })
    }
}

impl<'a> Entry<'a> {
    fn of(kept: &'a Kept) -> Option<Self> {
        let parts = kept.accepted.parts();
        Some(Self {
            body: serde_json::from_slice(&kept.body).ok()?,
            fetched: kept.ages.fetched,
            refresh_at: kept.ages.refresh_at,
            stale_at: kept.ages.stale_at,
            expiration: kept.ages.expiration,
            latest: parts.latest,
            older: parts.older.to_vec(),
            renewing: parts.renewing.map(|token| token.expose().into()),
            asked: kept.asked,
            failures: kept.failures,
        })
    }
}

impl From<Entry<'_>> for Kept {
    fn from(entry: Entry<'_>) -> Self {
        let body = Zeroizing::new(entry.body.get().as_bytes().to_vec());
        let token = entry.renewing.map(Token::new);
        Self {
            body: Bytes::from_owner(body),
            ages: Ages {
                fetched: entry.fetched,
                refresh_at: entry.refresh_at,
                stale_at: entry.stale_at,
                expiration: entry.expiration,
            },
            accepted: Accepted::from_parts(entry.latest, entry.older, token),
            asked: entry.asked,
            failures: entry.failures,
        }
    }
}
