//! Finds pods by their cgroups: a scan, and a watch on kubelet's levels of the tree.

pub(crate) mod kubepods;
mod watches;

use std::{
    collections::{HashMap, HashSet},
    fs::{self, Metadata},
    hash::{BuildHasher as _, RandomState},
    io,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use podcreds_common::MAX_POD_LEVEL;
use podcreds_types::PodUid;
use rustix::{io::Errno, process::geteuid};

use self::{
    kubepods::{CgroupLevel, classify},
    watches::{DirectoryEvent, Watches},
};

/// How often the whole tree is compared with what is known, where every change in it is an event.
const COMPARISON: Duration = Duration::from_secs(5 * 60);
/// By how much that is put off, at most, so that not all nodes do it at once.
const JITTER: Duration = Duration::from_secs(60);
/// How often it is compared where something is not watched, or could not be read.
const FREQUENT_COMPARISON: Duration = Duration::from_secs(10);

/// How many directories above kubelet's are watched. A node has one for each of its services.
const MOST_OTHERS: usize = 1024;

/// Something that happened to a pod's cgroup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PodChange {
    /// A pod that was not known.
    Appeared(PodCgroup),
    /// A cgroup was made in a known pod's: a container is starting.
    ContainerMade(u64),
    /// A known pod's cgroup is no more.
    Gone(u64),
}

/// The cgroup of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodCgroup {
    /// The cgroup's id, which is its inode number.
    pub(super) id: u64,
    pub(super) uid: PodUid,
    /// Shared, since it is long and there are many.
    pub(super) path: Arc<Path>,
}

/// The tree below one cgroup directory, and what is known of it.
pub(super) struct Discovery {
    root: PathBuf,
    /// How many levels the root is below that of the hierarchy.
    depth: i32,
    watches: Watches<WatchedKind>,
    /// The known pods' cgroup ids, by path.
    pods: HashMap<Arc<Path>, u64>,
    /// Whether a part of the tree could not be read, or is too large to be watched.
    is_partial: bool,
}

/// What a watched directory is.
enum WatchedKind {
    /// The root, or a level of kubelet's.
    Above(CgroupLevel),
    /// A pod, by its cgroup id.
    Pod(u64),
}

/// What a walk has seen.
#[derive(Default)]
struct WalkResult {
    pods: Vec<PodCgroup>,
    above: HashSet<Arc<Path>>,
    /// What could not be read: whether anything is there, or below, is not known.
    unread: Vec<PathBuf>,
}

impl WalkResult {
    /// What was read, unless that failed, which is noted. What has ceased to exist in the meantime
    /// is nothing.
    fn read<T>(&mut self, path: &Path, result: io::Result<T>) -> Option<T> {
        match if_there(result) {
            Ok(there) => there,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a part of the cgroup tree; \
                    it will be tried again");
                self.unread.push(path.to_owned());
                None
            }
        }
    }

    /// Whether something at this path may be there though it was not seen.
    fn is_in_doubt(&self, path: &Path) -> bool {
        self.unread.iter().any(|unread| path.starts_with(unread))
    }
}

impl Discovery {
    /// Starts to watch the tree below `root`, which is in the hierarchy that is mounted at `mount`.
    /// [`Self::scan`] finds what is there already.
    pub(super) fn new(root: PathBuf, mount: &Path) -> Self {
        Self {
            depth: depth_below(mount, &root),
            root,
            watches: Watches::new(),
            pods: HashMap::new(),
            is_partial: false,
        }
    }

