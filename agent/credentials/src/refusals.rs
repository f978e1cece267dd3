//! Refusals, remembered for seconds: EKS Auth's, and the agent's own of tokens that the cluster has
//! not signed.
//!
//! A pod in a crash loop asks again and again; a person who has just made the association expects
//! it to work at once. So a refusal is believed for three seconds, then asked about again, then
//! believed longer, but never for more than ten.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use dashmap::DashMap;
use podcreds_types::{Origin, TokenDigest};
use tokio::time::Instant;

use super::{CredentialError, Metrics, Subject};

/// How long the first refusal is believed; each one after that twice as long.
const FIRST: Duration = Duration::from_secs(3);
/// How long any refusal is believed at most.
const LONGEST: Duration = Duration::from_secs(10);
/// How long it is remembered that there was a refusal at all.
const MEMORY: Duration = Duration::from_secs(60);
/// Refused tokens that are remembered for one subject.
const PER_SUBJECT: usize = 8;
/// From this many refused tokens on, a subject's new tokens wait before they are tried.
const PATIENCE: usize = 3;
/// Refused tokens that are remembered of callers whom nobody has identified. They can make up any
/// number of them.
const BEARERS: usize = 1024;
/// From this many more refused than accepted tokens on, a place's next tokens count as doubtful.
const SUSPECT: u32 = 16;

/// Who has refused a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// EKS Auth, in answer to a call.
    EksAuth,
    /// The agent, which has the cluster's keys. It costs no call.
    Agent,
}

struct Refusal {
    digest: TokenDigest,
    source: Source,
    error: CredentialError,
    times: u32,
    until: Instant,
}

/// A place from which unidentified callers show tokens.
struct Place {
    /// Bad tokens, less the good ones.
    bad: u32,
    /// When the last bad one came.
    last: Instant,
}

/// The refusals of all subjects.
pub(super) struct Refusals {
    by_subject: DashMap<Subject, Vec<Refusal>>,
    /// Those of the subjects that are no pods, the oldest first. Some may be forgotten already.
    bearers: Mutex<VecDeque<Subject>>,
    /// Where tokens come from that EKS Auth would have none of.
    places: DashMap<Origin, Place>,
    metrics: Metrics,
}

