//! Control groups (version 2) as files.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use procfs::process::Process;

use crate::wait::poll;

/// How long the kernel may take to let go of killed processes.
const REMOVAL: Duration = Duration::from_secs(10);

/// Where cgroup2 is mounted: `/sys/fs/cgroup`, or a folder below it beside version 1.
///
/// # Errors
///
/// That it is not mounted, or cannot be told.
pub fn mount_point() -> Result<PathBuf, String> {
    let mounts = Process::myself().and_then(|process| process.mountinfo());
    mounts
        .map_err(|why| format!("cannot read /proc/self/mountinfo: {why}"))?
        .into_iter()
        .find(|mount| mount.fs_type == "cgroup2")
        .map(|mount| mount.mount_point)
        .ok_or_else(|| "needs cgroup2 to be mounted".to_owned())
}

/// The kernel's number for a cgroup, as eBPF programs see it.
///
/// # Errors
///
/// When it does not exist.
pub fn id(cgroup: &Path) -> io::Result<u64> {
    Ok(fs::metadata(cgroup)?.ino())
}

/// The processes in a cgroup, without those further down.
///
/// # Errors
///
/// When it does not exist.
pub fn processes(cgroup: &Path) -> io::Result<Vec<u32>> {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs"))?;
    Ok(pids.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Kills everything in a cgroup and below, and removes all of it. Says so on stderr when something
/// is left after all: it is called where nobody can handle an error.
pub fn remove_tree(cgroup: &Path) {
    let gone = poll(REMOVAL, || {
        // Again, since a process may have joined meanwhile. Absent where the cgroup is, and where
        // the kernel is older than 5.14.
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        remove_depth_first(cgroup);
        (!cgroup.exists()).then_some(())
    });
    if gone.is_none() {
        eprintln!(
            "could not remove {}: is something still running in it?",
            cgroup.display()
        );
    }
}

/// One attempt: what is still busy stays.
fn remove_depth_first(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_depth_first(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