    /// Waits for the next event in the tree, and says what it means: `None` that events were lost,
    /// so that [`Self::scan`] is due. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Vec<PodChange>> {
        match self.watches.next().await {
            DirectoryEvent::Lost => None,
            DirectoryEvent::Made { parent, name } => Some(self.made(&parent, &name)),
            DirectoryEvent::Removed { path } => Some(self.handle_removed(&path)),
        }
    }

    /// Compares the whole tree with what is known.
    ///
    /// It finds what is there at the start, and what lost events would have said. What is known is
    /// not opened.
    pub(super) fn scan(&mut self) -> Vec<PodChange> {
        let mut seen = WalkResult::default();
        let root = self.root.clone();
        self.watches.try_again();
        self.is_partial = false;
        self.walk(&root, level_of(&root), self.depth, &mut seen);
        self.is_partial |= !seen.unread.is_empty();
        let mut changes = self.forget_all_but(&seen);
        changes.extend(self.admit_all(seen.pods));
        changes
    }

    /// How long after a scan the next one is due, if no event is lost before.
    pub(super) fn scan_interval(&self) -> Duration {
        if self.is_incomplete() {
            return FREQUENT_COMPARISON;
        }
        let random = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
        COMPARISON + JITTER.mul_f64(random)
    }

    /// Whether changes may go unseen: something is not watched, or could not be read.
    pub(super) fn is_incomplete(&self) -> bool {
        self.is_partial || !self.watches.are_complete()
    }

    /// Watches a directory above pods, then lists it: nothing that is made in between is missed.
    fn walk(&mut self, path: &Path, level: CgroupLevel, depth: i32, seen: &mut WalkResult) {
        if self.is_to_be_watched(path, level, seen) {
            let path: Arc<Path> = path.into();
            self.watches.add(&path, WatchedKind::Above(level));
            seen.above.insert(path);
        }
        if depth >= MAX_POD_LEVEL {
            return;
        }
        for entry in seen.read(path, fs::read_dir(path)).into_iter().flatten() {
            let Some(entry) = seen.read(path, entry) else {
                continue;
            };
            let path = entry.path();
            let kind = seen.read(&path, entry.file_type());
            if !kind.is_some_and(|kind| kind.is_dir()) {
                continue;
            }
            match classify(level, &entry.file_name().to_string_lossy()) {
                CgroupLevel::Pod(uid) => {
                    let pod = match self.known(&path, entry.ino(), uid) {
                        None => seen.read(&path, pod_at(&path, uid)).flatten(),
                        known => known,
                    };
                    seen.pods.extend(pod);
                }
                below => self.walk(&path, below, depth + 1, seen),
            }
        }
    }

    /// Whether changes in a directory above pods matter: new levels of kubelet's can come, or new
    /// pods.
    ///
    /// In a user's part of the tree there are no pods. The user may change it all day.
    fn is_to_be_watched(&mut self, path: &Path, level: CgroupLevel, seen: &mut WalkResult) -> bool {
        if path == self.root || level == CgroupLevel::Kubelet || self.watches.get(path).is_some() {
            return true;
        }
        let is_kubelets = seen
            .read(path, fs::metadata(path))
            .is_some_and(|it| is_trusted(&it));
        let has_room = seen.above.len() < MOST_OTHERS;
        self.is_partial |= is_kubelets && !has_room;
        is_kubelets && has_room
    }

    /// A pod that is known already under this path and cgroup id.
    fn known(&self, path: &Path, id: u64, uid: PodUid) -> Option<PodCgroup> {
        let (path, known) = self.pods.get_key_value(path)?;
        let path = Arc::clone(path);
        (*known == id).then_some(PodCgroup { id, uid, path })
    }

    /// Forgets what a walk of the whole tree has not seen, except where it could not look.
    fn forget_all_but(&mut self, seen: &WalkResult) -> Vec<PodChange> {
        let there: HashSet<(&Path, u64)> =
            seen.pods.iter().map(|pod| (&*pod.path, pod.id)).collect();
        let stays = |path: &Path, id| there.contains(&(path, id)) || seen.is_in_doubt(path);
        let gone: Vec<Arc<Path>> = self
            .pods
            .iter()
            .filter(|(path, id)| !stays(path, **id))
            .map(|(path, _)| Arc::clone(path))
            .collect();
        self.watches.retain(|path, kind| match kind {
            WatchedKind::Above(_) => seen.above.contains(path) || seen.is_in_doubt(path),
            WatchedKind::Pod(id) => stays(path, *id),
        });
        gone.iter().flat_map(|path| self.removed(path)).collect()
    }

    fn admit_all(&mut self, pods: Vec<PodCgroup>) -> Vec<PodChange> {
        pods.into_iter().flat_map(|pod| self.admit(pod)).collect()
    }

    /// Remembers a pod that is not known already, and watches one that could not be watched before.
    /// One that was there before it, under the same name, is gone.
    fn admit(&mut self, pod: PodCgroup) -> Vec<PodChange> {
        if self.pods.get(&pod.path) == Some(&pod.id) {
            if self.watches.get(&pod.path).is_none() {
                self.watches.add(&pod.path, WatchedKind::Pod(pod.id));
            }
            return Vec::new();
        }
        let mut changes = self.removed(&pod.path);
        self.watches.add(&pod.path, WatchedKind::Pod(pod.id));
        self.pods.insert(Arc::clone(&pod.path), pod.id);
        changes.push(PodChange::Appeared(pod));
        changes
    }

    fn made(&mut self, parent: &Path, name: &str) -> Vec<PodChange> {
        let path = parent.join(name);
        let level = match self.watches.get(parent) {
            Some(WatchedKind::Pod(id)) => return vec![PodChange::ContainerMade(*id)],
            Some(WatchedKind::Above(level)) => classify(*level, name),
            None => return Vec::new(),
        };
        let mut seen = WalkResult::default();
        match level {
            CgroupLevel::Pod(uid) => {
                let pod = seen.read(&path, pod_at(&path, uid)).flatten();
                seen.pods.extend(pod);
            }
            level => {
                let depth = self.depth + depth_below(&self.root, &path);
                self.walk(&path, level, depth, &mut seen);
            }
        }
        self.is_partial |= !seen.unread.is_empty();
        self.admit_all(seen.pods)
    }

    /// A directory was removed. One of the same name may have been made and found since.
    fn handle_removed(&mut self, path: &Path) -> Vec<PodChange> {
        let known = self.pods.get(path);
        if known.is_some_and(|id| fs::metadata(path).is_ok_and(|found| found.ino() == *id)) {
            return Vec::new();
        }
        self.removed(path)
    }

    /// Forgets a directory, and the pod that it was, if it was one.
    fn removed(&mut self, path: &Path) -> Vec<PodChange> {
        self.watches.remove(path);
        let gone = self.pods.remove(path).map(PodChange::Gone);
        gone.into_iter().collect()
    }
}

