//! What there is, for people to read: no credentials, and no token.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use podcreds_types::{PodNames, PodUid, Token};

use crate::{Cache, Subject, clock::Reading, entry::Kept};

/// One subject's credentials, without a secret.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whose they are.
    pub subject: Subject,
    /// The pod that the token which renews them was issued to.
    pub pod: Option<PodUid>,
    /// What that token says Kubernetes calls this pod.
    pub names: Option<PodNames>,
    /// The role that they are of; `None` if they came from an agent that did not tell.
    pub role: Option<Arc<str>>,
    /// When they came.
    pub renewed: SystemTime,
    /// When they are renewed, if they are asked for.
    pub renew_at: SystemTime,
    /// When AWS stops accepting them.
    pub expiration: SystemTime,
    /// When a request has last asked this agent for them.
    pub last_asked: Option<SystemTime>,
    /// Whether they are served only where there are none newer.
    pub is_stale: bool,
    /// Whether they have expired.
    pub has_expired: bool,
    /// Renewals in a row that failed.
    pub failures: u32,
    /// Whether the agent before this one renews them.
    pub is_followed: bool,
}

impl Cache {
    /// All that there is. It reads the names in the tokens, and keeps nothing of that.
    pub fn summaries(&self) -> Vec<Summary> {
        let now = self.clock.read();
        let following = self.following.load(Relaxed);
        let found: Vec<_> = (self.entries.iter())
            .filter_map(|entry| {
                let kept = entry.kept.as_ref()?;
                let token = kept.accepted.token().cloned();
                Some((summary(*entry.key(), kept, following, now), token))
            })
            .collect();
        // Here no part of the map is locked any more.
        let named = found.into_iter().map(|(mut summary, token)| {
            (summary.pod, summary.names) = token.map(|token| told_by(&token)).unwrap_or_default();
            summary
        });
        named.collect()
    }

    /// The role of a subject's credentials, if it is known, and when they expire.
    pub fn granted(&self, subject: &Subject) -> Option<(Option<Arc<str>>, SystemTime)> {
        let entry = self.entries.get(subject)?;
        let kept = entry.kept.as_ref()?;
        Some((kept.role.clone(), kept.freshness.expiration))
    }

    /// The token that renews a subject's credentials.
    pub fn renewing(&self, subject: &Subject) -> Option<Token> {
        let entry = self.entries.get(subject).filter(|_| !self.is_off())?;
        entry.kept.as_ref()?.accepted.token().cloned()
    }
}

/// The names follow when the map is not locked.
fn summary(subject: Subject, kept: &Kept, following: bool, now: Reading) -> Summary {
    let ages = kept.freshness.ages(now);
    let asked_at = Duration::from_secs(kept.asked_at.load(Relaxed).into());
    let ago = now.boot.saturating_sub(asked_at);
    Summary {
        subject,
        pod: None,
        names: None,
        role: kept.role.clone(),
        renewed: ages.fetched,
        renew_at: ages.renew_at,
        // As AWS has said it, and as the pod is told.
        expiration: kept.freshness.expiration,
        last_asked: (!asked_at.is_zero()).then(|| now.wall - ago),
        is_stale: kept.freshness.is_stale(now),
        has_expired: kept.freshness.has_expired(now),
        failures: kept.failures,
        is_followed: following && kept.inherited,
    }
}

/// Reads a copy: what is read stays with a token as long as that is kept.
fn told_by(token: &Token) -> (Option<PodUid>, Option<PodNames>) {
    match token.without_claims().claims() {
        Ok(claims) => (claims.pod, PodNames::from_claims(claims)),
        Err(_) => (None, None),
    }
}
