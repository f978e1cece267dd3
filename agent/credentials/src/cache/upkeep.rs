//! What is done about the entries without anybody asking.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use podcreds_types::Token;

use super::{Cache, Entry, HAND_OVER};
use crate::{Subject, clock::Reading};

/// What is to be done about the entries.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Those to be refreshed, with the tokens for it and when they expire.
    pub(crate) due: Vec<(Subject, Token, SystemTime)>,
    /// How long until the first of those that are asked for expires.
    pub(crate) nearest_expiry: Option<Duration>,
    /// Those whose last refresh failed.
    pub(crate) failing: Vec<Subject>,
}

impl Cache {
    /// Drops what has expired, and says what is to be refreshed, what expires first before the
    /// rest.
    pub(crate) fn upkeep(&self, now: Reading) -> Upkeep {
        let mut upkeep = Upkeep::default();
        let mut expired = Vec::new();
        for entry in &self.entries {
            if self.is_over(&entry, now) {
                expired.push(*entry.key());
                continue;
            }
            if entry.failures > 0 {
                upkeep.failing.push(*entry.key());
            }
            if entry.freshness.has_expired(now) || !entry.asked.load(Relaxed) {
                continue;
            }
            let left = entry.freshness.left(now);
            let nearest = upkeep.nearest_expiry.get_or_insert(left);
            *nearest = left.min(*nearest);
            if entry.freshness.is_due(now)
                && !(entry.inherited && self.following.load(Relaxed))
                && let Some(token) = entry.accepted.token()
            {
                let expiration = entry.freshness.expiration;
                upkeep.due.push((*entry.key(), token.clone(), expiration));
            }
        }
        for subject in expired {
            // Newer ones may have come in the meantime.
            let removed = self
                .entries
                .remove_if(&subject, |_, entry| self.is_over(entry, now));
            if let Some((_, entry)) = removed {
                self.uncount(&entry);
                self.watchers.note(&subject);
            }
        }
        upkeep.due.sort_by_key(|(_, _, expiration)| *expiration);
        upkeep
    }

    /// Whether nobody will get an entry any more.
    fn is_over(&self, entry: &Entry, now: Reading) -> bool {
        entry.freshness.is_over(now) || (self.is_off() && entry.freshness.age(now) >= HAND_OVER)
    }

    /// Drops the entries that have gone unused for longest.
    pub(super) fn make_room(&self) {
        // Where the cache is off, what waits for its client goes by itself within seconds.
        let surplus = match self.is_off() {
            true => 0,
            false => self.entries.len().saturating_sub(self.capacity),
        };
        for _ in 0..surplus {
            let oldest = self
                .entries
                .iter()
                .min_by_key(|entry| entry.last_used.load(Relaxed))
                .map(|entry| *entry.key());
            if let Some(subject) = oldest {
                self.remove(&subject);
                self.metrics.evictions.inc();
            }
        }
    }
}
