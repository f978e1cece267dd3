//! Copies of entries: what leaves for the next agent, and what comes from the one before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dashmap::Entry as Slot;
use podcreds_types::TokenDigest;

use super::{Cache, Entry};
use crate::{
    Subject,
    clock::Reading,
    freshness::Freshness,
    succession::{Kept, Pending},
};

impl Entry {
    /// Whether it is this agent's own, and newer than what another one says.
    fn is_own_and_newer(&self, told: &Freshness) -> bool {
        !self.inherited && self.freshness.is_newer_than(told)
    }
}

impl Cache {
    /// Whose entries there are, what was used last at the end, and from now on whose have changed.
    pub(crate) fn watch(&self) -> Arc<Pending> {
        // First the watch, so that nothing is missed in between.
        let pending = self.watchers.add();
        let mut subjects: Vec<_> = self
            .entries
            .iter()
            .map(|entry| (entry.last_used.load(Relaxed), *entry.key()))
            .collect();
        subjects.sort_unstable_by_key(|(last_used, _)| *last_used);
        pending.add(subjects.into_iter().map(|(_, subject)| subject));
        pending
    }

    /// A copy of an entry. Where the cache is off there are none to speak of.
    pub(crate) fn kept(&self, subject: &Subject, now: Reading) -> Option<Kept> {
        let entry = self.entries.get(subject).filter(|_| !self.is_off())?;
        Some(Kept {
            body: entry.body.clone(),
            ages: entry.freshness.ages(now),
            accepted: entry.accepted.clone(),
            asked: entry.asked.load(Relaxed),
            failures: entry.failures,
        })
    }

    /// Takes a copy in, unless it has expired or there is something newer. Whether there is an entry of the
    /// agent before this one now.
    pub(crate) fn inherit(&self, subject: Subject, mut kept: Kept, now: Reading) -> bool {
        // This agent may have been told to keep them for less long.
        let freshness = Freshness::told(kept.ages, now, self.retention);
        if self.is_off() || freshness.has_expired(now) {
            self.disown(&subject);
            return false;
        }
        let slot = self.entries.entry(subject);
        if let Slot::Occupied(own) = &slot
            && own.get().is_own_and_newer(&freshness)
        {
            return false;
        }
        // With the slot held: who refuses a token from here on finds the entry.
        if !self.denials.allow(&subject, &freshness, &mut kept.accepted) {
            drop(slot);
            self.disown(&subject);
            return false;
        }
        let entry = Entry {
            body: kept.body,
            freshness,
            accepted: kept.accepted,
            asked: AtomicBool::new(kept.asked),
            last_used: AtomicU64::new(self.hits.fetch_add(1, Relaxed)),
            failures: kept.failures,
            inherited: true,
        };
        self.count(&entry);
        let entry = Box::new(entry);
        // In one step: whoever asks meanwhile finds one or the other.
        match slot {
            Slot::Occupied(mut slot) => self.uncount(&slot.insert(entry)),
            Slot::Vacant(slot) => drop(slot.insert(entry)),
        }
        self.watchers.note(&subject);
        self.make_room();
        true
    }

    /// Drops a subject's entry if it came from the agent before this one.
    pub(crate) fn disown(&self, subject: &Subject) {
        let taken = (self.entries).remove_if(subject, |_, entry| entry.inherited);
        if let Some((_, entry)) = taken {
            self.uncount(&entry);
            self.watchers.note(subject);
        }
    }

    /// The same for all whose subjects `condition` picks.
    pub(crate) fn disown_if(&self, condition: impl Fn(&Subject) -> bool) {
        let subjects: Vec<_> = self.entries.iter().map(|entry| *entry.key()).collect();
        for subject in subjects.iter().filter(|subject| condition(subject)) {
            self.disown(subject);
        }
    }

    /// Has somebody else refresh what was inherited, or nobody but this agent.
    pub(crate) fn set_following(&self, following: bool) {
        self.following.store(following, Relaxed);
        if !following {
            self.denials.clear();
        }
    }

    /// Notes a refusal, at that time since the machine started, of which the agent before this one
    /// may not know.
    pub(super) fn deny(
        &self,
        subject: &Subject,
        digest: &TokenDigest,
        is_total: bool,
        boot: Duration,
    ) {
        // Whoever calls without being identified may make up any number of tokens.
        let counts = matches!(subject, Subject::Pod(_)) || self.entries.contains_key(subject);
        if counts && self.following.load(Relaxed) {
            self.denials.add(*subject, *digest, is_total, boot);
        }
    }
}
