//! On an ordinary directory. The kernel reports what is made and removed there as it does on cgroupfs.

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
        matches!(change, Change::Stirred(_))
    });
    assert_eq!(changes.await, [Change::Stirred(pod.id)]);

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

#[tokio::test]
async fn what_cannot_be_read_is_not_taken_for_gone() {
    let root = TempDir::new().unwrap();
    let path = format!("kubepods/pod{UID}");
    make(&root, &path);
    let mut discovery = watch(&root);
    let pod = pod_of(&root, &path);
    assert_eq!(discovery.scan(), [Change::Appeared(pod.clone())]);
    // A file where a directory was cannot be listed, and its absence is not known either.
    let (away, there) = (root.path().join("away"), root.path().join("kubepods"));
    fs::rename(&there, &away).unwrap();
    std::os::unix::fs::symlink("kubepods", &there).unwrap();
    discovery.root = there.clone();
    assert_eq!(discovery.scan(), []);
    discovery.root = root.path().to_owned();
    fs::remove_file(&there).unwrap();
    fs::rename(&away, &there).unwrap();
    assert_eq!(discovery.scan(), []);
    fs::remove_dir(&pod.path).unwrap();
    assert_eq!(discovery.scan(), [Change::Gone(pod.id)]);
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
