//! The credentials at hand, by pod.

mod copies;
mod denials;
mod upkeep;

use std::{
    mem,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use dashmap::{DashMap, Entry as Slot};
use podcreds_types::{RefusalKind, Token, TokenDigest};

use self::denials::Denials;
use super::{
    Config, Metrics, Subject,
    accepted::{Accepted, expiry},
    clock::Reading,
    freshness::{Freshness, MIN_LEFT},
    succession::Watchers,
};

/// How long an answer that found nobody waiting is kept where the cache is off.
const HAND_OVER: Duration = Duration::from_secs(10);

/// What an exchange brought.
pub(super) struct Fetched {
    /// The response's body.
    pub(super) body: Bytes,
    /// When its credentials expire.
    pub(super) expiration: SystemTime,
    /// The token that got them.
    pub(super) token: Token,
    pub(super) digest: TokenDigest,
    /// Whether somebody has asked for them.
    pub(super) asked: bool,
}

/// One pod's credentials, ready to be sent.
struct Entry {
    body: Bytes,
    freshness: Freshness,
    /// The tokens that may have them.
    accepted: Accepted,
    /// Whether somebody has asked for them since they were last refreshed without being asked for.
    asked: AtomicBool,
    /// Which hit of all was the last one here.
    last_used: AtomicU64,
    /// Refreshes in a row that failed.
    failures: u32,
    /// Whether they came from the agent before this one.
    inherited: bool,
}

impl Entry {
    /// What it takes in memory, without the map's own overhead.
    fn bytes(&self) -> i64 {
        let heap = self.body.len() + self.accepted.heap_bytes();
        (mem::size_of::<(Subject, Self)>() + heap) as i64
    }
}

/// What the cache has for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Credentials with enough life left, and how old they are.
    Fresh(Bytes, Duration),
    /// Valid ones, on which SDKs will soon ask again.
    Stale(Bytes),
    /// Nothing that this token may have.
    Nothing,
}

/// The map of all entries.
pub(super) struct Cache {
    /// Boxed, since half of a map's slots are empty.
    entries: DashMap<Subject, Box<Entry>>,
    capacity: usize,
    retention: Duration,
    hits: AtomicU64,
    /// Whether somebody else refreshes what was inherited.
    following: AtomicBool,
    /// What EKS Auth has refused meanwhile.
    denials: Denials,
    watchers: Watchers,
    metrics: Metrics,
}

impl Cache {
    pub(super) fn new(config: &Config, metrics: Metrics) -> Self {
        Self {
            entries: DashMap::new(),
            capacity: config.capacity,
            retention: config.retention,
            hits: AtomicU64::new(0),
            following: AtomicBool::new(false),
            denials: Denials::default(),
            watchers: Watchers::default(),
            metrics,
        }
    }

    /// Where the cache is off, an entry is an answer that waits for a client to come back.
    pub(super) fn is_off(&self) -> bool {
        self.capacity == 0 || self.retention.is_zero()
    }

    /// What there is for whoever proves to be `subject` and to hold the token.
    pub(super) fn get(&self, subject: &Subject, digest: &TokenDigest, now: Reading) -> Lookup {
        if self.is_off() {
            return self.hand_over(subject, digest, now);
        }
        let Some(entry) = self.entries.get(subject) else {
            return Lookup::Nothing;
        };
        if !entry.accepted.contains(digest) || entry.freshness.has_expired(now) {
            return Lookup::Nothing;
        }
        if !entry.asked.load(Relaxed) {
            entry.asked.store(true, Relaxed);
            self.watchers.note(subject);
        }
        let hit = self.hits.fetch_add(1, Relaxed);
        entry.last_used.store(hit, Relaxed);
        if entry.freshness.is_stale(now) {
            return Lookup::Stale(entry.body.clone());
        }
        Lookup::Fresh(entry.body.clone(), entry.freshness.age(now))
    }

    /// Whether a token was accepted for what there is of a subject.
    pub(super) fn accepts(&self, subject: &Subject, digest: &TokenDigest) -> bool {
        let entry = self.entries.get(subject);
        entry.is_some_and(|entry| entry.accepted.contains(digest))
    }

    /// Whether there are valid credentials of a pod for other tokens than this one.
    pub(super) fn has_for_others(
        &self,
        subject: &Subject,
        digest: &TokenDigest,
        now: Reading,
    ) -> bool {
        let entry = self.entries.get(subject);
        entry.is_some_and(|entry| {
            !self.is_off() && !entry.freshness.has_expired(now) && !entry.accepted.contains(digest)
        })
    }

    /// The credentials of a subject if they expire later than then.
    pub(super) fn later(&self, subject: &Subject, than: SystemTime) -> Option<Bytes> {
        let entry = self.entries.get(subject)?;
        (!self.is_off() && entry.freshness.expiration > than).then(|| entry.body.clone())
    }

