//! A pod of the soak, and what it must get.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::{Instant, SystemTime},
};

use crate::{
    pod::Pod,
    token::{Claims, Issuer, new_uid},
};

/// A pod that clients ask from, while it changes.
pub(super) struct Resident {
    /// Clients share it; what makes its sandbox anew has it alone.
    pub(super) pod: RwLock<Pod>,
    promise: Mutex<Promise>,
}

/// What the agent has shown that it can do for a pod.
#[derive(Clone, Copy)]
struct Promise {
    /// Until when the credentials that it has served are valid, and since when it serves them.
    served: Option<(SystemTime, Instant)>,
    /// Grows with each change after which that says nothing any more.
    changes: u64,
    /// How many tokens the pod has had.
    tokens: u64,
    /// How often an agent was killed, or followed another, while the pod was there.
    losses: u64,
}

/// What was promised when a request was sent.
#[derive(Clone, Copy)]
pub(super) struct Before {
    served: Option<(SystemTime, Instant)>,
    changes: u64,
}

impl Resident {
    pub(super) fn new(pod: Pod) -> Self {
        Self {
            pod: RwLock::new(pod),
            promise: Mutex::new(Promise {
                served: None,
                changes: 0,
                tokens: 1,
                losses: 0,
            }),
        }
    }

    /// What is promised now.
    pub(super) fn before(&self) -> Before {
        let Promise {
            served, changes, ..
        } = *self.promise();
        Before { served, changes }
    }

    /// The pod was served. What changed since it asked counts more.
    pub(super) fn was_served(&self, before: Before, expiration: SystemTime) {
        let mut promise = self.promise();
        if promise.changes == before.changes {
            let since = promise.served.map_or_else(Instant::now, |(_, since)| since);
            promise.served = Some((expiration, since));
        }
    }

    /// Whether a request that was not served should have been.
    pub(super) fn should_have_been_served(&self, before: Before) -> bool {
        let promise = self.promise();
        promise.changes == before.changes
            && before
                .served
                .is_some_and(|(until, _)| until > SystemTime::now())
    }

    /// Nothing is promised any more.
    pub(super) fn forget_promise(&self) {
        let mut promise = self.promise();
        promise.changes += 1;
        promise.served = None;
    }

    /// Nothing is promised that is younger than `moment`: another agent may not know it yet.
    pub(super) fn forget_younger_promise(&self, moment: Instant) {
        let mut promise = self.promise();
        if promise.served.is_none_or(|(_, since)| since > moment) {
            promise.changes += 1;
            promise.served = None;
        }
    }

    /// An agent's knowledge may be lost, or two may ask EKS Auth for the same.
    pub(super) fn count_loss(&self) {
        self.promise().losses += 1;
    }

    /// The kubelet rotates the pod's token.
    pub(super) fn rotate(&self) {
        let pod = self.pod.read().unwrap_or_else(PoisonError::into_inner);
        let claims = Claims {
            jti: new_uid(),
            ..pod.claims().clone()
        };
        // First, for a client may read the file at any moment.
        self.forget_promise();
        pod.write_token(&Issuer::cluster().sign(&claims));
        let mut promise = self.promise();
        promise.tokens += 1;
        promise.changes += 1;
        promise.served = None;
    }

    /// The kubelet makes its sandbox anew.
    pub(super) fn remake(&self) {
        let mut pod = self.pod.write().unwrap_or_else(PoisonError::into_inner);
        self.forget_promise();
        pod.restart_pause();
    }

    /// How many grants of EKS Auth may have been for this pod.
    pub(super) fn most_grants(&self) -> u64 {
        let promise = self.promise();
        promise.tokens * (1 + promise.losses)
    }

    fn promise(&self) -> MutexGuard<'_, Promise> {
        self.promise.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
