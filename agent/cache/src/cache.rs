//! The map of all entries.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use dashmap::Entry as Slot;
use podcreds_types::{CredentialError, PodUid, SharedMap, Token, TokenDigest};
use tokio::sync::{Notify, broadcast};

use crate::{
    Clock, Metrics, Subject,
    accepted::{AcceptedTokens, expiry},
    clock::Reading,
    entry::{Entry, Kept},
    freshness::{Freshness, MIN_LEFT},
    presence::Presence,
    roles::Roles,
};

/// How long an answer that found nobody waiting is kept where the cache is off.
pub(crate) const PARKED: Duration = Duration::from_secs(10);

/// Changed subjects that a subscriber may be behind. One that is further behind looks at all of
/// them.
const EVENTS: usize = 256;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many pods' credentials are kept. Zero turns the cache off: `--max-cache-size`.
    pub capacity: usize,
    /// The oldest that credentials get before they are renewed, if a request has asked for them
    /// since the last renewal. Zero turns the cache off:
    /// `--max-credential-retention-before-renewal`.
    pub retention: Duration,
}

/// What an exchange brought.
pub struct Fetched {
    /// The response's body.
    pub body: Bytes,
    /// When its credentials expire.
    pub expiration: SystemTime,
    /// The role that they are of, for people to read.
    pub role: Option<Arc<str>>,
    /// The token that got them.
    pub token: Token,
    /// The token's digest.
    pub digest: TokenDigest,
    /// Whether a request has asked for them.
    pub asked: bool,
}

/// What the cache has for a token.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Credentials with enough life left, and how old they are.
    Fresh(Bytes, Duration),
    /// Valid ones, on which SDKs will soon ask again.
    Stale(Bytes),
    /// Nothing but a refusal of this token, which still holds.
    Refused(CredentialError),
    /// Nothing that this token may have.
    Nothing,
}

