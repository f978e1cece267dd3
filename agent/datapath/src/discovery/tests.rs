//! On an ordinary directory, of which the kernel reports what it reports of cgroupfs.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

const UID: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

fn pod_of(root: &TempDir, path: &str) -> PodCgroup {
    let path = root.path().join(path);
    PodCgroup {
        id: fs::metadata(&path).unwrap().ino(),
        uid: UID.parse().unwrap(),
        path: path.into(),
    }
}

fn watch(root: &TempDir) -> Discovery {
    Discovery::new(root.path().to_owned(), root.path())
}

fn make(root: &TempDir, path: &str) {
    fs::create_dir_all(root.path().join(path)).unwrap();
}

/// The changes up to the first that satisfies `last`.
async fn changes_until(
    discovery: &mut Discovery,
    last: impl Fn(&PodChange) -> bool,
) -> Vec<PodChange> {
    let mut changes = Vec::new();
    while !changes.last().is_some_and(&last) {
        let next = timeout(Duration::from_secs(10), discovery.next()).await;
        changes.extend(next.expect("an event in time").expect("no lost events"));
    }
    changes
}

#[tokio::test]
async fn pods_that_are_there_are_found_once() {
    let root = TempDir::new().unwrap();
    let path = format!("kubepods/burstable/pod{UID}");
    make(&root, &format!("{path}/container/kubepods/pod{UID}"));
    let mut discovery = watch(&root);
    let pod = pod_of(&root, &path);
    assert_eq!(discovery.scan(), [PodChange::Appeared(pod.clone())]);
    assert_eq!(discovery.scan(), []);
    fs::remove_dir_all(&pod.path).unwrap();
    assert_eq!(discovery.scan(), [PodChange::Gone(pod.id)]);
}

#[tokio::test]
async fn a_pod_that_could_not_be_watched_is_watched_after_the_next_comparison() {
    let root = TempDir::new().unwrap();
    let path = format!("kubepods/pod{UID}");
    make(&root, &path);
    let (mut discovery, pod) = (watch(&root), pod_of(&root, &path));
    discovery.scan();
    // As where the kernel gives no more watches.
    discovery.watches.remove(&pod.path);
    discovery.scan();
    make(&root, &format!("{path}/container"));
    let change = changes_until(&mut discovery, |_| true).await.pop();
    assert_eq!(change, Some(PodChange::ContainerMade(pod.id)));
}

#[tokio::test]
async fn pods_come_and_go() {
    let root = TempDir::new().unwrap();
    let mut discovery = watch(&root);
    assert_eq!(discovery.scan(), []);

    let path = format!("kubepods.slice/kubepods-pod{}.slice", UID.replace('-', "_"));
    make(&root, &path);
    let pod = pod_of(&root, &path);
    let changes = changes_until(&mut discovery, |change| {
        matches!(change, PodChange::Appeared(_))
    });
    assert_eq!(changes.await, [PodChange::Appeared(pod.clone())]);

    make(&root, &format!("{path}/cri-containerd-1.scope"));
    let changes = changes_until(&mut discovery, |change| {
        matches!(change, PodChange::ContainerMade(_))
    });
    assert_eq!(changes.await, [PodChange::ContainerMade(pod.id)]);

    fs::remove_dir_all(&pod.path).unwrap();
    let changes = changes_until(&mut discovery, |change| {
        matches!(change, PodChange::Gone(_))
    });
    assert_eq!(changes.await, [PodChange::Gone(pod.id)]);
    assert!(discovery.pods.is_empty());
}

#[tokio::test]
async fn a_cluster_in_a_container_is_found_as_it_grows() {
    let root = TempDir::new().unwrap();
    let mut discovery = watch(&root);
    assert_eq!(discovery.scan(), []);
    let path = format!("docker/0123/kubelet/kubepods/besteffort/pod{UID}");
    make(&root, &path);
    assert_eq!(
        discovery.scan(),
        [PodChange::Appeared(pod_of(&root, &path))]
    );
}

#[tokio::test]
async fn a_pod_that_is_replaced_under_its_name_is_another() {
    let root = TempDir::new().unwrap();
    let path = format!("kubepods/pod{UID}");
    make(&root, &path);
    let mut discovery = watch(&root);
    discovery.scan();
    let first = pod_of(&root, &path);
    // Made before the first goes, so that the file system cannot give it the same inode.
    make(&root, "elsewhere");
    fs::remove_dir(&first.path).unwrap();
    fs::rename(root.path().join("elsewhere"), &first.path).unwrap();
    let second = pod_of(&root, &path);
    assert_ne!(first.id, second.id);
    assert_eq!(
        discovery.scan(),
        [PodChange::Gone(first.id), PodChange::Appeared(second)]
    );
}

const OTHER_UID: &str = "1f0e0d0c-0b0a-0908-0706-050403020100";

