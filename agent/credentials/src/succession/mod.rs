//! What one agent's store tells the store of the agent that comes after it.
//!
//! The older store says what it has, subject by subject, and then what becomes of it. The younger one keeps
//! a copy, serves from it exactly the tokens that the older one would serve, and leaves refreshing to the older
//! one for as long as it [follows](Store::set_following).

mod watch;
mod wire;

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;

pub(super) use self::watch::{Pending, Watchers};
use podcreds_types::PodUid;

use super::{Store, Subject, accepted::Accepted, freshness::Ages, store::Shared};

/// Says which pods are on this node.
pub(super) type Census = Box<dyn Fn(PodUid) -> bool + Send + Sync>;

/// What has become of one subject's credentials. It holds secrets, and has no `Debug` for that reason.
pub struct Change {
    subject: Subject,
    /// What there is now; `None` if there is nothing any more.
    kept: Option<Kept>,
}

/// The credentials of one subject, and all that decides about them.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) body: Bytes,
    pub(super) ages: Ages,
    pub(super) accepted: Accepted,
    pub(super) asked: bool,
    pub(super) failures: u32,
}

impl Change {
    /// Whose credentials they are.
    pub fn subject(&self) -> Subject {
        self.subject
    }
}

/// All that a store has, and then what becomes of it. What changes twice before it is taken is told once.
pub struct Changes {
    store: Arc<Shared>,
    pending: Arc<Pending>,
}

impl Changes {
    /// How many there are to take by now.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// The next change, if there is one by now.
    pub fn take(&self) -> Option<Change> {
        let subject = self.pending.take()?;
        Some(Change {
            subject,
            kept: self.store.cache.kept(&subject, self.store.clock.read()),
        })
    }

    /// Waits until there is something to take.
    pub async fn wait(&self) {
        self.pending.wait().await;
    }
}

impl Store {
    /// Everything in memory, and every change from now on, for the agent that comes after this one.
    pub fn changes(&self) -> Changes {
        Changes {
            store: Arc::clone(&self.0),
            pending: self.0.cache.watch(),
        }
    }

    /// Takes in what the agent before this one says. Whether there are credentials of it now.
    ///
    /// Credentials that this agent has got itself since then stay, and those of pods that are not on the
    /// node do not come in.
    pub fn inherit(&self, change: Change) -> bool {
        let Change { subject, kept } = change;
        let kept = match kept {
            Some(kept) => (self.0.cache).inherit(subject, kept, self.0.clock.read()),
            None => {
                self.0.cache.disown(&subject);
                false
            }
        };
        // Only now, since the pod may have gone, or the census come, at any time before.
        if kept && !self.0.is_present(&subject) {
            self.0.cache.disown(&subject);
            return false;
        }
        kept
    }

    /// Drops what was inherited and is not among these, because the agent before this one no longer has it.
    pub fn disown_all_but(&self, told: &HashSet<Subject>) {
        self.0.cache.disown_if(|subject| !told.contains(subject));
    }

    /// From now on, inherits nothing of pods that are not on this node by this account, and drops what it has
    /// inherited of such. The first account stays.
    ///
    /// Without one, as on the node path alone, nobody can tell, and they live until they expire.
    pub fn count_pods(&self, is_here: impl Fn(PodUid) -> bool + Send + Sync + 'static) {
        let _ = self.0.census.set(Box::new(is_here));
        self.0
            .cache
            .disown_if(|subject| !self.0.is_present(subject));
    }

    /// Whether the agent before this one still refreshes what it has handed over.
    pub fn set_following(&self, following: bool) {
        self.0.cache.set_following(following);
    }
}

impl Shared {
    /// Whether a subject's credentials may be kept. A pod that has gone and come back is there.
    pub(super) fn is_present(&self, subject: &Subject) -> bool {
        match (subject, self.census.get()) {
            (Subject::Pod(pod), Some(is_here)) => is_here(*pod),
            (Subject::Pod(_), None) | (Subject::Bearer(_), _) => !self.gone.contains_key(subject),
        }
    }
}
