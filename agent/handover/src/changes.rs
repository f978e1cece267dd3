//! Which subjects' credentials a successor has not been told yet: never more than there are
//! subjects.

use std::{
    collections::{HashSet, VecDeque},
    future::pending,
    sync::Arc,
};

use podcreds_cache::{Cache, Snapshot, Subject};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

use super::change::EntryChange;

/// All that a cache has, and then what becomes of it. What changes twice before it is taken is told
/// once.
pub(super) struct Changes {
    cache: Arc<Cache>,
    copy: CopyOf,
    events: broadcast::Receiver<Subject>,
    order: VecDeque<Subject>,
    waiting: HashSet<Subject>,
    /// The subjects whose credentials the successor has.
    told: HashSet<Subject>,
}

/// Copies what is to be told of a subject.
type CopyOf = fn(&Cache, &Subject) -> Option<Snapshot>;

impl Changes {
    /// What a leader tells its successor: all there is.
    pub(super) fn of(cache: &Arc<Cache>) -> Self {
        Self::copied(cache, Cache::snapshot)
    }

    /// What a successor tells the leader: what it got itself. Of anything else it says that there
    /// is nothing.
    pub(super) fn own_of(cache: &Arc<Cache>) -> Self {
        Self::copied(cache, Cache::own_snapshot)
    }

    fn copied(cache: &Arc<Cache>, copy: CopyOf) -> Self {
        let mut changes = Self {
            cache: Arc::clone(cache),
            copy,
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
        let snapshot = (self.copy)(&self.cache, &subject);
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
