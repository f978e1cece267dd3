//! What a request can be told at once, without a queue.

use bytes::Bytes;
use podcreds_types::{Claimant, TokenDigest};
use tokio::time::Instant;

use super::{CredentialError, Store, Subject, cache::Lookup};

impl Store {
    /// What is at hand for this claimant and this token: the response's body, or what it was told
    /// seconds ago and would be told again. Cheap in both cases; a refusal costs no more than a hit.
    pub fn at_hand(
        &self,
        claimant: &Claimant,
        digest: &TokenDigest,
    ) -> Option<Result<Bytes, CredentialError>> {
        if let Some(body) = self.cached(claimant, digest) {
            return Some(Ok(body));
        }
        let refused = self.remembered(claimant, digest)?;
        self.0.metrics.of_error(&refused).inc();
        Some(Err(refused))
    }

    /// The response's body, if it is at hand for this claimant and this token. Cheap.
    pub fn cached(&self, claimant: &Claimant, digest: &TokenDigest) -> Option<Bytes> {
        subjects(claimant, digest).find_map(|subject| self.fresh(&subject, digest))
    }

    /// The refusal that still holds for this claimant and this token.
    fn remembered(&self, claimant: &Claimant, digest: &TokenDigest) -> Option<CredentialError> {
        let now = Instant::now();
        subjects(claimant, digest).find_map(|subject| self.0.refusals.get(&subject, digest, now))
    }

    fn fresh(&self, subject: &Subject, digest: &TokenDigest) -> Option<Bytes> {
        match self.0.cache.get(subject, digest, self.0.clock.read()) {
            Lookup::Fresh(body, age) => {
                self.0.metrics.hit(age);
                Some(body)
            }
            // There may be newer ones to be had.
            Lookup::Stale(_) | Lookup::Nothing => None,
        }
    }
}

/// Where to look for what a claimant may have. Claims may choose a place, since nothing is found but
/// by the very token that was accepted, or refused, there: claims and all.
fn subjects(claimant: &Claimant, digest: &TokenDigest) -> impl Iterator<Item = Subject> {
    let (pod, bearer) = match claimant {
        Claimant::Pod(pod) => (Some(*pod), None),
        Claimant::Bearer { claims, .. } => (*claims, Some(*digest)),
    };
    let pod = pod.map(Subject::Pod).into_iter();
    pod.chain(bearer.map(Subject::Bearer))
}
