//! Looks at tokens' signatures, beside the queues: whether EKS Auth answers does not matter to a
//! token that need not be exchanged.

use std::{mem, sync::Arc, time::Duration};

use podcreds_cache::{Lookup, Subject};
use podcreds_keys::Verdict;
use podcreds_types::{Origin, Token, TokenDigest};
use tokio::time::Instant;

use crate::{
    request::Request,
    task::{Done, Job, Task},
    timers::Timer,
};

/// Tokens of one pod that are looked at at once.
const PER_POD: usize = 4;
/// So long a look that found no genuine token is remembered and keeps its room, so that a caller
/// full of garbage takes no time from others.
const AFTER_IN_VAIN: Duration = Duration::from_millis(100);

/// Whose room a look takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A pod that the kernel has identified.
    Pod(Subject),
    /// Unidentified callers there.
    Origin(Origin),
}

/// A look at one token, for all who show it meanwhile.
pub(crate) struct Verification {
    owner: Owner,
    token: Token,
    /// What came of it, and when that is forgotten.
    verdict: Option<(Verdict, Instant)>,
    /// The requests that wait for it, and for how long.
    waiting: Vec<(Request, Instant)>,
}

impl Task {
    /// Sees that a token is looked at. False if there is no room for that.
    pub(crate) fn verify(&mut self, request: &Request, owner: Owner) -> bool {
        let Some(keys) = self.parts.keys.clone() else {
            return false;
        };
        if self.verifications.contains_key(&request.digest) {
            return true;
        }
        let has_room = match owner {
            Owner::Origin(_) => self.verifying.take(owner),
            Owner::Pod(_) => {
                let own = self.verifications.values().filter(|it| it.owner == owner);
                own.count() < PER_POD
            }
        };
        if !has_room {
            return false;
        }
        let token = request.token.clone();
        let verify = {
            let (keys, token) = (Arc::clone(&keys), token.clone());
            async move { Done::Verification(keys.verify(token).await) }
        };
        let job = self.jobs.spawn(verify).id();
        self.running.insert(job, Job::Verification(request.digest));
        self.verifications.insert(
            request.digest,
            Verification {
                owner,
                token,
                verdict: None,
                waiting: Vec::new(),
            },
        );
        true
    }

    /// Has a request wait for its token's verdict, for a part of its time.
    pub(crate) fn wait_for_verdict(&mut self, request: Request) {
        let Some(verification) = self.verifications.get_mut(&request.digest) else {
            return self.decide(request, &Verdict::Unknown);
        };
        if let Some((verdict, _)) = &verification.verdict {
            let verdict = verdict.clone();
            return self.decide(request, &verdict);
        }
        let until = Instant::now() + self.parts.config.client_wait / 3;
        let digest = request.digest;
        verification.waiting.push((request, until));
        self.timers.add(until, Timer::Verification(digest));
    }

    /// A token was looked at.
    pub(crate) fn verified(&mut self, digest: TokenDigest, verdict: Verdict) {
        let forgotten_at = Instant::now() + AFTER_IN_VAIN;
        let Some(verification) = self.verifications.get_mut(&digest) else {
            return;
        };
        let waiting = mem::take(&mut verification.waiting);
        verification.verdict = Some((verdict.clone(), forgotten_at));
        let token = verification.token.clone();
        match verdict {
            Verdict::Genuine { .. } => self.end_verification(&digest),
            _ => self.timers.add(forgotten_at, Timer::Verification(digest)),
        }
        for (request, _) in waiting {
            self.decide(request, &verdict);
        }
        // The pod's own request may have come while a look for another caller was under way.
        if let Verdict::Genuine { pod, .. } = verdict {
            self.serve_from_memory(Subject::Pod(pod), &token, digest, &verdict);
        }
    }

    /// Serves those who did not wait for the verdict and are in the queue by now.
    fn serve_from_memory(
        &mut self,
        subject: Subject,
        token: &Token,
        digest: TokenDigest,
        verdict: &Verdict,
    ) {
        self.adopt(&subject, token, verdict);
        let is_queued = self
            .queues
            .get(&subject)
            .is_some_and(|it| it.get(&digest).is_some_and(|it| !it.is_refresh()));
        if is_queued && let Lookup::Fresh(body, _) = self.parts.cache.get(&subject, &digest) {
            self.finish(&subject, &digest, Ok(body));
            self.advance(subject);
        }
    }

    /// Lets requests go on that have waited long enough, and forgets a verdict that is old.
    pub(crate) fn look_at_verification(&mut self, digest: &TokenDigest, now: Instant) {
        let Some(verification) = self.verifications.get_mut(digest) else {
            return;
        };
        let verdict = verification.verdict.as_ref();
        if verdict.is_some_and(|(_, forgotten_at)| *forgotten_at <= now) {
            return self.end_verification(digest);
        }
        let waiting = mem::take(&mut verification.waiting);
        let (late, others) = waiting.into_iter().partition(|(_, until)| *until <= now);
        verification.waiting = others;
        let late: Vec<(Request, Instant)> = late;
        for (request, _) in late {
            self.decide(request, &Verdict::Unknown);
        }
    }

    fn end_verification(&mut self, digest: &TokenDigest) {
        let ended = self.verifications.remove(digest);
        if let Some(owner @ Owner::Origin(_)) = ended.map(|verification| verification.owner) {
            self.verifying.release(owner);
        }
    }
}
