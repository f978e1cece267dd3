//! What is done about the entries without a request.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use dashmap::Entry as Slot;
use podcreds_types::Token;

use crate::{
    Cache, Subject,
    cache::PARKED,
    clock::Reading,
    entry::{Entry, Kept},
};

/// The longest pause between two looks at the entries: the wall clock may be set meanwhile.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// What a renewal that is due may take, in the limiter's queue and at EKS Auth.
const OVERDUE: Duration = Duration::from_secs(60);

/// Credentials that are to be renewed now.
pub struct Renewal {
    /// Whose they are.
    pub subject: Subject,
    /// The token to renew them with.
    pub token: Token,
    /// When those in memory expire.
    pub expiration: SystemTime,
    /// How long that is from now, by clocks that nobody can put back.
    pub left: Duration,
    /// How long ago this was due first, whatever failed since.
    pub since_due: Duration,
}

/// What is to be done about the entries.
pub struct Upkeep {
    /// What is to be renewed, the credentials that expire first before the rest.
    pub due: Vec<Renewal>,
    /// When to look again, unless [`Cache::work`] comes first.
    pub pause: Duration,
}

impl Cache {
    /// Waits until there may be something to do before the upkeep expected it.
    pub async fn work(&self) {
        self.work.notified().await;
    }

    /// Drops what has expired, and says what is to be renewed, and when to look again.
    pub fn upkeep(&self) -> Upkeep {
        let now = self.clock.read();
        let mut due = Vec::new();
        let mut pause = self.presence.next_sweep(now.boot).unwrap_or(LONGEST_PAUSE);
        let mut over = Vec::new();
        for entry in self.entries.iter() {
            if let Some(next) = self.next_drop(&entry, now) {
                pause = pause.min(next);
                if next.is_zero() {
                    over.push(*entry.key());
                }
            }
            let Some(kept) = entry
                .kept
                .as_ref()
                .filter(|kept| self.is_renewed(kept, now))
            else {
                continue;
            };
            match kept.accepted.token() {
                Some(token) if kept.freshness.is_due(now) => due.push(Renewal {
                    subject: *entry.key(),
                    token: token.clone(),
                    expiration: kept.freshness.expiration,
                    left: kept.freshness.left(now),
                    since_due: kept.freshness.since_due(now),
                }),
                Some(_) => pause = pause.min(kept.freshness.until_due(now)),
                None => {}
            }
        }
        for subject in over {
            self.drop_what_is_over(&subject, now);
        }
        self.presence.sweep(now.boot);
        self.roles.sweep();
        due.sort_by_key(|renewal| renewal.expiration);
        // What is renewed now is looked at again when that has ended.
        Upkeep {
            due,
            pause: pause.clamp(Duration::from_secs(1), LONGEST_PAUSE),
        }
    }

    /// The time until the first of the credentials expires that are asked for.
    pub(crate) fn nearest_expiry(&self) -> Option<Duration> {
        let now = self.clock.read();
        let left = self.entries.iter().filter_map(|entry| {
            let kept = entry.kept.as_ref()?;
            let counts = kept.asked.load(Relaxed) && !kept.freshness.has_expired(now);
            counts.then(|| kept.freshness.left(now))
        });
        left.min()
    }

    /// How many credentials should have been renewed [a while](OVERDUE) ago, and have not been.
    pub(crate) fn overdue(&self) -> usize {
        let now = self.clock.read();
        let is_overdue = |entry: &Entry| {
            let kept = entry.kept.as_ref();
            kept.is_some_and(|kept| {
                let is_late = kept.failures > 0 || kept.freshness.overdue(now) >= OVERDUE;
                is_late && self.is_renewed(kept, now)
            })
        };
        self.entries
            .iter()
            .filter(|entry| is_overdue(entry))
            .count()
    }

    /// How many subjects' last renewals failed.
    pub fn failing(&self) -> impl Iterator<Item = Subject> {
        let failing = |entry: &Entry| entry.kept.as_ref().is_some_and(|kept| kept.failures > 0);
        let failing = self.entries.iter().filter(move |entry| failing(entry));
        failing.map(|entry| *entry.key())
    }

    /// Drops the credentials that have gone unused for longest, where there are too many.
    pub(crate) fn make_room(&self) {
        // Where the cache is off, what waits for its client goes by itself within seconds.
        while !self.is_off() && self.kept.load(Relaxed) > self.config.capacity {
            let oldest = (self.entries.iter())
                .filter_map(|entry| {
                    let kept = entry.kept.as_ref()?;
                    Some((kept.last_used.load(Relaxed), *entry.key()))
                })
                .min_by_key(|(last_used, _)| *last_used);
            let Some((_, subject)) = oldest else {
                return;
            };
            self.evict(&subject);
        }
    }

    fn evict(&self, subject: &Subject) {
        let Slot::Occupied(mut slot) = self.entries.entry(*subject) else {
            return;
        };
        if self.put(slot.get_mut(), None).is_some() {
            self.metrics.evictions.inc();
            self.changed(*subject);
        }
        if slot.get().is_empty() {
            slot.remove();
        }
    }

    /// Whether it is for this agent to renew credentials in time.
    fn is_renewed(&self, kept: &Kept, now: Reading) -> bool {
        let by_another = kept.inherited && self.following.load(Relaxed);
        let is_asked = kept.asked.load(Relaxed) && !self.is_off();
        is_asked && !kept.freshness.has_expired(now) && !by_another
    }

    /// How long until something of an entry is to be dropped.
    fn next_drop(&self, entry: &Entry, now: Reading) -> Option<Duration> {
        let kept = entry.kept.as_ref().map(|kept| self.until_over(kept, now));
        let refused = entry.refused.next_sweep(self.may_be_told());
        let refused = refused.map(|at| at.saturating_sub(now.boot));
        kept.into_iter().chain(refused).min()
    }

    fn until_over(&self, kept: &Kept, now: Reading) -> Duration {
        let over = kept.freshness.until_over(now);
        match self.is_off() {
            true => over.min(PARKED.saturating_sub(kept.freshness.age(now))),
            false => over,
        }
    }

    /// Drops what nobody gets any more, unless something newer has come in the meantime.
    fn drop_what_is_over(&self, subject: &Subject, now: Reading) {
        let Slot::Occupied(mut slot) = self.entries.entry(*subject) else {
            return;
        };
        let entry = slot.get_mut();
        let before = entry.refused.len();
        entry.refused.sweep(now.boot, self.may_be_told());
        self.count_refusals(before, entry.refused.len());
        let is_over = |kept: &Kept| self.until_over(kept, now).is_zero();
        if entry.kept.as_ref().is_some_and(is_over) {
            self.put(entry, None);
            self.changed(*subject);
        }
        if slot.get().is_empty() {
            slot.remove();
        }
    }
}
