//! Which network namespace is a pod's own, judged by the processes in its cgroup.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::netns::{Netns, NetnsId};

/// A process that can speak for its pod's namespace.
struct Process {
    /// Clock ticks after boot.
    started: u64,
    netns: Netns,
}

/// Finds the network namespace that a pod's processes share.
///
/// The host's is never a pod's: a container runtime's helper passes through a pod's cgroup before it has
/// entered the pod's namespace. Of the others the oldest process decides, which is the pause container's
/// or the first container's: what a pod starts later, in whatever namespace, is younger. As long as
/// the oldest process of one of its containers is in the namespace `current`, that one stays.
///
/// `None` when no process of the pod's says anything: there is none, or they are all in the host's.
pub(super) fn own_netns(pod: &Path, host: NetnsId, current: Option<NetnsId>) -> Option<Netns> {
    let eldest_of_each: Vec<_> = subdirectories(pod)
        .iter()
        .filter_map(|container| eldest(container, host))
        .collect();
    let mut eldest: Option<Process> = None;
    for process in eldest_of_each {
        if Some(process.netns.id()) == current {
            return Some(process.netns);
        }
        if eldest
            .as_ref()
            .is_none_or(|other| process.started < other.started)
        {
            eldest = Some(process);
        }
    }
    eldest.map(|process| process.netns)
}

/// The cgroups directly below one: below a pod's, those of its containers.
fn subdirectories(cgroup: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cgroup) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// The oldest process in a container that is not in the host's namespace.
///
/// An init system in a container moves itself into a cgroup below, so those are looked at as well.
fn eldest(container: &Path, host: NetnsId) -> Option<Process> {
    let mut eldest: Option<Process> = None;
    let mut pending = vec![container.to_owned()];
    while let Some(cgroup) = pending.pop() {
        for pid in members(&cgroup).unwrap_or_default() {
            if let Some(process) = inspect(&cgroup, pid)
                && process.netns.id() != host
                && eldest
                    .as_ref()
                    .is_none_or(|other| process.started < other.started)
            {
                eldest = Some(process);
            }
        }
        pending.extend(subdirectories(&cgroup));
    }
    eldest
}

/// Looks at a process, and again at whether it still is the one that was in the cgroup.
///
/// A process can die at any point here, and its number can be given to another.
fn inspect(cgroup: &Path, pid: u32) -> Option<Process> {
    let started = start_time(pid)?;
    let netns = Netns::of_process(pid).ok()?;
    let same = start_time(pid)? == started && members(cgroup).ok()?.contains(&pid);
    same.then_some(Process { started, netns })
}

/// The processes directly in a cgroup that are visible from here.
fn members(cgroup: &Path) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs"))?;
    // A process in a PID namespace that cannot be seen from here is listed as 0.
    Ok(text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
        .collect())
}

/// When a process started, in clock ticks after boot.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

/// The 22nd field of `/proc/<pid>/stat`. The second is the program's name, which may hold anything.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_time_is_read_whatever_the_program_is_called() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        let stat = format!("42 (evil) S 1) {fields}");
        assert_eq!(parse_start_time(&stat), Some(4711));
        assert_eq!(parse_start_time("42 (x"), None);
        assert!(start_time(std::process::id()).is_some());
    }

    #[test]
    fn a_pod_without_processes_has_no_namespace() {
        let pod = tempfile::tempdir().unwrap();
        let host = Netns::of_agent().unwrap().id();
        assert!(own_netns(pod.path(), host, None).is_none());
        fs::create_dir(pod.path().join("container")).unwrap();
        assert!(own_netns(pod.path(), host, None).is_none());
    }

    #[test]
    fn processes_in_the_hosts_namespace_say_nothing() {
        let pod = tempfile::tempdir().unwrap();
        let container = pod.path().join("container");
        fs::create_dir(&container).unwrap();
        let pids = format!("0\n{}\n4194305\n", std::process::id());
        fs::write(container.join("cgroup.procs"), pids).unwrap();
        let host = Netns::of_agent().unwrap().id();
        assert!(own_netns(pod.path(), host, None).is_none());
    }
}
