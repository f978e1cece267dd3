//! Which network namespace is a pod's own, judged by the processes in its cgroup.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    os::{
        fd::OwnedFd,
        unix::fs::{DirEntryExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::namespaces::netns::{Netns, NetnsId};

// A pod may have any number of processes and cgroups, and must not keep the datapath busy with
// them. The kernel lists processes in the order in which they came: the first ones are those that
// matter.
const MAX_CGROUPS: usize = 64;
const MAX_PROCESSES: usize = 64;
/// As much of a cgroup's path is shown, in characters. A container's has some 200.
const MAX_SHOWN: usize = 300;
/// The inode of the initial PID namespace on every kernel: `PROC_PID_INIT_INO`.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A process that spoke for its pod's namespace, and does so for as long as it stays where it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Witness {
    pid: u32,
    /// Clock ticks after boot: distinguishes it from a later process of the same number.
    started: u64,
    netns: NetnsId,
}

/// What the processes of a pod say.
pub(crate) enum NetnsSearch {
    /// Its namespace is what it was: the witness still stands.
    Same,
    /// This is its namespace, says this witness.
    Found(Netns, Witness),
    /// Its processes are all in the host's namespace, for now; some of them, where it was there
    /// before.
    Host,
    /// There is no process yet.
    Nothing,
    /// It has processes, and none of them can be seen from the agent's PID namespace.
    Invisible,
}

/// Finds the network namespace that a pod's processes share.
///
/// The host's is never a pod's: a container runtime's helper passes through a pod's cgroup before
/// it has entered the pod's namespace. Of the others the pod's first process decides, that is, the
/// first one to have come into its oldest container, which is the pause container. What a pod
/// starts later, in whatever namespace, and what passes through, comes after it. When the last
/// witness is gone, a container whose first process is still in that namespace keeps the pod there.
/// A pod that is known to be in the host's (`was_in_host`) stays there as long as any process of
/// its containers is.
pub(crate) fn own_netns(
    pod: &Path,
    host: NetnsId,
    last: Option<&Witness>,
    was_in_host: bool,
) -> NetnsSearch {
    if last.is_some_and(|witness| witness.stands(pod)) {
        return NetnsSearch::Same;
    }
    let mut others = Others::default();
    let mut first: Option<(Netns, Witness)> = None;
    for container in subdirectories(pod) {
        let Some((netns, witness)) = first_of(pod, &container, host, &mut others) else {
            continue;
        };
        if last.is_some_and(|last| last.netns == witness.netns) {
            return NetnsSearch::Found(netns, witness);
        }
        first.get_or_insert((netns, witness));
    }
    match first {
        Some(_) if was_in_host && others.in_host => NetnsSearch::Host,
        Some((netns, witness)) => NetnsSearch::Found(netns, witness),
        None if others.in_host => NetnsSearch::Host,
        None if others.invisible => NetnsSearch::Invisible,
        None => NetnsSearch::Nothing,
    }
}

/// A process or thread of a pod as a witness of where it is. `None` when it is gone or not in the
/// pod.
pub(crate) fn witness(pod: &Path, pid: u32) -> Option<(Netns, Witness)> {
    let started = start_time(pid)?;
    let netns = Netns::of_process(pid).ok()?;
    let witness = Witness {
        pid,
        started,
        netns: netns.id(),
    };
    // It may have ended, and its number may have been given to another, while it was looked at.
    witness.stands(pod).then_some((netns, witness))
}

/// A process of a pod that is in this namespace, among those that are looked at.
pub(crate) fn another_witness(pod: &Path, netns: NetnsId) -> Option<Witness> {
    let containers = subdirectories(pod).into_iter();
    let processes = containers.flat_map(|container| members(&container));
    let mut there = processes.filter(|pid| Netns::id_of_process(*pid).is_ok_and(|id| id == netns));
    let (_, witness) = there.find_map(|pid| witness(pod, pid))?;
    (witness.netns == netns).then_some(witness)
}

