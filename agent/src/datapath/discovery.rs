//! Finds pods by their cgroups: a scan, and a watch on kubelet's levels of the tree.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
};

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use podcreds_common::MAX_POD_LEVEL;

use super::kubepods::{Level, classify};
use crate::types::PodUid;

const EVENT_BUFFER: usize = 16 * 1024;

/// Something that happened to a pod's cgroup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A pod that was not known.
    Appeared(PodCgroup),
    /// A cgroup was made in a known pod's: a container is starting.
    Stirred(u64),
    /// A known pod's cgroup is no more.
    Gone(u64),
}

/// The cgroup of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodCgroup {
    /// The cgroup's id, which is its inode number.
    pub(super) id: u64,
    pub(super) uid: PodUid,
    pub(super) path: PathBuf,
}

/// The tree below one cgroup directory, and what is known of it.
pub(super) struct Discovery {
    root: PathBuf,
    events: EventStream<Vec<u8>>,
    watched: HashMap<WatchDescriptor, Watched>,
    /// The known pods' cgroup ids, by path.
    pods: HashMap<PathBuf, u64>,
}

struct Watched {
    path: PathBuf,
    kind: Kind,
}

/// What a watched directory is.
enum Kind {
    /// The root, or a level of kubelet's.
    Above(Level),
    /// A pod, by its cgroup id.
    Pod(u64),
}

impl Discovery {
    /// Starts to watch. [`Self::scan`] finds what is there already.
    ///
    /// # Errors
    ///
    /// When the kernel gives no inotify instance.
    pub(super) fn new(root: PathBuf) -> io::Result<Self> {
        Ok(Self {
            root,
            events: Inotify::init()?.into_event_stream(vec![0; EVENT_BUFFER])?,
            watched: HashMap::new(),
            pods: HashMap::new(),
        })
    }

    /// Waits for the next event in the tree, and says what it means. Cancel-safe.
    pub(super) async fn next(&mut self) -> io::Result<Vec<Change>> {
        match self.events.next().await {
            Some(Ok(event)) => Ok(self.interpret(&event)),
            Some(Err(error)) => Err(error),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Compares the whole tree with what is known.
    ///
    /// Events can be lost, and the levels above kubelet's are not watched: this finds what they missed.
    pub(super) fn scan(&mut self) -> Vec<Change> {
        let mut found = Vec::new();
        let root = self.root.clone();
        self.walk(&root, level_of(&root), 0, &mut found);
        let mut changes: Vec<_> = self
            .pods
            .iter()
            .filter(|(_, id)| !found.iter().any(|pod| pod.id == **id))
            .map(|(_, id)| Change::Gone(*id))
            .collect();
        self.pods
            .retain(|_, id| found.iter().any(|pod| pod.id == *id));
        changes.extend(found.into_iter().filter_map(|pod| self.admit(pod)));
        changes
    }

    /// Watches a directory above pods, then lists it: nothing that is made in between is missed.
    fn walk(&mut self, path: &Path, level: Level, depth: i32, found: &mut Vec<PodCgroup>) {
        if depth == 0 || level == Level::Kubelet {
            self.watch(path, Kind::Above(level));
        }
        if depth >= MAX_POD_LEVEL {
            return;
        }
        let Ok(entries) = fs::read_dir(path) else {
            return;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            match classify(level, &name.to_string_lossy()) {
                Level::Pod(uid) => found.push(PodCgroup {
                    id: entry.ino(),
                    uid,
                    path: entry.path(),
                }),
                below => self.walk(&entry.path(), below, depth + 1, found),
            }
        }
    }

    /// Remembers a pod; `None` when it is known already.
    fn admit(&mut self, pod: PodCgroup) -> Option<Change> {
        if self.pods.get(&pod.path) == Some(&pod.id) {
            return None;
        }
        self.watch(&pod.path, Kind::Pod(pod.id));
        self.pods.insert(pod.path.clone(), pod.id);
        Some(Change::Appeared(pod))
    }

    fn watch(&mut self, path: &Path, kind: Kind) {
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::ONLYDIR;
        match self.events.watches().add(path, mask) {
            Ok(descriptor) => {
                let path = path.to_owned();
                self.watched.insert(descriptor, Watched { path, kind });
            }
            // It is gone already, or the user's limit of watches is reached: the scans remain.
            Err(error) => tracing::debug!(path = %path.display(), %error, "cannot watch a cgroup"),
        }
    }

    fn interpret(&mut self, event: &EventOwned) -> Vec<Change> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            tracing::warn!("cgroup events were lost: scanning");
            return self.scan();
        }
        if event.mask.contains(EventMask::IGNORED) {
            self.watched.remove(&event.wd);
            return Vec::new();
        }
        let (Some(watched), Some(name)) = (self.watched.get(&event.wd), &event.name) else {
            return Vec::new();
        };
        if !event.mask.contains(EventMask::ISDIR) {
            return Vec::new();
        }
        let made = event.mask.contains(EventMask::CREATE);
        let path = watched.path.join(name);
        match &watched.kind {
            Kind::Pod(id) if made => vec![Change::Stirred(*id)],
            Kind::Pod(_) => Vec::new(),
            Kind::Above(level) if made => {
                let level = classify(*level, &name.to_string_lossy());
                self.made(path, level)
            }
            Kind::Above(_) => self.removed(&path),
        }
    }

    fn made(&mut self, path: PathBuf, level: Level) -> Vec<Change> {
        let mut found = Vec::new();
        let mut changes = Vec::new();
        match level {
            Level::Pod(uid) => {
                // Gone again already: its removal has no news for us either.
                let Ok(metadata) = fs::metadata(&path) else {
                    return changes;
                };
                let id = metadata.ino();
                if self.pods.get(&path).is_some_and(|known| *known != id) {
                    changes.extend(self.removed(&path));
                }
                found.push(PodCgroup { id, uid, path });
            }
            level => {
                let depth = depth_below(&self.root, &path);
                self.walk(&path, level, depth, &mut found);
            }
        }
        changes.extend(found.into_iter().filter_map(|pod| self.admit(pod)));
        changes
    }

    /// A directory was removed: the pod that it was, if it was one.
    fn removed(&mut self, path: &Path) -> Vec<Change> {
        self.pods
            .remove(path)
            .map(Change::Gone)
            .into_iter()
            .collect()
    }
}

/// What the root is by its own name: it may be a level of kubelet's.
fn level_of(root: &Path) -> Level {
    match root.file_name() {
        Some(name) => classify(Level::Other, &name.to_string_lossy()),
        None => Level::Other,
    }
}

fn depth_below(root: &Path, path: &Path) -> i32 {
    path.strip_prefix(root).map_or(1, |below| {
        i32::try_from(below.components().count()).unwrap_or(i32::MAX)
    })
}

#[cfg(test)]
mod tests;
