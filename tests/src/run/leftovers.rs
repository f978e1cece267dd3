//! What runs have left, and how it is removed.

use std::{env, fs, io, path::PathBuf, process, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{RunName, VARIABLE};
use crate::{pod::cgroup, wait::poll};

/// How long the kernel may take to let go of all of it.
const REMOVAL: Duration = Duration::from_secs(60);

/// Removes what a run has left that has ended.
pub(super) fn remove(run: &RunName) -> io::Result<()> {
    // A process that was about to join a cgroup may do so while that is removed.
    let gone = poll(REMOVAL, || {
        let left = Leftovers::find(|name| name == run);
        left.remove();
        left.is_empty().then_some(())
    });
    gone.ok_or_else(|| io::Error::other(format!("{run} has left what cannot be removed")))
}

/// Says what there is of a run.
pub(super) fn list(run: &RunName) -> Vec<String> {
    let found = Leftovers::find(|name| name == run);
    let processes = found.processes.iter().map(|pid| format!("process {pid}"));
    let paths = found.cgroups.iter().chain(&found.folders);
    let paths = paths.map(|path| path.display().to_string());
    processes.chain(paths).collect()
}

/// Removes what all runs have left that have ended.
pub(super) fn remove_of_dead_runs() {
    Leftovers::find(RunName::has_ended).remove();
}

#[derive(Debug)]
struct Leftovers {
    processes: Vec<Pid>,
    cgroups: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Leftovers {
    fn find(is_wanted: impl Fn(&RunName) -> bool) -> Self {
        let is_left = |mark: &str| RunName::of(mark).is_some_and(|name| is_wanted(&name));
        let children = |folder: PathBuf| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .filter(|entry| entry.file_name().to_str().is_some_and(is_left))
                .map(|entry| entry.path())
                .collect()
        };
        Self {
            processes: marked_processes(is_left),
            cgroups: cgroup::mount_point().map(children).unwrap_or_default(),
            folders: children(env::temp_dir()),
        }
    }

    fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.cgroups.is_empty() && self.folders.is_empty()
    }

    /// What cannot be removed is found again.
    fn remove(&self) {
        for process in &self.processes {
            let _ = kill(*process, Signal::SIGKILL);
        }
        for cgroup in &self.cgroups {
            cgroup::remove_tree(cgroup);
        }
        for folder in &self.folders {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The processes whose environment names such a run, but for this one.
fn marked_processes(is_left: impl Fn(&str) -> bool) -> Vec<Pid> {
    let is_marked = |pid: i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| {
            let variable = str::from_utf8(variable).unwrap_or_default();
            let (name, value) = variable.split_once('=').unwrap_or_default();
            name == VARIABLE && is_left(value)
        })
    };
    let own = process::id().cast_signed();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pids = pids.filter(|pid| *pid != own && is_marked(*pid));
    pids.map(Pid::from_raw).collect()
}