/// Whether a process of the pod is left in the namespace that the last witness was in.
pub(crate) fn is_in_use(pod: &Path, last: &Witness) -> bool {
    last.stands(pod) || another_witness(pod, last.netns).is_some()
}

/// Processes that do not decide.
#[derive(Default)]
struct Others {
    in_host: bool,
    invisible: bool,
}

/// The first process of a container that is not in the host's namespace.
fn first_of(
    pod: &Path,
    container: &Path,
    host: NetnsId,
    others: &mut Others,
) -> Option<(Netns, Witness)> {
    members(container).into_iter().find_map(|pid| {
        // A process in a PID namespace that cannot be seen from here is listed as 0.
        others.invisible |= pid == 0;
        let (netns, witness) = witness(pod, pid)?;
        others.in_host |= netns.id() == host;
        (netns.id() != host).then_some((netns, witness))
    })
}

impl Witness {
    /// Its number, which may be another process's by now.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Opens the process, so that its end can be waited for.
    ///
    /// # Errors
    ///
    /// When it has ended, is a thread and no process, or the agent has no descriptors.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.pid.cast_signed()).ok_or(io::ErrorKind::NotFound)?;
        Ok(pidfd_open(pid, PidfdFlags::empty())?)
    }

    /// Whether the process still is where it was: alive, in the pod, and in the same namespace.
    pub(crate) fn stands(&self, pod: &Path) -> bool {
        start_time(self.pid) == Some(self.started)
            && Netns::id_of_process(self.pid).is_ok_and(|id| id == self.netns)
            && is_in(self.pid, pod)
    }
}

/// Whether a process is in a pod's cgroup or one below.
fn is_in(pid: u32, pod: &Path) -> bool {
    // The path is as the agent's own cgroup namespace shows it, so only the pod's name can be
    // compared.
    cgroup_of(pid).is_some_and(|path| {
        Path::new(&path)
            .components()
            .any(|part| Some(part.as_os_str()) == pod.file_name())
    })
}

/// The path of a process's cgroup2.
fn cgroup_of(pid: u32) -> Option<String> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let unified = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
    unified.map(str::to_owned)
}

/// The program and the cgroup of a process that the kernel has named, for people to read. `None`
/// when it has ended, or the kernel's numbers are not those that the agent sees.
pub(crate) fn about(process: u32) -> Option<String> {
    if fs::metadata("/proc/self/ns/pid").ok()?.ino() != INITIAL_PID_NAMESPACE {
        return None;
    }
    let program = fs::read(format!("/proc/{process}/comm")).ok()?;
    let program = String::from_utf8_lossy(&program);
    let cgroup = cgroup_of(process)?;
    let cgroup: String = cgroup.chars().take(MAX_SHOWN).collect();
    Some(format!("{} in {cgroup}", program.trim_end()))
}

/// The processes of a pod, and the cgroup of each: those of its containers, the oldest container
/// first.
pub(crate) fn all(pod: &Path) -> Vec<(u32, PathBuf)> {
    let containers = subdirectories(pod).into_iter();
    containers
        .flat_map(|container| placed(&container))
        .collect()
}

/// Processes in a container, the first ones that the kernel lists.
fn members(container: &Path) -> Vec<u32> {
    placed(container).into_iter().map(|(pid, _)| pid).collect()
}

/// The same with the cgroup of each.
///
/// An init system in a container moves itself into a cgroup below, so those are looked at as well.
fn placed(container: &Path) -> Vec<(u32, PathBuf)> {
    let mut processes = Vec::new();
    let mut cgroups = VecDeque::from([container.to_owned()]);
    for _ in 0..MAX_CGROUPS {
        let Some(cgroup) = cgroups.pop_front() else {
            break;
        };
        let members = members_of(&cgroup).unwrap_or_default();
        processes.extend(members.into_iter().map(|pid| (pid, cgroup.clone())));
        if processes.len() >= MAX_PROCESSES {
            break;
        }
        cgroups.extend(subdirectories(&cgroup));
    }
    processes.truncate(MAX_PROCESSES);
    processes
}

