//! The credentials at hand, by pod.

use std::{
    cmp::Reverse,
    mem,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use dashmap::DashMap;

use super::{Config, Metrics, RefusalKind, Subject, accepted::Accepted, freshness::Freshness};
use crate::types::{Token, TokenDigest};

/// Requests so soon after the credentials came still belong to the pod's start, and do not show
/// that it will ask again.
const SETTLING: Duration = Duration::from_secs(60);
/// How long an answer that found nobody waiting is kept where the cache is off.
const HAND_OVER: Duration = Duration::from_secs(10);

/// One pod's credentials, ready to be sent.
struct Entry {
    body: Bytes,
    freshness: Freshness,
    /// The tokens that may have them.
    accepted: Accepted,
    /// Whether somebody has asked for them since they came.
    asked: AtomicBool,
    /// Which hit of all was the last one here.
    last_used: AtomicU64,
    /// Refreshes in a row that failed.
    failures: u32,
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
    /// Credentials with enough life left.
    Fresh(Bytes),
    /// Valid ones, on which SDKs will soon ask again.
    Stale(Bytes),
    /// Nothing that this token may have.
    Nothing,
}

/// What is to be done about the entries.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// Those to be refreshed, with the tokens for it and when they expire.
    pub(super) due: Vec<(Subject, Token, SystemTime)>,
    /// When the first of them all expires.
    pub(super) nearest_expiry: Option<SystemTime>,
}

/// The map of all entries.
pub(super) struct Cache {
    entries: DashMap<Subject, Entry>,
    capacity: usize,
    retention: Duration,
    hits: AtomicU64,
    metrics: Metrics,
}

impl Cache {
    pub(super) fn new(config: &Config, metrics: Metrics) -> Self {
        Self {
            entries: DashMap::new(),
            capacity: config.capacity,
            retention: config.retention,
            hits: AtomicU64::new(0),
            metrics,
        }
    }

    /// Where the cache is off, an entry is an answer that waits for a client to come back.
    pub(super) fn is_off(&self) -> bool {
        self.capacity == 0 || self.retention.is_zero()
    }

    /// What there is for whoever proves to be `subject` and to hold the token.
    pub(super) fn get(&self, subject: &Subject, digest: &TokenDigest, now: SystemTime) -> Lookup {
        if self.is_off() {
            return self.hand_over(subject, digest, now);
        }
        let Some(entry) = self.entries.get(subject) else {
            return Lookup::Nothing;
        };
        if !entry.accepted.contains(digest) || entry.freshness.expiration <= now {
            return Lookup::Nothing;
        }
        let age = entry.freshness.age(now);
        if age > SETTLING {
            entry.asked.store(true, Relaxed);
        }
        let hit = self.hits.fetch_add(1, Relaxed);
        entry.last_used.store(hit, Relaxed);
        if entry.freshness.stale_at <= now {
            return Lookup::Stale(entry.body.clone());
        }
        self.metrics.hit_age.observe(age.as_secs_f64());
        Lookup::Fresh(entry.body.clone())
    }

    /// The credentials that one token of a pod got, in the place of what was there.
    pub(super) fn insert(
        &self,
        subject: Subject,
        token: Token,
        digest: TokenDigest,
        body: Bytes,
        expiration: SystemTime,
        now: SystemTime,
    ) {
        let before = self.remove(&subject);
        let mut entry = Entry {
            body,
            freshness: Freshness::new(now, expiration, self.retention),
            accepted: before.map(|entry| entry.accepted).unwrap_or_default(),
            asked: AtomicBool::new(false),
            last_used: AtomicU64::new(self.hits.fetch_add(1, Relaxed)),
            failures: 0,
        };
        entry.accepted.add(token, digest);
        self.metrics.entries.inc();
        self.metrics.bytes.add(entry.bytes());
        self.entries.insert(subject, entry);
        self.make_room();
    }

