//! Who asks for credentials, and whose they are.
//!
//! The kernel names the pod of most callers. Of the others nothing is known but the token, and what a
//! token says counts only once one of the cluster's keys has verified it. Then it stands for its pod,
//! with which it shares everything. Until then an exchange at EKS Auth and what comes of it belong to
//! this one token, whatever it claims.

use std::{sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared as SharedFuture},
};
use podcreds_keys::{Verdict, VerifyToken};
use podcreds_types::{Origin, PodUid, Token, TokenDigest};
use tokio::time::{Instant, sleep, timeout};

use super::{CredentialError, Subject, seats::Seat, store::Shared};

/// So long a look in vain is remembered and keeps its seat.
const AFTER_IN_VAIN: Duration = Duration::from_millis(100);

/// A look at a token of which nothing is known, for all who show it meanwhile.
pub(super) type Look = SharedFuture<BoxFuture<'static, Verdict>>;

impl Shared {
    /// Says for whom a token is exchanged whose caller the kernel has not identified.
    ///
    /// A genuine one gets what its pod has in memory, and so does one that was accepted for that pod
    /// before. Waits for a verdict no longer than `wait`; what the keys cannot decide, EKS Auth decides.
    ///
    /// # Errors
    ///
    /// When the cluster has not signed it, or not for us; or when too many such tokens are looked at.
    pub(super) async fn resolve(
        self: &Arc<Self>,
        claims: Option<PodUid>,
        origin: Origin,
        token: &Token,
        digest: TokenDigest,
        wait: Duration,
    ) -> Result<Subject, CredentialError> {
        let bearer = Subject::Bearer(digest);
        let claimed = claims.map(Subject::Pod);
        if let Some(pod) = claimed.filter(|pod| self.cache.accepts(pod, &digest)) {
            return Ok(pod);
        }
        let Some(keys) = self.verifier.get() else {
            return Ok(bearer);
        };
        if let Some(refused) = self.refusals.get(&bearer, &digest, Instant::now()) {
            return Err(refused);
        }
        let look = self.look(keys, origin, token, digest)?;
        let verdict = timeout(wait, look).await.unwrap_or(Verdict::Unknown);
        if let Some(refused) = self.refuse_locally(&verdict) {
            self.remember(bearer, digest, &refused);
            return Err(refused);
        }
        let Verdict::Genuine { pod, .. } = verdict else {
            return Ok(bearer);
        };
        let subject = Subject::Pod(pod);
        self.adopt(&subject, token.clone(), &verdict);
        Ok(subject)
    }

    /// Looks at a token, together with those who look at the same one.
    fn look(
        self: &Arc<Self>,
        keys: &Arc<dyn VerifyToken>,
        origin: Origin,
        token: &Token,
        digest: TokenDigest,
    ) -> Result<Look, CredentialError> {
        let slot = match self.bearers.entry(digest) {
            dashmap::Entry::Occupied(look) => return Ok(look.get().clone()),
            dashmap::Entry::Vacant(slot) => slot,
        };
        let seat = self
            .looking
            .take(origin)
            .ok_or_else(|| too_many("being looked at"))?;
        let held = Held {
            shared: Arc::clone(self),
            digest,
            _seat: seat,
        };
        let (keys, token) = (Arc::clone(keys), token.clone());
        // A task of its own: whoever waits may be gone before the verdict comes.
        let task = self.runtime.spawn(async move {
            let verdict = keys.verify(token).await;
            if !matches!(verdict, Verdict::Genuine { .. }) {
                tokio::spawn(async move {
                    sleep(AFTER_IN_VAIN).await;
                    drop(held);
                });
            }
            verdict
        });
        let look = task.map(|verdict| verdict.unwrap_or(Verdict::Unknown));
        Ok(slot.insert(look.boxed().shared()).clone())
    }
}

/// There is no room for another token from this place.
pub(super) fn too_many(what: &str) -> CredentialError {
    CredentialError::not_ready(format!(
        "the agent has no room for this token yet: too many that nobody has verified are {what}, from \
         this address or from all"
    ))
}

/// A look's place in the list, until it is dropped.
struct Held {
    shared: Arc<Shared>,
    digest: TokenDigest,
    _seat: Seat,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.bearers.remove(&self.digest);
    }
}