impl Refusals {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            by_subject: DashMap::new(),
            bearers: Mutex::default(),
            places: DashMap::new(),
            metrics,
        }
    }

    /// The refusal that still holds for a token.
    pub(super) fn get(
        &self,
        subject: &Subject,
        digest: &TokenDigest,
        now: Instant,
    ) -> Option<CredentialError> {
        let refusals = self.by_subject.get(subject)?;
        let refusal = refusals.iter().find(|refusal| refusal.digest == *digest)?;
        (refusal.until > now).then(|| refusal.error.clone())
    }

    /// Whether a token has been refused within the last minute or so.
    pub(super) fn is_known(&self, subject: &Subject, digest: &TokenDigest) -> bool {
        let refusals = self.by_subject.get(subject);
        refusals.is_some_and(|list| list.iter().any(|refusal| refusal.digest == *digest))
    }

    /// How long a token that nobody has seen before waits for its turn. A pod that shows one
    /// refused token after the other shall not spend the node's calls on them.
    pub(super) fn pause(&self, subject: &Subject) -> Duration {
        let calls = |list: &Vec<Refusal>| {
            let of_calls = list.iter().filter(|it| it.source == Source::EksAuth);
            of_calls.count()
        };
        let refused = (self.by_subject.get(subject)).map_or(0, |list| calls(list.value()));
        match refused.checked_sub(PATIENCE) {
            None => Duration::ZERO,
            Some(more) => (FIRST * (more as u32 + 1)).min(LONGEST),
        }
    }

    /// Remembers a refusal. True if it is news.
    pub(super) fn add(
        &self,
        subject: Subject,
        digest: TokenDigest,
        source: Source,
        error: CredentialError,
        now: Instant,
    ) -> bool {
        let mut refusals = self.by_subject.entry(subject).or_default();
        if let Some(known) = refusals.iter_mut().find(|known| known.digest == digest) {
            known.times += 1;
            known.until = now + FIRST.saturating_mul(1 << known.times.min(8)).min(LONGEST);
            known.error = error;
            known.source = source;
            return false;
        }
        if refusals.len() >= PER_SUBJECT {
            // What costs no call goes first: it can be told again for nothing.
            let cheap = refusals.iter().position(|it| it.source == Source::Agent);
            refusals.remove(cheap.unwrap_or_default());
            self.metrics.refusals.dec();
        }
        refusals.push(Refusal {
            digest,
            source,
            error,
            times: 0,
            until: now + FIRST,
        });
        self.metrics.refusals.inc();
        drop(refusals);
        if matches!(subject, Subject::Bearer(_)) {
            self.make_room(subject);
        }
        true
    }

    /// Forgets the oldest of the subjects that are no pods, where a new one is one too many.
    fn make_room(&self, new: Subject) {
        let mut bearers = self.bearers.lock().unwrap_or_else(PoisonError::into_inner);
        bearers.push_back(new);
        let oldest = (bearers.len() > BEARERS).then(|| bearers.pop_front());
        drop(bearers);
        if let Some(oldest) = oldest.flatten() {
            self.forget(&oldest);
        }
    }

    /// Notes that a token which came from there was good, or bad.
    pub(super) fn judge(&self, place: Origin, is_good: bool, now: Instant) {
        if is_good {
            self.places.remove_if_mut(&place, |_, place| {
                place.bad = place.bad.saturating_sub(1);
                place.bad == 0
            });
            return;
        }
        let mut place = self
            .places
            .entry(place)
            .or_insert(Place { bad: 0, last: now });
        place.bad = place.bad.saturating_add(1).min(2 * SUSPECT);
        place.last = now;
    }

    /// Whether the next token from there is as likely bad as one that has been refused.
    pub(super) fn is_suspect(&self, place: Origin) -> bool {
        let place = self.places.get(&place);
        place.is_some_and(|place| place.bad >= SUSPECT)
    }

    /// Forgets the refusal of a token that has been accepted. True if there was one.
    pub(super) fn clear(&self, subject: &Subject, digest: &TokenDigest) -> bool {
        let mut cleared = false;
        self.by_subject.remove_if_mut(subject, |_, refusals| {
            cleared = self.retain(refusals, |refusal| refusal.digest != *digest);
            refusals.is_empty()
        });
        cleared
    }

    /// Forgets all of a subject's refusals.
    pub(super) fn forget(&self, subject: &Subject) {
        if let Some((_, refusals)) = self.by_subject.remove(subject) {
            self.metrics.refusals.sub(refusals.len() as i64);
        }
    }

    /// Forgets what nobody has asked about for a while.
    pub(super) fn sweep(&self, now: Instant) {
        self.by_subject.retain(|_, refusals| {
            self.retain(refusals, |refusal| refusal.until + MEMORY > now);
            !refusals.is_empty()
        });
        self.places.retain(|_, place| place.last + MEMORY > now);
    }

    /// Drops the refusals that are not to be kept. True if there were any.
    fn retain(&self, refusals: &mut Vec<Refusal>, keep: impl Fn(&Refusal) -> bool) -> bool {
        let before = refusals.len();
        refusals.retain(keep);
        let dropped = before - refusals.len();
        self.metrics.refusals.sub(dropped as i64);
        dropped > 0
    }
}

#[cfg(test)]
mod tests {
    use podcreds_types::Token;
    use prometheus::Registry;

    use super::*;

    fn refusals() -> Refusals {
        Refusals::new(Metrics::register(&Registry::new()).unwrap())
    }

    fn digest(token: &str) -> TokenDigest {
        Token::new(token).digest()
    }

    fn error() -> CredentialError {
        CredentialError::not_ready("stands for a refusal")
    }

    const POD: fn() -> Subject = || Subject::Pod("1".repeat(32).parse().unwrap());

    fn refuse(refusals: &Refusals, subject: Subject, token: &str, now: Instant) -> bool {
        refusals.add(subject, digest(token), Source::EksAuth, error(), now)
    }

