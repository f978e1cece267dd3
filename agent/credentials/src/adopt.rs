//! Rotated tokens: what a pod's old token got is given to its new one, if the cluster has signed it.

use std::{sync::Arc, time::Duration};

use podcreds_keys::Verdict;
use podcreds_types::{EksRefusal, RefusalKind, Token, TokenDigest};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::{CredentialError, Subject, cache::Lookup, refusals::Source, store::Shared};

/// Tokens of one pod that are looked at at once.
const AT_ONCE: usize = 4;
/// So long a look in vain keeps its place, so that a pod full of garbage takes no time from others.
const AFTER_IN_VAIN: Duration = Duration::from_millis(100);

impl Shared {
    /// Looks at a token that is new to a pod with credentials in memory. That is done beside the
    /// pod's line: whether EKS Auth answers does not matter to a token that need not be exchanged.
    ///
    /// Returns after `wait` at the latest. The look goes on, and those who have gone into line
    /// meanwhile are told.
    pub(super) async fn vouch(
        self: &Arc<Self>,
        subject: Subject,
        token: &Token,
        digest: TokenDigest,
        wait: Duration,
    ) {
        let Some(keys) = self.verifier.get().map(Arc::clone) else {
            return;
        };
        if !self
            .cache
            .has_for_others(&subject, &digest, self.clock.read())
            || (self.refusals.get(&subject, &digest, Instant::now())).is_some()
        {
            return;
        }
        let Some(look) = Look::begin(self, subject) else {
            return;
        };
        let token = token.clone();
        let (done, looked) = oneshot::channel();
        self.runtime.spawn(async move {
            let verdict = keys.verify(token.clone()).await;
            look.shared.adopt(&subject, token, &verdict);
            let found = look
                .shared
                .cache
                .get(&subject, &digest, look.shared.clock.read());
            if let Lookup::Fresh(body, _) = &found
                && let Some(mut line) = look.shared.lines.get_mut(&subject)
            {
                line.finish(&digest, Ok(body.clone()));
            }
            // The request may have gone on by now.
            let _ = done.send(());
            if matches!(found, Lookup::Nothing) {
                sleep(AFTER_IN_VAIN).await;
            }
        });
        // Whether it was late or not, the cache says what came of it.
        let _ = timeout(wait, looked).await;
    }

    /// Gives a pod's credentials to a token if the verdict allows it. The cache says what there is
    /// then.
    pub(super) fn adopt(&self, subject: &Subject, token: Token, verdict: &Verdict) {
        let Verdict::Genuine { pod, .. } = verdict else {
            return;
        };
        if *subject == Subject::Pod(*pod) {
            let now = self.clock.read();
            let is_news = self.cache.has_for_others(subject, &token.digest(), now);
            if self.cache.adopt(subject, token, now) && is_news {
                self.metrics.adopted.inc();
            }
        }
    }

    /// What a token is told that EKS Auth need not be asked about.
    pub(super) fn refuse_locally(&self, verdict: &Verdict) -> Option<CredentialError> {
        let message = match verdict {
            Verdict::Genuine { .. } | Verdict::Unknown => return None,
            Verdict::Forged => {
                self.metrics.forged.inc();
                "the cluster has not signed this token"
            }
            Verdict::OtherAudience => "this token is for another audience",
        };
        Some(CredentialError::Refused(EksRefusal {
            kind: RefusalKind::BadToken,
            code: "InvalidTokenException".to_owned(),
            message: message.to_owned(),
        }))
    }

    /// Remembers for seconds what the agent itself refuses, so that the same token is not looked at
    /// again each time that it comes.
    pub(super) fn remember(&self, subject: Subject, digest: TokenDigest, error: &CredentialError) {
        let (error, now) = (error.clone(), Instant::now());
        self.refusals
            .add(subject, digest, Source::Agent, error, now);
    }
}

/// One of the looks at a pod's tokens, until it is dropped.
struct Look {
    shared: Arc<Shared>,
    subject: Subject,
}

impl Look {
    /// `None` if there are too many already.
    fn begin(shared: &Arc<Shared>, subject: Subject) -> Option<Self> {
        let mut looks = shared.looks.entry(subject).or_default();
        if *looks >= AT_ONCE {
            return None;
        }
        *looks += 1;
        Some(Self {
            shared: Arc::clone(shared),
            subject,
        })
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.shared.looks.remove_if_mut(&self.subject, |_, looks| {
            *looks -= 1;
            *looks == 0
        });
    }
}
