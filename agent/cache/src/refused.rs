//! Tokens that were refused, remembered for seconds beside the credentials of their subject.
//!
//! A pod in a crash loop asks again and again; a person who has just made the association expects
//! it to work at once. So a refusal is believed for three seconds, then asked about again, then
//! believed longer, but never for more than ten.

use std::time::Duration;

use podcreds_types::{CredentialError, TokenDigest};

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

/// Who refused a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// EKS Auth, in answer to a call.
    EksAuth,
    /// The agent, which has the cluster's keys. It costs no call.
    Agent,
}

/// What a refusal takes from a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: the request was rejected, which says nothing about credentials.
    Nothing,
    /// The credentials of this token: the pod may have a newer one.
    Token,
    /// The subject's credentials altogether.
    All,
}

/// A refusal of one token.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Who refused it.
    pub source: Source,
    /// What the refusal takes from the subject.
    pub takes: Takes,
    /// What the pod is told.
    pub error: CredentialError,
}

/// A refusal, and for how long it holds. All times are since the machine started.
struct Remembered {
    digest: TokenDigest,
    refused: Refused,
    times: u32,
    until: Duration,
    /// When it last took the credentials of this token, or all of them.
    took_token: Option<Duration>,
    took_all: Option<Duration>,
}

impl Remembered {
    fn note_taking(&mut self, now: Duration) {
        match self.refused.takes {
            Takes::Nothing => {}
            Takes::Token => self.took_token = Some(now),
            Takes::All => self.took_all = Some(now),
        }
    }

    /// Whether it says something about the next tokens.
    fn is_recent(&self, now: Duration) -> bool {
        self.until + MEMORY > now
    }

    /// Whether it has ever taken credentials.
    fn has_taken(&self) -> bool {
        self.took_all.is_some() || self.took_token.is_some()
    }

    /// What it has taken since then.
    fn taken_since(&self, then: Duration) -> Takes {
        let since = |at: Option<Duration>| at.is_some_and(|at| at >= then);
        match (since(self.took_all), since(self.took_token)) {
            (true, _) => Takes::All,
            (false, true) => Takes::Token,
            (false, false) => Takes::Nothing,
        }
    }
}

/// The refused tokens of one subject.
#[derive(Default)]
pub(crate) struct RefusedTokens(Vec<Remembered>);

impl RefusedTokens {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The refusal that still holds for a token.
    pub(crate) fn get(&self, digest: &TokenDigest, now: Duration) -> Option<&CredentialError> {
        let known = self.find(digest).filter(|known| known.until > now)?;
        Some(&known.refused.error)
    }

    /// Whether a token has been refused within the last minute or so.
    pub(crate) fn has(&self, digest: &TokenDigest, now: Duration) -> bool {
        self.find(digest).is_some_and(|known| known.is_recent(now))
    }

    /// How long a token that nobody has seen before waits for its attempt. A pod that shows one
    /// refused token after the other shall not spend the node's calls on them.
    pub(crate) fn pause(&self, now: Duration) -> Duration {
        let calls = (self.0.iter())
            .filter(|known| known.refused.source == Source::EksAuth && known.is_recent(now));
        match calls.count().checked_sub(PATIENCE) {
            None => Duration::ZERO,
            Some(more) => (FIRST * (more as u32 + 1)).min(LONGEST),
        }
    }

    /// Remembers a refusal. True if it is news.
    pub(crate) fn add(&mut self, digest: TokenDigest, refused: Refused, now: Duration) -> bool {
        if let Some(known) = self.0.iter_mut().find(|known| known.digest == digest) {
            known.times += 1;
            known.until = now + FIRST.saturating_mul(1 << known.times.min(8)).min(LONGEST);
            known.refused = refused;
            known.note_taking(now);
            return false;
        }
        if self.0.len() >= PER_SUBJECT {
            // What costs no call goes first: it can be told again for nothing. What took
            // credentials goes last: the agent before this one may not know of it.
            let least = self.0.iter().enumerate().min_by_key(|(_, known)| {
                let is_call = known.refused.source == Source::EksAuth;
                (is_call, known.has_taken())
            });
            let least = least.map(|(at, _)| at);
            self.0.remove(least.unwrap_or_default());
        }
        let mut new = Remembered {
            digest,
            refused,
            times: 0,
            until: now + FIRST,
            took_token: None,
            took_all: None,
        };
        new.note_taking(now);
        self.0.push(new);
        true
    }

    /// Forgets the refusal of a token that has been accepted. True if there was one.
    pub(crate) fn remove(&mut self, digest: &TokenDigest) -> bool {
        let before = self.len();
        self.0.retain(|known| known.digest != *digest);
        self.len() < before
    }