    #[test]
    fn a_refusal_is_believed_for_longer_each_time_but_never_long() {
        let refusals = refusals();
        let mut now = Instant::now();
        for seconds in [3, 6, 10, 10] {
            refuse(&refusals, POD(), "a", now);
            now += Duration::from_secs(seconds);
            let just_before = now - Duration::from_millis(1);
            assert!(refusals.get(&POD(), &digest("a"), just_before).is_some());
            assert!(refusals.get(&POD(), &digest("a"), now).is_none());
        }
        refusals.sweep(now + MEMORY);
        assert_eq!(refusals.metrics.refusals.get(), 0);
        assert!(refuse(&refusals, POD(), "a", now), "forgotten");
    }

    #[test]
    fn tokens_are_refused_one_by_one() {
        let refusals = refusals();
        let now = Instant::now();
        refuse(&refusals, POD(), "a", now);
        assert!(refusals.get(&POD(), &digest("b"), now).is_none());
        assert!(refusals.clear(&POD(), &digest("a")));
        assert!(refusals.get(&POD(), &digest("a"), now).is_none());
        assert_eq!(refusals.metrics.refusals.get(), 0);
    }

    #[test]
    fn a_pod_full_of_garbage_waits_and_costs_bounded_memory() {
        let refusals = refusals();
        let now = Instant::now();
        let mut pauses = Vec::new();
        for n in 0..20 {
            pauses.push(refusals.pause(&POD()).as_secs());
            refuse(&refusals, POD(), &n.to_string(), now);
        }
        assert_eq!(pauses[..7], [0, 0, 0, 3, 6, 9, 10]);
        assert_eq!(refusals.metrics.refusals.get(), PER_SUBJECT as i64);
        refusals.forget(&POD());
        assert_eq!(refusals.metrics.refusals.get(), 0);
        assert!(refusals.pause(&POD()).is_zero());
    }

    #[test]
    fn refusals_that_cost_no_call_slow_nobody_down() {
        let refusals = refusals();
        let now = Instant::now();
        for n in 0..4 {
            refuse(&refusals, POD(), &format!("asked{n}"), now);
        }
        for n in 0..20 {
            let forged = digest(&format!("forged{n}"));
            refusals.add(POD(), forged, Source::Agent, error(), now);
        }
        assert_eq!(refusals.pause(&POD()).as_secs(), 6);
        assert!(refusals.is_known(&POD(), &digest("asked0")));
        assert!(refusals.is_known(&POD(), &digest("forged19")));
        assert_eq!(refusals.metrics.refusals.get(), PER_SUBJECT as i64);
    }

    #[test]
    fn made_up_tokens_cost_bounded_memory() {
        let refusals = refusals();
        let now = Instant::now();
        for n in 0..3 * BEARERS {
            let token = n.to_string();
            refuse(&refusals, Subject::Bearer(digest(&token)), &token, now);
        }
        assert_eq!(refusals.metrics.refusals.get(), BEARERS as i64);
        let last = (3 * BEARERS - 1).to_string();
        assert!(refusals.is_known(&Subject::Bearer(digest(&last)), &digest(&last)));
        refusals.sweep(now + FIRST + MEMORY);
        assert_eq!(refusals.metrics.refusals.get(), 0);
    }

    #[test]
    fn a_place_is_suspect_for_as_long_as_its_tokens_are_bad() {
        let (refusals, now) = (refusals(), Instant::now());
        let (flood, node) = (Origin::Pod(1), Origin::Pod(2));
        for _ in 0..1000 {
            refusals.judge(flood, false, now);
            refusals.judge(node, false, now);
            refusals.judge(node, true, now);
        }
        assert!(refusals.is_suspect(flood) && !refusals.is_suspect(node));
        for _ in 0..=SUSPECT {
            refusals.judge(flood, true, now);
        }
        assert!(!refusals.is_suspect(flood));
        refusals.sweep(now + MEMORY);
        assert!(refusals.places.is_empty());
    }
}
