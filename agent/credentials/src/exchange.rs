//! One exchange: whether it is needed, its turn, and the call.

use podcreds_keys::Verdict;
use podcreds_types::{Origin, Token, TokenDigest};
use tokio::sync::Notify;

use super::{
    Subject,
    cache::Lookup,
    limiter::{Party, Permit, Turn},
    line::{Outcome, Phase, Purpose},
    store::Shared,
};

impl Shared {
    /// Exchanges a token, unless that turns out not to be needed.
    pub(super) async fn exchange(
        &self,
        subject: Subject,
        id: u64,
        token: Token,
        digest: TokenDigest,
        wake: &Notify,
    ) {
        let verdict = self.verifier.get().map(|keys| keys.verify_at_hand(&token));
        if self.is_settled(&subject, id, &token, &digest, verdict.as_ref()) {
            return;
        }
        let Some(mut permit) = self.permit(&subject, id, &digest, verdict, wake).await else {
            return;
        };
        // Another token of the pod may have got newer ones meanwhile. Then nobody uses the permit.
        if self.is_settled(&subject, id, &token, &digest, None) {
            return;
        }
        let started = permit.start();
        if let Some(mut line) = self.line(&subject, id) {
            line.enter(&digest, Phase::Called(started));
        }
        let answer = self.upstream.assume_role(token.clone()).await;
        drop(permit);
        let answer = answer.and_then(|credentials| self.usable(&credentials));
        self.report(&answer, started);
        self.settle(subject, id, token, digest, answer);
    }

    /// Takes a token out of line if there is an answer without asking EKS Auth.
    fn is_settled(
        &self,
        subject: &Subject,
        id: u64,
        token: &Token,
        digest: &TokenDigest,
        verdict: Option<&Verdict>,
    ) -> bool {
        let Some(mut line) = self.line(subject, id) else {
            return true;
        };
        let outcome = match line.purpose(digest) {
            None => return true,
            Some(Purpose::Refresh(expiration)) => self.cache.later(subject, expiration).map(Ok),
            Some(Purpose::Asked) => self.known(subject, token, digest, verdict),
        };
        match outcome {
            Some(outcome) => {
                line.finish(digest, outcome);
                true
            }
            None => false,
        }
    }

    /// What somebody who shows a token can be told without asking EKS Auth: a rotated one gets what
    /// the pod has, and a forged one gets nothing.
    fn known(
        &self,
        subject: &Subject,
        token: &Token,
        digest: &TokenDigest,
        verdict: Option<&Verdict>,
    ) -> Option<Outcome> {
        if let Some(refused) = verdict.and_then(|verdict| self.refuse_locally(verdict)) {
            self.remember(*subject, *digest, &refused);
            return Some(Err(refused));
        }
        if self.cache.is_off() {
            return None;
        }
        if let Some(verdict) = verdict {
            self.adopt(subject, token.clone(), verdict);
        }
        match self.cache.get(subject, digest, self.clock.read()) {
            Lookup::Fresh(body, _) => Some(Ok(body)),
            Lookup::Stale(_) | Lookup::Nothing => None,
        }
    }

    /// Waits until the limiter lets the exchange pass. If it becomes more urgent, it moves up.
    /// `None` if nobody waits for the token any more.
    async fn permit(
        &self,
        subject: &Subject,
        id: u64,
        digest: &TokenDigest,
        verdict: Option<Verdict>,
        wake: &Notify,
    ) -> Option<Permit> {
        let urgency = || self.line(subject, id)?.urgency(digest);
        let mut queued = urgency()?;
        let turn = turn(subject, verdict, self.line(subject, id)?.origin());
        let queue = |urgency| {
            let pass = self.limiter.queue(&turn, urgency);
            if let Some(mut line) = self.line(subject, id) {
                line.enter(digest, Phase::Queued(pass.place()));
            }
            pass
        };
        let mut pass = queue(queued);
        loop {
            tokio::select! {
                // First, so that a permit is taken where there is one.
                biased;
                permit = pass.granted() => return permit,
                () = wake.notified() => {
                    let now = urgency()?;
                    if now != queued {
                        queued = now;
                        pass = queue(now);
                    }
                }
            }
        }
    }
}

/// Whose turn a subject's exchange needs. What a token says of itself does not count: a pod could
/// choose a turn of its own.
fn turn(subject: &Subject, verdict: Option<Verdict>, origin: Option<Origin>) -> Turn {
    let party = match subject {
        Subject::Pod(pod) => Party::Pod(*pod),
        Subject::Bearer(_) => Party::Place(origin.unwrap_or(Origin::Unknown)),
    };
    match verdict {
        Some(Verdict::Genuine { namespace, .. }) => Turn::Own(Party::Namespace(namespace)),
        Some(_) => Turn::Shared(party),
        None => Turn::Own(party),
    }
}