    /// The credentials at hand, where new ones that are good for minutes would be a bad exchange.
    pub(super) fn better(
        &self,
        subject: &Subject,
        expiration: SystemTime,
        now: Reading,
    ) -> Option<Bytes> {
        if expiration >= now.wall + MIN_LEFT {
            return None;
        }
        self.later(subject, expiration)
    }

    /// Takes in what one token of a pod got, in the place of what was there. In one step: who asks
    /// meanwhile finds one or the other.
    pub(super) fn insert(&self, subject: Subject, fetched: Fetched, now: Reading) {
        let mut slot = self.entries.entry(subject);
        let mut accepted = Accepted::default();
        if let Slot::Occupied(before) = &mut slot {
            self.uncount(before.get());
            accepted = mem::take(&mut before.get_mut().accepted);
        }
        accepted.add(fetched.token, fetched.digest);
        let entry = Entry {
            body: fetched.body,
            freshness: Freshness::new(now, fetched.expiration, self.retention),
            accepted,
            asked: AtomicBool::new(fetched.asked),
            last_used: AtomicU64::new(self.hits.fetch_add(1, Relaxed)),
            failures: 0,
            inherited: false,
        };
        self.count(&entry);
        drop(slot.insert(Box::new(entry)));
        self.watchers.note(&subject);
        self.make_room();
    }

    /// Gives a pod's credentials to another of its tokens, which somebody has verified. Not if that
    /// has expired, which a verdict may have missed where the wall clock was put back. Whether it
    /// has them.
    pub(super) fn adopt(&self, subject: &Subject, token: Token, now: Reading) -> bool {
        let digest = token.digest();
        let Some(mut entry) = self.entries.get_mut(subject) else {
            return false;
        };
        let is_good = expiry(&token).is_none_or(|end| entry.freshness.is_before(now, end));
        if is_good && !entry.accepted.contains(&digest) {
            let before = entry.bytes();
            entry.accepted.add(token, digest);
            self.metrics.bytes.add(entry.bytes() - before);
            self.watchers.note(subject);
        }
        is_good
    }

    /// Takes the credentials from a token that EKS Auth no longer accepts. Where it is the pod that
    /// is refused, they go altogether.
    pub(super) fn refuse(
        &self,
        subject: &Subject,
        digest: &TokenDigest,
        kind: RefusalKind,
        now: Reading,
    ) {
        let is_total = kind != RefusalKind::BadToken || matches!(subject, Subject::Bearer(_));
        // First, so that what is told meanwhile does not bring it back.
        self.deny(subject, digest, is_total, now.boot);
        let Some(mut entry) = self.entries.get_mut(subject) else {
            return;
        };
        if !entry.accepted.contains(digest) {
            return;
        }
        if is_total {
            drop(entry);
            self.remove(subject);
            return;
        }
        // The pod may hold a newer token already, and will show it.
        let before = entry.bytes();
        entry.accepted.revoke(digest);
        self.metrics.bytes.add(entry.bytes() - before);
        self.watchers.note(subject);
    }

    /// Puts off the next refresh after one that failed.
    pub(super) fn postpone(&self, subject: &Subject, now: Reading) {
        if let Some(mut entry) = self.entries.get_mut(subject) {
            let failures = entry.failures;
            entry.failures += 1;
            entry.freshness.postpone(now, failures);
            self.watchers.note(subject);
        }
    }

    /// Drops a subject's entry.
    pub(super) fn forget(&self, subject: &Subject) {
        self.denials.forget(subject);
        self.remove(subject);
    }

    /// Gives an answer to the one client that comes back for it.
    fn hand_over(&self, subject: &Subject, digest: &TokenDigest, now: Reading) -> Lookup {
        let taken = self.entries.remove_if(subject, |_, entry| {
            entry.accepted.contains(digest)
                && entry.freshness.age(now) < HAND_OVER
                && !entry.freshness.has_expired(now)
        });
        match taken {
            Some((_, entry)) => {
                self.uncount(&entry);
                Lookup::Fresh(entry.body, entry.freshness.age(now))
            }
            None => Lookup::Nothing,
        }
    }

    fn remove(&self, subject: &Subject) -> Option<Box<Entry>> {
        let (_, entry) = self.entries.remove(subject)?;
        self.uncount(&entry);
        self.watchers.note(subject);
        Some(entry)
    }

    fn count(&self, entry: &Entry) {
        self.metrics.entries.inc();
        self.metrics.bytes.add(entry.bytes());
    }

    fn uncount(&self, entry: &Entry) {
        self.metrics.entries.dec();
        self.metrics.bytes.sub(entry.bytes());
    }
}
