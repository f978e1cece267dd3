//! An operator has credentials fetched again, because an association has changed.

use podcreds_cache::Subject;
use podcreds_types::CredentialError;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    Refreshed,
    queue::{Attempt, Purpose},
    task::Task,
};

impl Task {
    /// Sees that a call goes out for a subject from here on, as urgent as if a request waited.
    pub(crate) fn refresh(&mut self, subject: Subject, reply: oneshot::Sender<Refreshed>) {
        let Some(token) = self.parts.cache.renewing(&subject) else {
            let error = "it has no credentials in memory, and no token to fetch them with: it gets \
                         new ones when it asks";
            // The operator may have given up.
            let _ = reply.send(Err(CredentialError::not_ready(error)));
            return;
        };
        let (now, digest) = (Instant::now(), token.digest());
        let queue = self.queue(subject, None);
        // One that went out before may bring what held before. Requests that wait for it get what
        // the next one brings.
        let is_old = |attempt: &mut Attempt| matches!(attempt, Attempt::Call { digest: of, .. } if *of == digest);
        let old = queue.attempt.take_if(is_old);
        if queue.get(&digest).is_none() {
            queue.push(token, digest, Purpose::Refresh, false, now);
        }
        if let Some(queued) = queue.get_mut(&digest) {
            queued.not_before = now;
            queued.refreshing.push(reply);
        }
        if let Some(old) = old {
            self.give_up(old);
        }
        self.advance(subject);
    }
}