/// The pod at a path; `None` when it is not kubelet's.
///
/// Kubelet is root. A user who owns a part of the tree (systemd delegates such parts) can name
/// cgroups there like a pod's, but cannot make root their owner.
fn pod_at(path: &Path, uid: PodUid) -> io::Result<Option<PodCgroup>> {
    let metadata = fs::metadata(path)?;
    if !is_trusted(&metadata) {
        tracing::debug!(path = %path.display(), owner = metadata.uid(), "not kubelet's");
        return Ok(None);
    }
    let id = metadata.ino();
    let path = path.into();
    Ok(Some(PodCgroup { id, uid, path }))
}

fn is_trusted(cgroup: &Metadata) -> bool {
    cgroup.uid() == 0 || cgroup.uid() == geteuid().as_raw()
}

/// What was read, or `None` where it has ceased to exist in the meantime.
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(there) => Ok(Some(there)),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || Errno::from_io_error(&error) == Some(Errno::NODEV) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What the root is by its own name: it may be a level of kubelet's.
fn level_of(root: &Path) -> CgroupLevel {
    match root.file_name() {
        Some(name) => classify(CgroupLevel::Other, &name.to_string_lossy()),
        None => CgroupLevel::Other,
    }
}

fn depth_below(root: &Path, path: &Path) -> i32 {
    path.strip_prefix(root).map_or(0, |below| {
        i32::try_from(below.components().count()).unwrap_or(i32::MAX)
    })
}

#[cfg(test)]
mod tests;