    /// Gives a pod's credentials to another of its tokens, which somebody has verified.
    pub(super) fn adopt(&self, subject: &Subject, token: Token, now: SystemTime) -> Lookup {
        let digest = token.digest();
        {
            let Some(mut entry) = self.entries.get_mut(subject) else {
                return Lookup::Nothing;
            };
            let before = entry.bytes();
            entry.accepted.add(token, digest);
            self.metrics.bytes.add(entry.bytes() - before);
        }
        self.get(subject, &digest, now)
    }

    /// Takes the credentials from a token that EKS Auth no longer accepts. Where it is the pod that
    /// is refused, they go altogether.
    pub(super) fn refuse(&self, subject: &Subject, digest: &TokenDigest, kind: RefusalKind) {
        let Some(mut entry) = self.entries.get_mut(subject) else {
            return;
        };
        if !entry.accepted.contains(digest) {
            return;
        }
        if kind != RefusalKind::BadToken || matches!(subject, Subject::Bearer(_)) {
            drop(entry);
            self.remove(subject);
            return;
        }
        // The pod may hold a newer token already, and will show it.
        let before = entry.bytes();
        entry.accepted.revoke(digest);
        self.metrics.bytes.add(entry.bytes() - before);
    }

    /// Puts off the next refresh after one that failed.
    pub(super) fn postpone(&self, subject: &Subject, now: SystemTime) {
        if let Some(mut entry) = self.entries.get_mut(subject) {
            let failures = entry.failures;
            entry.failures += 1;
            entry.freshness.postpone(now, failures);
        }
    }

    /// Drops a subject's entry.
    pub(super) fn forget(&self, subject: &Subject) {
        self.remove(subject);
    }

    /// Drops what has expired, and says what is to be refreshed, what expires first before the rest.
    pub(super) fn upkeep(&self, now: SystemTime) -> Upkeep {
        let mut upkeep = Upkeep::default();
        let mut expired = Vec::new();
        for entry in &self.entries {
            let expiration = entry.freshness.expiration;
            if self.is_over(&entry, now) {
                expired.push(*entry.key());
                continue;
            }
            let nearest = upkeep.nearest_expiry.get_or_insert(expiration);
            *nearest = expiration.min(*nearest);
            if entry.freshness.refresh_at <= now
                && entry.asked.load(Relaxed)
                && let Some(token) = entry.accepted.token()
            {
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
            }
        }
        upkeep.due.sort_by_key(|(_, _, expiration)| *expiration);
        upkeep
    }

    /// Whether nobody can get an entry any more.
    fn is_over(&self, entry: &Entry, now: SystemTime) -> bool {
        entry.freshness.expiration <= now
            || (self.is_off() && entry.freshness.age(now) >= HAND_OVER)
    }

    /// Drops the entries that have gone unused for longest.
    fn make_room(&self) {
        // Where the cache is off, what waits for its client goes by itself within seconds.
        let surplus = match self.is_off() {
            true => 0,
            false => self.entries.len().saturating_sub(self.capacity),
        };
        for _ in 0..surplus {
            let oldest = self
                .entries
                .iter()
                .max_by_key(|entry| Reverse(entry.last_used.load(Relaxed)))
                .map(|entry| *entry.key());
            if let Some(subject) = oldest {
                self.remove(&subject);
                self.metrics.evictions.inc();
            }
        }
    }

    /// Gives an answer to the one client that comes back for it.
    fn hand_over(&self, subject: &Subject, digest: &TokenDigest, now: SystemTime) -> Lookup {
        let taken = self.entries.remove_if(subject, |_, entry| {
            entry.accepted.contains(digest)
                && entry.freshness.age(now) < HAND_OVER
                && entry.freshness.expiration > now
        });
        match taken {
            Some((_, entry)) => {
                self.uncount(&entry);
                Lookup::Fresh(entry.body)
            }
            None => Lookup::Nothing,
        }
    }

    fn remove(&self, subject: &Subject) -> Option<Entry> {
        let (_, entry) = self.entries.remove(subject)?;
        self.uncount(&entry);
        Some(entry)
    }

    fn uncount(&self, entry: &Entry) {
        self.metrics.entries.dec();
        self.metrics.bytes.sub(entry.bytes());
    }
}
