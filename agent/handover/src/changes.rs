//! Which subjects' credentials a successor has not been told yet: never more than there are
//! subjects.

use std::{
    collections::{HashSet, VecDeque},
    future::pending,
    sync::Arc,
};

use podcreds_cache::{Cache, Subject};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use super::change::EntryChange;

/// All that a cache has, and then what becomes of it. What changes twice before it is taken is told
/// once.
pub(super) struct Changes {
    cache: Arc<Cache>,
    events: broadcast::Receiver<Subject>,
    order: VecDeque<Subject>,
    waiting: HashSet<Subject>,
    /// The subjects whose credentials the successor has.
    told: HashSet<Subject>,
}

impl Changes {
    pub(super) fn of(cache: &Arc<Cache>) -> Self {
        let mut changes = Self {
            cache: Arc::clone(cache),
            // First, so that nothing is missed in between.
            events: cache.subscribe(),
            order: VecDeque::new(),
            waiting: HashSet::new(),
            told: HashSet::new(),
        };
        changes.add_all();
        changes
    }

    /// How many there are to take by now.
    pub(super) fn waiting(&mut self) -> usize {
        loop {
            match self.events.try_recv() {
                Ok(subject) => self.add(subject),
                Err(TryRecvError::Lagged(_)) => self.add_all(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return self.order.len(),
            }
        }
    }

    /// The next change, if there is one by now.
    pub(super) fn take(&mut self) -> Option<EntryChange> {
        let subject = self.order.pop_front()?;
        self.waiting.remove(&subject);
        let snapshot = self.cache.snapshot(&subject);
        match snapshot {
            Some(_) => self.told.insert(subject),
            None => self.told.remove(&subject),
        };
        Some(EntryChange { subject, snapshot })
    }

    /// Waits until there is something to take.
    pub(super) async fn wait(&mut self) {
        if self.waiting() > 0 {
            return;
        }
        match self.events.recv().await {
            Ok(subject) => self.add(subject),
            Err(RecvError::Lagged(_)) => self.add_all(),
            Err(RecvError::Closed) => pending().await,
        }
    }

    fn add(&mut self, subject: Subject) {
        if self.waiting.insert(subject) {
            self.order.push_back(subject);
        }
    }

    /// Everything that there is, and everything that may have gone.
    fn add_all(&mut self) {
        let subjects = self.cache.subjects();
        let told: Vec<_> = self.told.iter().copied().collect();
        for subject in told.into_iter().chain(subjects) {
            self.add(subject);
        }
    }
}