    /// Forgets what nobody has asked about for a while. Where another agent `may_tell` again of
    /// what refusals took, those are kept.
    pub(crate) fn sweep(&mut self, now: Duration, may_tell: bool) {
        self.0
            .retain(|known| known.is_recent(now) || (may_tell && known.has_taken()));
    }

    /// When [`Self::sweep`] has something to do.
    pub(crate) fn next_sweep(&self, may_tell: bool) -> Option<Duration> {
        let swept = (self.0.iter()).filter(|known| !(may_tell && known.has_taken()));
        swept.map(|known| known.until + MEMORY).min()
    }

    /// Whether the refusal of a token took credentials.
    pub(crate) fn took(&self, digest: &TokenDigest) -> bool {
        self.find(digest).is_some_and(Remembered::has_taken)
    }

    /// The tokens whose refusals took credentials.
    pub(crate) fn taken(&self) -> impl Iterator<Item = &TokenDigest> {
        let taken = self.0.iter().filter(|known| known.has_taken());
        taken.map(|known| &known.digest)
    }

    /// What refusals have taken since then, by token.
    pub(crate) fn since(&self, then: Duration) -> impl Iterator<Item = (&TokenDigest, Takes)> {
        let taken = self
            .0
            .iter()
            .map(move |known| (&known.digest, known.taken_since(then)));
        taken.filter(|(_, takes)| *takes != Takes::Nothing)
    }

    fn find(&self, digest: &TokenDigest) -> Option<&Remembered> {
        self.0.iter().find(|known| known.digest == *digest)
    }
}

#[cfg(test)]
mod tests {
    use podcreds_types::Token;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn digest(token: &str) -> TokenDigest {
        Token::new(token).digest()
    }

    fn refusal(source: Source) -> Refused {
        Refused {
            source,
            takes: Takes::Token,
            error: CredentialError::not_ready("stands for a refusal"),
        }
    }

    fn refuse(tokens: &mut RefusedTokens, token: &str, now: Duration) -> bool {
        tokens.add(digest(token), refusal(Source::EksAuth), now)
    }

    #[test]
    fn a_repeated_refusal_is_believed_for_longer_but_never_long() {
        let mut tokens = RefusedTokens::default();
        let mut now = 100 * SECOND;
        for seconds in [3, 6, 10, 10] {
            refuse(&mut tokens, "a", now);
            now += seconds * SECOND;
            let just_before = now - Duration::from_millis(1);
            assert!(tokens.get(&digest("a"), just_before).is_some());
            assert!(tokens.get(&digest("a"), now).is_none());
        }
        assert_eq!(tokens.next_sweep(false), Some(now + MEMORY));
        assert_eq!(tokens.next_sweep(true), None);
        tokens.sweep(now + MEMORY, true);
        assert!(!refuse(&mut tokens, "a", now), "kept");
        tokens.sweep(now + MEMORY + LONGEST, false);
        assert!(refuse(&mut tokens, "a", now), "forgotten");
    }

    #[test]
    fn refusing_one_token_refuses_no_other() {
        let mut tokens = RefusedTokens::default();
        refuse(&mut tokens, "a", SECOND);
        assert!(tokens.get(&digest("b"), SECOND).is_none());
        assert!(tokens.remove(&digest("a")));
        assert!(tokens.get(&digest("a"), SECOND).is_none());
        assert!(!tokens.remove(&digest("a")));
    }

    #[test]
    fn a_pod_full_of_garbage_waits_and_costs_bounded_memory() {
        let mut tokens = RefusedTokens::default();
        let mut pauses = Vec::new();
        for n in 0..20 {
            pauses.push(tokens.pause(SECOND).as_secs());
            refuse(&mut tokens, &n.to_string(), SECOND);
        }
        assert_eq!(pauses[..7], [0, 0, 0, 3, 6, 9, 10]);
        assert_eq!(tokens.len(), PER_SUBJECT);
    }

    #[test]
    fn refusals_that_cost_no_call_slow_nothing_down_and_are_forgotten_first() {
        let mut tokens = RefusedTokens::default();
        for n in 0..4 {
            refuse(&mut tokens, &format!("asked{n}"), SECOND);
        }
        for n in 0..20 {
            tokens.add(
                digest(&format!("forged{n}")),
                refusal(Source::Agent),
                SECOND,
            );
        }
        assert_eq!(tokens.pause(SECOND).as_secs(), 6);
        assert!(tokens.has(&digest("asked0"), SECOND) && tokens.has(&digest("forged19"), SECOND));
        assert_eq!(tokens.len(), PER_SUBJECT);
    }
}