/// The map of all entries. It is read on the serving thread, and changed where exchanges end.
pub struct Cache {
    /// Boxed, since half of a map's slots are empty.
    pub(crate) entries: SharedMap<Subject, Box<Entry>>,
    /// How many of them have credentials.
    pub(crate) kept: AtomicUsize,
    pub(crate) config: Config,
    pub(crate) hits: AtomicU64,
    /// Whether another agent renews what was inherited.
    pub(crate) following: AtomicBool,
    pub(crate) presence: Presence,
    pub(crate) roles: Roles,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    events: broadcast::Sender<Subject>,
    /// There may be something to do before it was expected.
    pub(crate) work: Notify,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: Config, clock: Clock, metrics: Metrics) -> Self {
        Self {
            entries: SharedMap::default(),
            kept: AtomicUsize::new(0),
            config,
            hits: AtomicU64::new(0),
            following: AtomicBool::new(false),
            presence: Presence::default(),
            roles: Roles::default(),
            clock,
            metrics,
            events: broadcast::Sender::new(EVENTS),
            work: Notify::new(),
        }
    }

    /// Where the cache is off, an entry is an answer that waits for a client to come back.
    pub fn is_off(&self) -> bool {
        self.config.capacity == 0 || self.config.retention.is_zero()
    }

    /// The clock by which it judges.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// What this cache counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Names each subject whose credentials change from now on. One that lags is told so.
    pub fn subscribe(&self) -> broadcast::Receiver<Subject> {
        self.events.subscribe()
    }

    /// Whether another agent is told of them.
    pub(crate) fn has_subscribers(&self) -> bool {
        self.events.receiver_count() > 0
    }

    /// From now on keeps nothing for pods that are not on the node by this account, and drops what
    /// it has inherited for such. The first account stays.
    pub fn keep_only_pods(&self, is_on_node: impl Fn(PodUid) -> bool + Send + Sync + 'static) {
        self.presence.trust(is_on_node);
        self.disown_if(|subject| !self.presence.has(subject));
    }

    /// What there is for `subject`, to which a token with this digest belongs.
    pub fn get(&self, subject: &Subject, digest: &TokenDigest) -> Lookup {
        let now = self.clock.read();
        if self.is_off()
            && let Some((body, age)) = self.take_parked(subject, digest, now)
        {
            return Lookup::Fresh(body, age);
        }
        let Some(entry) = self.entries.get(subject) else {
            return Lookup::Nothing;
        };
        let found = entry.get(digest, now);
        if let (Lookup::Fresh(..) | Lookup::Stale(_), Some(kept)) = (&found, &entry.kept) {
            if self.is_off() {
                return Lookup::Nothing;
            }
            self.touch(subject, kept, now);
        }
        found
    }

    /// Whether a token was accepted for what there is of a subject.
    pub fn accepts(&self, subject: &Subject, digest: &TokenDigest) -> bool {
        let entry = self.entries.get(subject);
        let kept = entry.as_ref().and_then(|entry| entry.kept.as_ref());
        kept.is_some_and(|kept| kept.accepted.contains(digest))
    }

    /// Whether there are valid credentials of a pod for other tokens than this one.
    pub fn has_for_others(&self, subject: &Subject, digest: &TokenDigest) -> bool {
        let now = self.clock.read();
        let entry = self.entries.get(subject);
        let kept = entry.as_ref().and_then(|entry| entry.kept.as_ref());
        kept.is_some_and(|kept| {
            !self.is_off() && !kept.freshness.has_expired(now) && !kept.accepted.contains(digest)
        })
    }

    /// The credentials of a subject if they expire later than then.
    pub fn later(&self, subject: &Subject, than: SystemTime) -> Option<Bytes> {
        let entry = self.entries.get(subject)?;
        let kept = entry.kept.as_ref()?;
        (!self.is_off() && kept.freshness.expiration > than).then(|| kept.body.clone())
    }

    /// The cached credentials, where new ones that are good for minutes only would be worse.
    pub fn longer_lived(&self, subject: &Subject, expiration: SystemTime) -> Option<Bytes> {
        if expiration >= self.clock.now() + MIN_LEFT {
            return None;
        }
        self.later(subject, expiration)
    }

    /// Takes in what one token of a subject got, in the place of what was there. In one step: a
    /// request that comes meanwhile finds one or the other. Keeps nothing for a pod that is gone.
    pub fn insert(&self, subject: Subject, fetched: Fetched) {
        if !self.presence.has(&subject) {
            return;
        }
        let now = self.clock.read();
        let mut entry = self.entries.entry(subject).or_default();
        let before = self.put(&mut entry, None);
        let (mut accepted, asked_at) = match before {
            Some(before) => (before.accepted, before.asked_at.into_inner()),
            None => (AcceptedTokens::default(), 0),
        };
        accepted.add_exchanged(fetched.token, fetched.digest);
        let asked_at = match fetched.asked {
            true => now.boot_seconds(),
            false => asked_at,
        };
        let kept = Kept {
            body: fetched.body,
            freshness: Freshness::new(now, fetched.expiration, self.config.retention),
            accepted,
            role: fetched.role.map(|role| self.roles.shared(role)),
            asked: AtomicBool::new(fetched.asked),
            asked_at: AtomicU32::new(asked_at),
            last_used: AtomicU64::new(self.hits.fetch_add(1, Relaxed)),
            failures: 0,
            inherited: false,
        };
        self.put(&mut entry, Some(kept));
        drop(entry);
        self.changed(subject);
        self.make_room();
    }

    /// Gives a pod's credentials to another of its tokens, which a key has verified. Not if that
    /// has expired, which a verdict may have missed where the wall clock was put back. True if it
    /// has them.
    pub fn adopt(&self, subject: &Subject, token: Token) -> bool {
        let (now, digest) = (self.clock.read(), token.digest());
        let Some(mut entry) = self.entries.get_mut(subject) else {
            return false;
        };
        let Some(kept) = &mut entry.kept else {
            return false;
        };
        let is_good = expiry(&token).is_none_or(|end| kept.freshness.is_before(now, end));
        if is_good && !kept.accepted.contains(&digest) {
            let before = kept.bytes();
            kept.accepted.add(token, digest);
            self.metrics.bytes.add(kept.bytes() - before);
            drop(entry);
            self.changed(*subject);
        }
        is_good
    }

    /// Puts off the next renewal after one that failed.
    pub fn postpone(&self, subject: &Subject) {
        let now = self.clock.read();
        let Some(mut entry) = self.entries.get_mut(subject) else {
            return;
        };
        if let Some(kept) = &mut entry.kept {
            kept.freshness.postpone(now, kept.failures);
            kept.failures += 1;
            drop(entry);
            self.changed(*subject);
        }
    }

    /// Drops all that is kept for a pod that is gone.
    pub fn forget_pod(&self, pod: PodUid) {
        self.presence.note_gone(pod, self.clock.read().boot);
        self.forget(&Subject::Pod(pod));
        self.work.notify_one();
    }

    /// Drops a subject's entry.
    pub fn forget(&self, subject: &Subject) {
        let Some((_, mut entry)) = self.entries.remove(subject) else {
            return;
        };
        self.count_refusals(entry.refused.len(), 0);
        if entry.kept.is_some() {
            self.put(&mut entry, None);
            self.changed(*subject);
        }
    }

    /// Replaces the credentials of an entry, and counts that. What was there before.
    pub(crate) fn put(&self, entry: &mut Entry, kept: Option<Kept>) -> Option<Kept> {
        let bytes = |kept: &Option<Kept>| kept.as_ref().map_or(0, Kept::bytes);
        self.metrics.bytes.add(bytes(&kept) - bytes(&entry.kept));
        match (&entry.kept, &kept) {
            (None, Some(_)) => {
                self.kept.fetch_add(1, Relaxed);
                self.metrics.entries.inc();
            }
            (Some(_), None) => {
                self.kept.fetch_sub(1, Relaxed);
                self.metrics.entries.dec();
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        mem::replace(&mut entry.kept, kept)
    }

    /// Tells subscribers that a subject's credentials have changed.
    pub(crate) fn changed(&self, subject: Subject) {
        // Nearly always there are none.
        let _ = self.events.send(subject);
    }

    pub(crate) fn count_refusals(&self, before: usize, after: usize) {
        self.metrics.refusals.add(after as i64 - before as i64);
    }

    /// Notes that a request has asked for credentials.
    fn touch(&self, subject: &Subject, kept: &Kept, now: Reading) {
        let hit = self.hits.fetch_add(1, Relaxed);
        kept.last_used.store(hit, Relaxed);
        kept.asked_at.store(now.boot_seconds(), Relaxed);
        if !kept.asked.load(Relaxed) {
            kept.asked.store(true, Relaxed);
            self.changed(*subject);
            // Sooner than the next look may be.
            if kept.freshness.until_due(now) < crate::upkeep::LONGEST_PAUSE {
                self.work.notify_one();
            }
        }
    }

    /// Takes the answer that waits for the one client that comes back for it.
    fn take_parked(
        &self,
        subject: &Subject,
        digest: &TokenDigest,
        now: Reading,
    ) -> Option<(Bytes, Duration)> {
        let Slot::Occupied(mut slot) = self.entries.entry(*subject) else {
            return None;
        };
        let kept = slot.get().valid(digest, now)?;
        let age = kept.freshness.age(now);
        if age >= PARKED {
            return None;
        }
        let body = kept.body.clone();
        self.put(slot.get_mut(), None);
        if slot.get().is_empty() {
            slot.remove();
        }
        Some((body, age))
    }
}
