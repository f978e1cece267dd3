//! Directories under watch, by path.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};

const EVENT_BUFFER: usize = 16 * 1024;

/// Something that happened in a watched directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DirectoryEvent {
    /// A directory was made.
    Made {
        /// The watched directory.
        parent: Arc<Path>,
        /// The new one's name.
        name: String,
    },
    /// A directory was removed.
    Removed {
        /// Its path.
        path: PathBuf,
    },
    /// Events were lost: there were more than the kernel keeps, or there will be no more of them.
    Lost,
}

/// The watched directories, each with what the caller knows of it.
pub(crate) struct Watches<T> {
    /// `None` where the kernel gives no inotify instance: then no event comes.
    events: Option<EventStream<Vec<u8>>>,
    paths: HashMap<WatchDescriptor, Arc<Path>>,
    watched: HashMap<Arc<Path>, (WatchDescriptor, T)>,
    /// Whether a directory could not be watched since [`Self::try_again`].
    has_failed: bool,
    /// Whether the log says that.
    is_warned: bool,
}

impl<T> Drop for Watches<T> {
    fn drop(&mut self) {
        let Some(events) = self.events.take() else {
            return;
        };
        // The kernel closes it only once nobody looks at any watch any more, for which it waits
        // seconds where others keep the processors busy. The serving runtime must not wait along.
        let closing = thread::Builder::new().name("closing".to_owned());
        if let Err(error) = closing.spawn(move || drop(events)) {
            tracing::debug!(%error, "no thread to close the watches: closed here");
        }
    }
}

impl<T> Watches<T> {
    pub(crate) fn new() -> Self {
        let events =
            Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; EVENT_BUFFER]));
        if let Err(error) = &events {
            tracing::warn!(%error, "cannot watch the cgroup tree, so pods are found late: raise the \
                sysctl fs.inotify.max_user_instances");
        }
        Self {
            events: events.ok(),
            paths: HashMap::new(),
            watched: HashMap::new(),
            has_failed: false,
            is_warned: false,
        }
    }

    /// Whether every change in the directories that were to be watched is an event.
    pub(crate) fn are_complete(&self) -> bool {
        self.events.is_some() && !self.has_failed
    }

    /// What could not be watched is about to be added again.
    pub(crate) fn try_again(&mut self) {
        self.has_failed = false;
    }

    /// What is known of a watched directory.
    pub(crate) fn get(&self, path: &Path) -> Option<&T> {
        self.watched.get(path).map(|(_, known)| known)
    }

    /// Watches a directory, or learns something else about one that is watched.
    pub(crate) fn add(&mut self, path: &Arc<Path>, known: T) {
        let Some(events) = &self.events else {
            return;
        };
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
        match events.watches().add(&**path, mask) {
            Ok(descriptor) => {
                self.paths.insert(descriptor.clone(), Arc::clone(path));
                let entry = (descriptor.clone(), known);
                let before = self.watched.insert(Arc::clone(path), entry);
                // Another directory had this name.
                if let Some((old, _)) = before.filter(|(old, _)| *old != descriptor) {
                    self.end(old);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                self.has_failed = true;
                if !std::mem::replace(&mut self.is_warned, true) {
                    tracing::warn!(%error, "cannot watch a cgroup, so pods are found late: raise \
                        the sysctl fs.inotify.max_user_watches");
                }
            }
        }
    }

    /// Ends a watch. cgroupfs never does that by itself: a watch keeps a removed cgroup's remains.
    pub(crate) fn remove(&mut self, path: &Path) {
        if let Some((descriptor, _)) = self.watched.remove(path) {
            self.end(descriptor);
        }
    }

    /// Ends the watches that `keep` does not want.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Path, &T) -> bool) {
        let ended: Vec<Arc<Path>> = self
            .watched
            .iter()
            .filter(|(path, (_, known))| !keep(path, known))
            .map(|(path, _)| Arc::clone(path))
            .collect();
        for path in ended {
            self.remove(&path);
        }
    }

    fn end(&mut self, descriptor: WatchDescriptor) {
        self.paths.remove(&descriptor);
        if let Some(events) = &self.events {
            // An error means that the kernel has ended it already.
            let _ended = events.watches().remove(descriptor);
        }
    }

    /// Waits for the next event. Cancel-safe.
    pub(crate) async fn next(&mut self) -> DirectoryEvent {
        loop {
            let Some(events) = &mut self.events else {
                return std::future::pending().await;
            };
            match events.next().await {
                Some(Ok(event)) => {
                    if let Some(event) = self.interpret(&event) {
                        return event;
                    }
                }
                ended => {
                    tracing::error!(
                        ?ended,
                        "the watch on the cgroup tree has ended: pods are found late"
                    );
                    self.events = None;
                    return DirectoryEvent::Lost;
                }
            }
        }
    }

    fn interpret(&self, event: &EventOwned) -> Option<DirectoryEvent> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return Some(DirectoryEvent::Lost);
        }
        let parent = self.paths.get(&event.wd)?;
        let name = event.name.as_ref()?.to_string_lossy();
        if !event.mask.contains(EventMask::ISDIR) {
            None
        } else if event.mask.contains(EventMask::CREATE) {
            Some(DirectoryEvent::Made {
                parent: Arc::clone(parent),
                name: name.into_owned(),
            })
        } else {
            let path = parent.join(&*name);
            Some(DirectoryEvent::Removed { path })
        }
    }
}
