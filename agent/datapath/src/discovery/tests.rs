//! On an ordinary directory. The kernel reports what is made and removed there as it does on
//! cgroupfs.

use std::time::Duration;

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
async fn changes_until(discovery: &mut Discovery, last: impl Fn(&Change) -> bool) -> Vec<Change> {
    let mut changes = Vec::new();
    while !changes.last().is_some_and(&last) {
        let next = timeout(Duration::from_secs(10), discovery.next()).await;
        changes.extend(next.expect("an event in time"));
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
    assert_eq!(discovery.scan(), [Change::Appeared(pod.clone())]);
    assert_eq!(discovery.scan(), []);
    fs::remove_dir_all(&pod.path).unwrap();
    assert_eq!(discovery.scan(), [Change::Gone(pod.id)]);
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
        matches!(change, Change::Appeared(_))
    });
    assert_eq!(changes.await, [Change::Appeared(pod.clone())]);

    make(&root, &format!("{path}/cri-containerd-1.scope"));
    let changes = changes_until(&mut discovery, |change| {
        matches!(change, Change::ContainerMade(_))
    });
    assert_eq!(changes.await, [Change::ContainerMade(pod.id)]);

    fs::remove_dir_all(&pod.path).unwrap();
    let changes = changes_until(&mut discovery, |change| matches!(change, Change::Gone(_)));
    assert_eq!(changes.await, [Change::Gone(pod.id)]);
    assert!(discovery.pods.is_empty());
}

#[tokio::test]
async fn a_cluster_in_a_container_is_found_as_it_grows() {
    let root = TempDir::new().unwrap();
    let mut discovery = watch(&root);
    assert_eq!(discovery.scan(), []);
    let path = format!("docker/0123/kubelet/kubepods/besteffort/pod{UID}");
    make(&root, &path);
    // The levels above kubelet's are not watched, so a scan may be what finds it.
    assert_eq!(discovery.scan(), [Change::Appeared(pod_of(&root, &path))]);
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
        [Change::Gone(first.id), Change::Appeared(second)]
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
    assert_eq!(discovery.scan(), [Change::Appeared(pod.clone())]);
    // All of it.
    break_path(&root, "kubepods");
    discovery.root = root.path().join("kubepods");
    assert_eq!(discovery.scan(), []);
    discovery.root = root.path().to_owned();
    mend_path(&root, "kubepods");
    assert_eq!(discovery.scan(), []);
    fs::remove_dir(&pod.path).unwrap();
    assert_eq!(discovery.scan(), [Change::Gone(pod.id)]);
}

/// A link is no directory to a scan, so what is unread is told to it here.
#[tokio::test]
async fn a_scan_that_fails_half_way_tells_what_it_has_seen() {
    let root = TempDir::new().unwrap();
    let read = format!("kubepods/pod{UID}");
    let unread = format!("kubepods/burstable/pod{OTHER_UID}");
    for path in [&read, &unread] {
        make(&root, path);
    }
    let mut discovery = watch(&root);
    let (first, other) = (pod_of(&root, &read), pod_of(&root, &unread));
    assert_eq!(discovery.scan().len(), 2);

    replace(&root, &read);
    let second = pod_of(&root, &read);
    fs::remove_dir_all(root.path().join("kubepods/burstable")).unwrap();
    let half = |discovery: &mut Discovery, path: &str| {
        let mut seen = Seen::default();
        let unread = root.path().join("kubepods/burstable");
        let failed = Err::<(), _>(io::Error::from(Errno::IO));
        assert_eq!(seen.read(&unread, failed), None);
        seen.pods.extend(
            fs::metadata(root.path().join(path))
                .map(|_| pod_of(&root, path))
                .ok(),
        );
        let mut changes = discovery.forget_all_but(&seen);
        changes.extend(discovery.admit_all(seen.pods));
        changes
    };
    let replaced = [Change::Gone(first.id), Change::Appeared(second.clone())];
    assert_eq!(half(&mut discovery, &read), replaced);
    assert_eq!(half(&mut discovery, &read), []);
    // One that is gone from a part that was read is gone, though another part never can be read.
    fs::remove_dir(&second.path).unwrap();
    assert_eq!(half(&mut discovery, &read), [Change::Gone(second.id)]);
    assert_eq!(discovery.scan(), [Change::Gone(other.id)]);
    assert!(discovery.pods.is_empty());
}

/// Whatever finds the second one says that the first is gone: otherwise nobody ever would.
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
    let replaced = [Change::Gone(first.id), Change::Appeared(second.clone())];
    assert_eq!(changes, replaced);
    // What is heard of the first one's end only now is not the second one's.
    assert_eq!(discovery.handle_removed(&second.path), []);
    fs::remove_dir(&second.path).unwrap();
    assert_eq!(
        discovery.handle_removed(&second.path),
        [Change::Gone(second.id)]
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
        [Change::Gone(before.id), Change::Appeared(after)]
    );
}

#[tokio::test]
async fn a_user_cannot_make_pods() {
    let root = TempDir::new().unwrap();
    let path = format!("kubepods/pod{UID}");
    make(&root, &path);
    if std::os::unix::fs::chown(root.path().join(&path), Some(65534), None).is_err() {
        eprintln!("skipped: only root can give a directory away");
        return;
    }
    assert_eq!(watch(&root).scan(), []);
}
