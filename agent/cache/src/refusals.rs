//! What the cache does with refusals: they are part of their subject's entry.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use dashmap::Entry as Slot;
use podcreds_types::{CredentialError, TokenDigest};

use crate::{Cache, Refused, Subject, Takes};

impl Cache {
    /// The refusal that holds for a token, also of one that stale credentials are served to.
    pub fn refusal(&self, subject: &Subject, digest: &TokenDigest) -> Option<CredentialError> {
        let entry = self.entries.get(subject)?;
        entry.refused.get(digest, self.clock.read().boot).cloned()
    }

    /// Whether a token has been refused within the last minute or so.
    pub fn was_refused(&self, subject: &Subject, digest: &TokenDigest) -> bool {
        let entry = self.entries.get(subject);
        entry.is_some_and(|entry| entry.refused.has(digest, self.clock.read().boot))
    }

    /// How long a subject's new tokens wait for their attempt, after others of it were refused.
    pub fn pause(&self, subject: &Subject) -> Duration {
        let entry = self.entries.get(subject);
        entry.map_or(Duration::ZERO, |entry| {
            entry.refused.pause(self.clock.read().boot)
        })
    }

    /// Remembers that a token was refused, and takes what the refusal takes. True if it is news.
    pub fn refuse(&self, subject: Subject, digest: TokenDigest, mut refused: Refused) -> bool {
        let now = self.clock.read();
        let mut entry = self.entries.entry(subject).or_default();
        let accepted = entry.kept.as_ref().map(|kept| &kept.accepted);
        let is_accepted = accepted.is_some_and(|accepted| accepted.contains(&digest));
        if matches!(subject, Subject::Token(_)) && !is_accepted {
            // A caller can make up any number of these.
            refused.takes = Takes::Nothing;
        }
        let takes = refused.takes;
        let before = entry.refused.len();
        let is_news = entry.refused.add(digest, refused, now.boot);
        self.count_refusals(before, entry.refused.len());
        if takes == Takes::Nothing || !is_accepted {
            return is_news;
        }
        if takes == Takes::All {
            self.put(&mut entry, None);
        } else if let Some(kept) = &mut entry.kept {
            let before = kept.bytes();
            kept.accepted.revoke(&digest);
            self.metrics.bytes.add(kept.bytes() - before);
        }
        drop(entry);
        self.changed(subject);
        is_news
    }

    /// Forgets a refusal to make room for others. Not while another agent may tell again of what
    /// the refusal took.
    pub fn drop_refusal(&self, subject: &Subject, digest: &TokenDigest) {
        let entry = self.entries.get(subject);
        let took = entry.is_some_and(|entry| entry.refused.took(digest));
        if !(took && self.may_be_told()) {
            self.forgive(subject, digest);
        }
    }

    /// Whether another agent may tell again of what refusals took: the one before this one, or one
    /// that comes next.
    pub(crate) fn may_be_told(&self) -> bool {
        self.following.load(Relaxed) || self.has_subscribers()
    }

    /// Forgets the refusal of a token that has been accepted. True if there was one.
    pub fn forgive(&self, subject: &Subject, digest: &TokenDigest) -> bool {
        let Slot::Occupied(mut slot) = self.entries.entry(*subject) else {
            return false;
        };
        let refused = &mut slot.get_mut().refused;
        let before = refused.len();
        let was_refused = refused.remove(digest);
        self.count_refusals(before, refused.len());
        if slot.get().is_empty() {
            slot.remove();
        }
        was_refused
    }
}
