//! Entries as two agents tell them to each other: what leaves, and what comes in.
//!
//! The leader has the say. Its successor takes in what it is told, and tells the leader what it got
//! itself ([`Cache::own_snapshot`]). What the leader has learned from that it tells as anything
//! else, and from then on it is the leader's, also in the successor's eyes.

use std::{
    collections::HashSet,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use dashmap::Entry as Slot;
use podcreds_types::{Token, TokenDigest};

use crate::{
    Cache, Subject, Takes,
    accepted::AcceptedTokens,
    entry::{Entry, Kept},
    freshness::{Ages, Freshness},
};

/// The credentials of one subject, and all that decides about them. It holds secrets, and has no
/// `Debug` for that reason.
#[derive(Clone)]
pub struct Snapshot {
    /// The response's body.
    pub body: Bytes,
    /// When they came, and what becomes of them when.
    pub ages: Ages,
    /// The role that they are of, if the other agent has told.
    pub role: Option<Arc<str>>,
    /// The token that was accepted last.
    pub latest: Option<TokenDigest>,
    /// Tokens that were accepted before it.
    pub older: Vec<TokenDigest>,
    /// The token that got the credentials, if the other agent has told. It need not be the last: a
    /// key may have verified others meanwhile.
    pub exchanged: Option<TokenDigest>,
    /// The token that renews the credentials.
    pub renewing: Option<Token>,
    /// Tokens that these credentials are not for: EKS Auth has refused them to the agent that tells
    /// this. The other one may have accepted them before.
    pub refused: Vec<TokenDigest>,
    /// Whether a request has asked for them since they were last renewed unasked.
    pub asked: bool,
    /// Renewals in a row that failed.
    pub failures: u32,
}

impl Snapshot {
    /// Takes its tokens out of it.
    fn take_tokens(&mut self) -> AcceptedTokens {
        let older = mem::take(&mut self.older);
        let renewing = self.renewing.take();
        AcceptedTokens::from_parts((self.latest, older, self.exchanged, renewing))
    }
}

impl Cache {
    /// The subjects that there are credentials of, the one that was used last at the end.
    pub fn subjects(&self) -> Vec<Subject> {
        let mut subjects: Vec<_> = (self.entries.iter())
            .filter_map(|entry| {
                let kept = entry.kept.as_ref()?;
                Some((kept.last_used.load(Relaxed), *entry.key()))
            })
            .collect();
        subjects.sort_unstable_by_key(|(last_used, _)| *last_used);
        subjects.into_iter().map(|(_, subject)| subject).collect()
    }

    /// A copy of a subject's credentials. Where the cache is off there are none to speak of.
    pub fn snapshot(&self, subject: &Subject) -> Option<Snapshot> {
        let entry = self.entries.get(subject).filter(|_| !self.is_off())?;
        let kept = entry.kept.as_ref()?;
        let (latest, older, exchanged, renewing) = kept.accepted.parts();
        let refused = entry.refused.taken().copied();
        let refused = refused.filter(|digest| !kept.accepted.contains(digest));
        Some(Snapshot {
            body: kept.body.clone(),
            ages: kept.freshness.ages(self.clock.read()),
            role: kept.role.clone(),
            latest,
            older,
            exchanged,
            renewing,
            refused: refused.collect(),
            asked: kept.asked.load(Relaxed),
            failures: kept.failures,
        })
    }

    /// A copy of a subject's credentials if this agent got them itself, or has got a token accepted
    /// for them. One that a key has verified the other agent verifies itself.
    pub fn own_snapshot(&self, subject: &Subject) -> Option<Snapshot> {
        let is_own = |entry: &Entry| entry.kept.as_ref().is_some_and(|kept| !kept.inherited);
        let is_own = self
            .entries
            .get(subject)
            .is_some_and(|entry| is_own(&entry));
        is_own.then(|| self.snapshot(subject)).flatten()
    }

    /// Takes in a copy of what the successor got. What there is stays if that is as good, and is
    /// then good for the copy's tokens as well. Nothing is taken in that has expired, or whose pod
    /// is not here; and no token that was refused here, unless it has got the credentials since.
    ///
    /// A pod that is not here yet cannot be told from one that has gone. If it asks this agent once
    /// it has been found, that is one call to EKS Auth more.
    pub fn learn(&self, subject: Subject, mut told: Snapshot) {
        let now = self.clock.read();
        let freshness = Freshness::told(told.ages, now, self.config.retention);
        if self.is_off() || freshness.has_expired(now) {
            return;
        }
        let accepted = told.take_tokens();
        let mut entry = self.entries.entry(subject).or_default();
        let Some(mut accepted) = still_accepted(&entry, &freshness, accepted) else {
            return;
        };
        let is_better = |own: &Kept| {
            let is_newer = freshness.is_newer_than(&own.freshness) && own.body != told.body;
            is_newer && freshness.expiration >= own.freshness.expiration
        };
        let own = entry.kept.as_ref();
        let is_better = own.is_none_or(|own| own.freshness.has_expired(now) || is_better(own));
        // The age of the credentials says nothing about tokens that did not get them, also where a
        // key has verified one of these later: this agent verifies that itself.
        let refused: Vec<_> = entry.refused.taken().copied().collect();
        let has_revoked = accepted.revoke_all(&refused, is_better);
        match &mut entry.kept {
            Some(own) if !is_better => {
                let before = own.bytes();
                let has_changed = own.accepted.merge(accepted);
                self.metrics.bytes.add(own.bytes() - before);
                // The successor is to hear of what it has and was refused here.
                if !has_changed && !has_revoked {
                    return;
                }
            }
            own => {
                if let Some(own) = own {
                    accepted.merge(own.accepted.clone());
                }
                let kept = self.kept(told, freshness, accepted, false);
                if let Some(before) = self.put(&mut entry, Some(kept))
                    && let Some(kept) = &entry.kept
                {
                    kept.asked.fetch_or(before.asked.into_inner(), Relaxed);
                    kept.asked_at.store(before.asked_at.into_inner(), Relaxed);
                }
            }
        }
        drop(entry);
        self.changed(subject);
        self.make_room();
        self.work.notify_one();
        // Only now, since the pod may have gone at any time before.
        if !self.presence.has(&subject) {
            self.forget(&subject);
        }
    }

    /// Takes a copy in, unless it has expired, its pod is gone, or there is something newer. True
    /// if there are credentials of the agent before this one now. They stay this agent's own as
    /// long as one of its tokens is not among the copy's, so that the other agent learns of it.
    pub fn inherit(&self, subject: Subject, mut told: Snapshot) -> bool {
        let now = self.clock.read();
        // This agent may have been told to keep them for less long.
        let freshness = Freshness::told(told.ages, now, self.config.retention);
        if self.is_off() || freshness.has_expired(now) {
            self.disown(&subject);
            return false;
        }
        // With the entry held: a refusal that comes from here on finds the credentials.
        let mut entry = self.entries.entry(subject).or_default();
        if let Some(own) = entry.kept.as_mut().filter(|own| !own.inherited) {
            let before = own.bytes();
            let is_newer = own.freshness.is_newer_than(&freshness) && own.body != told.body;
            own.accepted.revoke_all(&told.refused, is_newer);
            self.metrics.bytes.add(own.bytes() - before);
            if is_newer {
                return false;
            }
        }
        let own = entry.kept.as_ref().filter(|own| !own.inherited);
        let accepted = told.take_tokens();
        let theirs = accepted.clone();
        let accepted = still_accepted(&entry, &freshness, accepted);
        if let Some(mut accepted) = accepted {
            if let Some(own) = own {
                accepted.merge(own.accepted.clone());
            }
            let inherited = accepted.are_among(&theirs);
            let kept = self.kept(told, freshness, accepted, inherited);
            self.put(&mut entry, Some(kept));
            drop(entry);
            self.changed(subject);
            self.make_room();
            self.work.notify_one();
            // Only now, since the pod may have gone at any time before.
            if self.presence.has(&subject) {
                return true;
            }
            if !inherited {
                self.forget(&subject);
            }
        } else {
            drop(entry);
        }
        self.disown(&subject);
        false
    }

    /// What is kept of a copy.
    fn kept(
        &self,
        told: Snapshot,
        freshness: Freshness,
        accepted: AcceptedTokens,
        inherited: bool,
    ) -> Kept {
        Kept {
            body: told.body,
            freshness,
            accepted,
            role: told.role.map(|role| self.roles.shared(role)),
            asked: AtomicBool::new(told.asked),
            asked_at: AtomicU32::new(0),
            last_used: AtomicU64::new(self.hits.fetch_add(1, Relaxed)),
            failures: told.failures,
            inherited,
        }
    }

    /// Drops a subject's credentials if they came from the agent before this one.
    pub fn disown(&self, subject: &Subject) {
        let Slot::Occupied(mut slot) = self.entries.entry(*subject) else {
            return;
        };
        if slot.get().kept.as_ref().is_some_and(|kept| kept.inherited) {
            self.put(slot.get_mut(), None);
            self.changed(*subject);
        }
        if slot.get().is_empty() {
            slot.remove();
        }
    }

    /// Drops what was inherited and is not among these: the agent before this one no longer has it.
    pub fn disown_all_but(&self, told: &HashSet<Subject>) {
        self.disown_if(|subject| !told.contains(subject));
    }

    /// Whether the agent before this one renews what it has handed over.
    pub fn set_following(&self, following: bool) {
        self.following.store(following, Relaxed);
        self.work.notify_one();
    }

    pub(crate) fn disown_if(&self, condition: impl Fn(&Subject) -> bool) {
        let subjects: Vec<_> = self.entries.iter().map(|entry| *entry.key()).collect();
        for subject in subjects.iter().filter(|subject| condition(subject)) {
            self.disown(subject);
        }
    }
}

/// The tokens of a copy that were not refused since it was fetched, of which the other agent may
/// not know. `None` if its credentials were taken altogether.
fn still_accepted(
    entry: &Entry,
    copy: &Freshness,
    mut accepted: AcceptedTokens,
) -> Option<AcceptedTokens> {
    for (digest, takes) in entry.refused.since(copy.fetched_at()) {
        match takes {
            Takes::All if accepted.contains(digest) => return None,
            Takes::Token => accepted.revoke(digest),
            Takes::All | Takes::Nothing => {}
        }
    }
    Some(accepted)
}
