//! What has become of one subject's credentials, and that in bytes: JSON, in which the body stands
//! as it is.

use std::{borrow::Cow, time::SystemTime};

use bytes::Bytes;
use podcreds_cache::{Ages, Snapshot, Subject};
use podcreds_types::{Token, TokenDigest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::frame::LONGEST;

/// Room for all but the body and the token.
const FRAME: usize = 4096;

/// What has become of one subject's credentials. It holds secrets, and has no `Debug` for that
/// reason.
pub(super) struct EntryChange {
    /// Whose credentials they are.
    pub(super) subject: Subject,
    /// What there is now; `None` if there is nothing any more.
    pub(super) snapshot: Option<Snapshot>,
}

#[derive(Serialize, Deserialize)]
struct Message<'a> {
    subject: Subject,
    #[serde(borrow)]
    kept: Option<WireEntry<'a>>,
}

/// As much of a message as can be read however its entry looks.
#[derive(Deserialize)]
struct SubjectOnly {
    subject: Subject,
}

#[derive(Serialize, Deserialize)]
struct WireEntry<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
    fetched: SystemTime,
    refresh_at: SystemTime,
    stale_at: SystemTime,
    expiration: SystemTime,
    /// Earlier builds do not tell it, and pass over it when they are told.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    role: Option<Cow<'a, str>>,
    latest: Option<TokenDigest>,
    older: Vec<TokenDigest>,
    /// As with the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exchanged: Option<TokenDigest>,
    #[serde(borrow)]
    renewing: Option<Cow<'a, str>>,
    /// As with the role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused: Vec<TokenDigest>,
    asked: bool,
    failures: u32,
}

impl EntryChange {
    /// The change in bytes, in a buffer that is wiped when it is dropped. `None` for what no store
    /// has: a body that is not JSON, or a time before 1970.
    pub(super) fn encode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let kept = match &self.snapshot {
            Some(snapshot) => Some(WireEntry::of(snapshot)?),
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

    /// The change in bytes, unless there are too many of them for a frame.
    pub(super) fn in_a_frame(&self) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = self.encode()?;
        (bytes.len() <= LONGEST as usize).then_some(bytes)
    }

    /// In place of one that cannot be told: nothing is kept of this subject's credentials.
    pub(super) fn gone(subject: Subject) -> Self {
        Self {
            subject,
            snapshot: None,
        }
    }

    /// In place of one that cannot be read: nothing is kept of what it is about, if at least that
    /// can be read.
    pub(super) fn gone_by(bytes: &[u8]) -> Option<Self> {
        let SubjectOnly { subject } = serde_json::from_slice(bytes).ok()?;
        Some(Self::gone(subject))
    }

    /// Reads a change. `None` if these are not the bytes of one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let Message { subject, kept } = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            subject,
            snapshot: kept.map(Snapshot::from),
        })
    }
}

impl<'a> WireEntry<'a> {
    fn of(snapshot: &'a Snapshot) -> Option<Self> {
        let ages = &snapshot.ages;
        Some(Self {
            body: serde_json::from_slice(&snapshot.body).ok()?,
            fetched: ages.fetched,
            refresh_at: ages.renew_at,
            stale_at: ages.stale_at,
            expiration: ages.expiration,
            role: snapshot.role.as_deref().map(Cow::Borrowed),
            latest: snapshot.latest,
            older: snapshot.older.clone(),
            exchanged: snapshot.exchanged,
            renewing: snapshot
                .renewing
                .as_ref()
                .map(|token| token.expose().into()),
            refused: snapshot.refused.clone(),
            asked: snapshot.asked,
            failures: snapshot.failures,
        })
    }
}

impl From<WireEntry<'_>> for Snapshot {
    fn from(entry: WireEntry<'_>) -> Self {
        let body = Zeroizing::new(entry.body.get().as_bytes().to_vec());
        Self {
            body: Bytes::from_owner(body),
            ages: Ages {
                fetched: entry.fetched,
                renew_at: entry.refresh_at,
                stale_at: entry.stale_at,
                expiration: entry.expiration,
            },
            role: entry.role.map(|role| role.into()),
            latest: entry.latest,
            older: entry.older,
            exchanged: entry.exchanged,
            renewing: entry.renewing.map(Token::new),
            refused: entry.refused,
            asked: entry.asked,
            failures: entry.failures,
        }
    }
}