fn members_of(cgroup: &Path) -> io::Result<Vec<u32>> {
    // The kernel lists no more of them than are read.
    let processes = File::open(cgroup.join("cgroup.procs"))?;
    let lines = BufReader::with_capacity(1024, processes).lines();
    let first = lines.take(MAX_PROCESSES).map_while(Result::ok);
    Ok(first.filter_map(|line| line.parse().ok()).collect())
}

/// The cgroups directly below one, the oldest first: their ids, which are their inodes', grow.
fn subdirectories(cgroup: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cgroup) else {
        return Vec::new();
    };
    let mut directories: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| (entry.ino(), entry.path()))
        .collect();
    directories.sort_unstable();
    directories.truncate(MAX_CGROUPS);
    directories.into_iter().map(|(_, path)| path).collect()
}

/// When a process started, in clock ticks after boot.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_start_time(&stat)
}

/// The 22nd field of `/proc/<pid>/stat`. The second is the program's name, which may hold anything.
pub(crate) fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod_with(processes: &str) -> tempfile::TempDir {
        let pod = tempfile::tempdir().unwrap();
        let container = pod.path().join("container");
        fs::create_dir(&container).unwrap();
        fs::write(container.join("cgroup.procs"), processes).unwrap();
        pod
    }

    fn verdict_on(pod: &Path) -> NetnsSearch {
        own_netns(pod, Netns::of_agent().unwrap().id(), None, false)
    }

    #[test]
    fn a_start_time_is_read_whatever_the_program_is_called() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        let stat = format!("42 (evil) S 1) {fields}");
        assert_eq!(parse_start_time(&stat), Some(4711));
        assert_eq!(parse_start_time("42 (x"), None);
        assert!(start_time(std::process::id()).is_some());
    }

    #[test]
    fn a_process_is_told_by_its_program_and_its_cgroup() {
        let Some(own) = about(std::process::id()) else {
            // The tests may run in a container.
            let id = fs::metadata("/proc/self/ns/pid").unwrap().ino();
            return assert_ne!(id, INITIAL_PID_NAMESPACE);
        };
        let program = fs::read_to_string("/proc/self/comm").unwrap();
        let (shown, cgroup) = own.split_once(" in ").unwrap();
        assert_eq!(shown, program.trim_end());
        assert_eq!(Some(cgroup), cgroup_of(std::process::id()).as_deref());
        // Above the highest number that the kernel gives.
        assert_eq!(about(1 << 22), None);
    }

    #[test]
    fn a_pod_without_processes_has_no_namespace() {
        let pod = tempfile::tempdir().unwrap();
        assert!(matches!(verdict_on(pod.path()), NetnsSearch::Nothing));
        assert!(matches!(
            verdict_on(pod_with("").path()),
            NetnsSearch::Nothing
        ));
    }

    #[test]
    fn a_process_that_is_elsewhere_by_its_own_account_says_nothing() {
        let pod = pod_with(&format!("{}\n4194305\n", std::process::id()));
        assert!(matches!(verdict_on(pod.path()), NetnsSearch::Nothing));
    }

    #[test]
    fn a_namespace_that_the_pods_last_process_has_left_is_not_in_use() {
        let pod = pod_with("");
        let pid = std::process::id();
        let elsewhere = Witness {
            pid,
            started: start_time(pid).unwrap(),
            netns: Netns::of_agent().unwrap().id(),
        };
        assert!(!is_in_use(pod.path(), &elsewhere));
        let container = pod.path().join("container");
        fs::write(container.join("cgroup.procs"), format!("{pid}\n")).unwrap();
        assert!(!is_in_use(pod.path(), &elsewhere), "it is in another pod");
    }

    #[test]
    fn processes_that_cannot_be_seen_are_told_from_none() {
        let pod = pod_with("0\n0\n");
        assert!(matches!(verdict_on(pod.path()), NetnsSearch::Invisible));
    }

    #[test]
    fn no_pod_takes_long_to_look_at() {
        let many: String = (1..100_000).map(|pid| format!("{pid}\n")).collect();
        let pod = pod_with(&many);
        assert_eq!(members(&pod.path().join("container")).len(), MAX_PROCESSES);
    }
}
