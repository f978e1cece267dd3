//! Which subjects' credentials have changed, for whoever follows a store.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

use crate::Subject;

/// Those who follow a store. Nearly always there is nobody.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<Vec<Weak<Pending>>>);

impl Watchers {
    /// Has somebody told of these subjects, and of each that changes from now on.
    pub(crate) fn add(&self) -> Arc<Pending> {
        let pending = Arc::new(Pending::default());
        let mut watchers = self.lock();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Arc::downgrade(&pending));
        pending
    }

    /// Notes that a subject's credentials have changed.
    pub(crate) fn note(&self, subject: &Subject) {
        for watcher in self.lock().iter().filter_map(Weak::upgrade) {
            watcher.add([*subject]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Pending>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one follower has not been told yet: never more than there are subjects.
#[derive(Default)]
pub(crate) struct Pending {
    queue: Mutex<Queue>,
    more: Notify,
}

#[derive(Default)]
struct Queue {
    order: VecDeque<Subject>,
    members: HashSet<Subject>,
}

impl Pending {
    /// Adds subjects that are not there yet.
    pub(crate) fn add(&self, subjects: impl IntoIterator<Item = Subject>) {
        let mut queue = self.lock();
        for subject in subjects {
            if queue.members.insert(subject) {
                queue.order.push_back(subject);
            }
        }
        drop(queue);
        self.more.notify_one();
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().order.len()
    }

    /// Takes the first one out.
    pub(super) fn take(&self) -> Option<Subject> {
        let mut queue = self.lock();
        let subject = queue.order.pop_front()?;
        queue.members.remove(&subject);
        Some(subject)
    }

    /// Waits until there is one.
    pub(super) async fn wait(&self) {
        while self.lock().order.is_empty() {
            self.more.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