/// Makes a path one that nobody can read, root included: a link to itself. What was there goes to
/// `away`, if anything.
fn break_path(root: &TempDir, path: &str) {
    let path = root.path().join(path);
    let _moved = fs::rename(&path, root.path().join("away"));
    std::os::unix::fs::symlink(&path, &path).unwrap();
}

fn mend_path(root: &TempDir, path: &str) {
    let path = root.path().join(path);
    fs::remove_file(&path).unwrap();
    fs::rename(root.path().join("away"), &path).unwrap();
}

/// Makes another directory of the same name, with another inode, as when a pod is made again.
fn replace(root: &TempDir, path: &str) {
    make(root, "elsewhere");
    fs::remove_dir_all(root.path().join(path)).unwrap();
    fs::rename(root.path().join("elsewhere"), root.path().join(path)).unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_not_taken_for_gone() {
    let root = TempDir::new().unwrap();
    let path = format!("kubepods/pod{UID}");
    make(&root, &path);
    let mut discovery = watch(&root);
    let pod = pod_of(&root, &path);
    assert_eq!(discovery.scan(), [PodChange::Appeared(pod.clone())]);
    // All of it.
    break_path(&root, "kubepods");
    discovery.root = root.path().join("kubepods");
    assert_eq!(discovery.scan(), []);
    discovery.root = root.path().to_owned();
    mend_path(&root, "kubepods");
    assert_eq!(discovery.scan(), []);
    fs::remove_dir(&pod.path).unwrap();
    assert_eq!(discovery.scan(), [PodChange::Gone(pod.id)]);
}

/// A directory that this thread cannot read until it is dropped, as root neither.
struct Unreadable {
    path: PathBuf,
    capabilities: CapabilitySets,
}

impl Unreadable {
    fn make(root: &TempDir, path: &str) -> Self {
        let path = root.path().join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
        // They are the thread's own, and a test has one for itself.
        let capabilities = capabilities(None).unwrap();
        let mut less = capabilities;
        less.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, less).unwrap();
        assert!(fs::read_dir(&path).is_err());
        Self { path, capabilities }
    }
}

impl Drop for Unreadable {
    fn drop(&mut self) {
        set_capabilities(None, self.capabilities).unwrap();
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The pods `a` and `c` can be read, and `b` between them cannot.
#[tokio::test]
async fn a_scan_that_fails_half_way_reports_what_it_has_seen_and_the_next_the_rest() {
    let root = TempDir::new().unwrap();
    let [a, b, c] = [
        format!("kubepods/besteffort/pod{UID}"),
        format!("kubepods/burstable/pod{UID}"),
        format!("kubepods/pod{UID}"),
    ];
    for path in [&a, &b, &c] {
        make(&root, path);
    }
    let mut discovery = watch(&root);
    let first = [&a, &b, &c].map(|path| pod_of(&root, path));
    assert_eq!(discovery.scan().len(), 3);
    assert!(discovery.scan_interval() >= COMPARISON);

    for path in [&a, &b, &c] {
        replace(&root, path);
    }
    let second = [&a, &b, &c].map(|path| pod_of(&root, path));
    let unreadable = Unreadable::make(&root, "kubepods/burstable");
    let mut changes = discovery.scan();
    assert_eq!(discovery.scan_interval(), FREQUENT_COMPARISON);
    for at in [0, 2] {
        for wanted in [
            PodChange::Gone(first[at].id),
            PodChange::Appeared(second[at].clone()),
        ] {
            let found = changes.iter().position(|change| *change == wanted).unwrap();
            changes.remove(found);
        }
    }
    assert_eq!(changes, []);
    assert_eq!(discovery.scan(), []);
    // One that is gone from a part that was read is gone, though another part cannot be read.
    fs::remove_dir(&second[2].path).unwrap();
    assert_eq!(discovery.scan(), [PodChange::Gone(second[2].id)]);
    assert_eq!(discovery.pods.get(&first[1].path), Some(&first[1].id));

    drop(unreadable);
    let replaced = [
        PodChange::Gone(first[1].id),
        PodChange::Appeared(second[1].clone()),
    ];
    assert_eq!(discovery.scan(), replaced);
    assert!(discovery.scan_interval() >= COMPARISON);
    assert_eq!(discovery.scan(), []);
}

/// Makes and removes directories until the kernel drops events.
fn overflow(root: &TempDir) {
    let kept = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    for _ in 0..kept.trim().parse::<u32>().unwrap() {
        make(root, "kubepods/other");
        fs::remove_dir(root.path().join("kubepods/other")).unwrap();
    }
}

#[tokio::test]
async fn a_scan_finds_what_lost_events_would_have_said() {
    let root = TempDir::new().unwrap();
    let [stays, goes, comes, replaced] = [
        format!("kubepods/pod{UID}"),
        format!("kubepods/burstable/pod{UID}"),
        format!("kubepods/guaranteed.slice/kubepods/pod{UID}"),
        format!("kubepods/besteffort/pod{UID}"),
    ];
    for path in [&stays, &goes, &replaced] {
        make(&root, path);
    }
    let mut discovery = watch(&root);
    assert_eq!(discovery.scan().len(), 3);
    let (gone, before) = (pod_of(&root, &goes), pod_of(&root, &replaced));
    overflow(&root);
    fs::remove_dir(&gone.path).unwrap();
    make(&root, &comes);
    replace(&root, &replaced);
    let lost = async {
        while let Some(changes) = discovery.next().await {
            assert_eq!(changes, []);
        }
    };
    timeout(Duration::from_secs(60), lost).await.unwrap();
    let changes = discovery.scan();
    for wanted in [
        PodChange::Gone(gone.id),
        PodChange::Gone(before.id),
        PodChange::Appeared(pod_of(&root, &comes)),
        PodChange::Appeared(pod_of(&root, &replaced)),
    ] {
        assert!(changes.contains(&wanted), "{wanted:?} in {changes:?}");
    }
    assert_eq!(changes.len(), 4, "{changes:?}");
    assert_eq!(discovery.scan(), []);
    // And what it found is watched.
    make(&root, &format!("{comes}/container"));
    let made = changes_until(&mut discovery, |change| {
        matches!(change, PodChange::ContainerMade(_))
    });
    assert_eq!(
        made.await.pop(),
        Some(PodChange::ContainerMade(pod_of(&root, &comes).id))
    );
}

#[tokio::test]
async fn a_cgroup_that_is_removed_and_made_again_between_two_looks_is_another_pod() {
    let root = TempDir::new().unwrap();
    let path = format!("kubepods/pod{UID}");
    make(&root, &path);
    let mut discovery = watch(&root);
    discovery.scan();
    let first = pod_of(&root, &path);
    // While it is open, no file system gives its inode to another, as cgroupfs never does.
    let _open = fs::File::open(&first.path).unwrap();
    fs::remove_dir(&first.path).unwrap();
    make(&root, &path);
    let second = pod_of(&root, &path);
    let changes = changes_until(&mut discovery, |change| {
        matches!(change, PodChange::Appeared(_))
    });
    let replaced = [PodChange::Gone(first.id), PodChange::Appeared(second)];
    assert_eq!(changes.await, replaced);
}

#[tokio::test]
async fn the_levels_above_kubelets_are_watched() {
    let root = TempDir::new().unwrap();
    make(&root, "docker");
    let mut discovery = watch(&root);
    assert_eq!(discovery.scan(), []);
    let path = format!("docker/0123/kubelet/kubepods/besteffort/pod{UID}");
    make(&root, &path);
    let changes = changes_until(&mut discovery, |change| {
        matches!(change, PodChange::Appeared(_))
    });
    assert_eq!(changes.await, [PodChange::Appeared(pod_of(&root, &path))]);
}

/// The change that reports the second pod also reports the end of the first, which no other would.
#[tokio::test]
async fn a_pod_is_never_overwritten_in_silence() {
    let root = TempDir::new().unwrap();
    let path = format!("kubepods/pod{UID}");
    make(&root, &path);
    let mut discovery = watch(&root);
    let first = pod_of(&root, &path);
    discovery.scan();
    replace(&root, &path);
    let second = pod_of(&root, &path);
    let changes = discovery.admit_all(vec![second.clone()]);
    let replaced = [
        PodChange::Gone(first.id),
        PodChange::Appeared(second.clone()),
    ];
    assert_eq!(changes, replaced);
    // What is heard of the first one's end only now is not the second one's.
    assert_eq!(discovery.handle_removed(&second.path), []);
    fs::remove_dir(&second.path).unwrap();
    assert_eq!(
        discovery.handle_removed(&second.path),
        [PodChange::Gone(second.id)]
    );
}

#[tokio::test]
async fn a_pod_that_moves_is_gone_from_where_it_was() {
    let root = TempDir::new().unwrap();
    let (from, to) = (
        format!("kubepods/pod{UID}"),
        format!("kubepods/pod{OTHER_UID}"),
    );
    make(&root, &from);
    let mut discovery = watch(&root);
    let before = pod_of(&root, &from);
    discovery.scan();
    fs::rename(root.path().join(&from), root.path().join(&to)).unwrap();
    let after = PodCgroup {
        uid: OTHER_UID.parse().unwrap(),
        ..pod_of(&root, &to)
    };
    assert_eq!(before.id, after.id);
    assert_eq!(
        discovery.scan(),
        [PodChange::Gone(before.id), PodChange::Appeared(after)]
    );
}

#[tokio::test]
async fn a_cgroup_that_a_user_owns_is_no_pod() {
    let root = TempDir::new().unwrap();
    let path = format!("kubepods/pod{UID}");
    make(&root, &path);
    if std::os::unix::fs::chown(root.path().join(&path), Some(65534), None).is_err() {
        eprintln!("skipped: only root can give a directory away");
        return;
    }
    assert_eq!(watch(&root).scan(), []);
}
