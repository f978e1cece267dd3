//! Cgroups of the doctor's own: made for a check, and removed with it.

use std::{
    fs, io, iter,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use podcreds_datapath::diagnosis::{self, Writable};
use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    process::{Pid, Signal, kill_process},
};

/// How the doctor's cgroups begin.
const NAME: &str = "podcreds-doctor";
/// How long the kernel may take to see that a process has ended.
const REMOVAL: Duration = Duration::from_millis(20);
const TRIES: usize = 50;

/// Those that are there now, so that the end of the doctor removes them; `None` once it has come.
static MADE: Mutex<Option<Vec<PathBuf>>> = Mutex::new(Some(Vec::new()));

/// The hierarchy, in a mount that can be written to.
pub(crate) struct View {
    base: PathBuf,
    /// Where the usual mount is for reading only.
    _own: Option<Writable>,
}

impl View {
    /// Opens the hierarchy that is mounted at `mount`.
    ///
    /// # Errors
    ///
    /// When it is mounted for reading only, and the kernel refuses another view of it.
    pub(crate) fn open(mount: &Path) -> io::Result<Self> {
        if !statvfs(mount)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            let base = mount.to_owned();
            return Ok(Self { base, _own: None });
        }
        let own = diagnosis::writable(mount)?;
        Ok(Self {
            base: own.path(),
            _own: Some(own),
        })
    }

    /// Where a cgroup is in it. `cgroup` goes from the mount on.
    pub(crate) fn path(&self, cgroup: &Path) -> PathBuf {
        self.base.join(cgroup)
    }
}

/// A cgroup of the doctor's own, with others in it perhaps. It is removed when this is dropped.
pub(crate) struct OwnCgroup {
    view: View,
    /// From the mount on.
    top: PathBuf,
    /// The one to be used, at or below `top`.
    pub(crate) cgroup: PathBuf,
}

impl OwnCgroup {
    /// Makes a cgroup for `purpose` below `parent`, and in that one cgroup in another, as `inner`
    /// says. Paths go from the mount on.
    ///
    /// The root of the hierarchy takes `CAP_DAC_OVERRIDE`, which the agent's container lacks: there
    /// it is made one level further down, where kubelet does not look for what is not its own.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub(crate) fn make(
        mount: &Path,
        parent: &Path,
        purpose: &str,
        inner: &Path,
    ) -> io::Result<Self> {
        let view = View::open(mount)?;
        let pid = process::id();
        let started = started(pid).ok_or(io::ErrorKind::NotFound)?;
        let name = format!("{NAME}.{pid}.{started}.{purpose}");
        let mut refused = io::Error::from(io::ErrorKind::NotFound);
        for place in places(&view, parent) {
            remove_left_behind(&view.path(&place));
            let top = place.join(&name);
            match make_noted(view.path(&top)) {
                Ok(()) => return Self::complete(view, top, inner),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn complete(view: View, top: PathBuf, inner: &Path) -> io::Result<Self> {
        let cgroup = top.join(inner);
        let own = Self { view, top, cgroup };
        fs::create_dir_all(own.view.path(&own.cgroup))?;
        Ok(own)
    }
}

/// Where a cgroup may be made, the best place first.
fn places(view: &View, parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(view.path(parent))
        .into_iter()
        .flatten()
        .flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let names = directories.filter_map(|entry| entry.file_name().into_string().ok());
    let mut below: Vec<_> = names.filter(|name| !name.contains("kubepods")).collect();
    below.sort_by_key(|name| name != "system.slice");
    let below = below.into_iter().map(|name| parent.join(name));
    iter::once(parent.to_owned()).chain(below).collect()
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let top = self.view.path(&self.top);
        remove(&top);
        note(|made| {
            made.iter_mut()
                .for_each(|made| made.retain(|it| *it != top))
        });
    }
}

/// Ends who is in them, and removes them. None is made afterwards: a check that took too long may
/// still be at it.
pub(crate) fn remove_all() {
    let made = note(Option::take);
    made.into_iter().flatten().for_each(|top| remove(&top));
}

fn note<T>(change: impl FnOnce(&mut Option<Vec<PathBuf>>) -> T) -> T {
    change(&mut MADE.lock().unwrap_or_else(PoisonError::into_inner))
}

fn make_noted(top: PathBuf) -> io::Result<()> {
    note(|made| {
        let made = made.as_mut().ok_or(io::ErrorKind::Interrupted)?;
        fs::create_dir(&top)?;
        made.push(top);
        Ok(())
    })
}

/// What was in it may need a moment to be gone.
fn remove(top: &Path) {
    for _ in 0..TRIES {
        end_processes(top);
        remove_depth_first(top);
        if !top.exists() {
            return;
        }
        thread::sleep(REMOVAL);
    }
    eprintln!("podcreds doctor: cannot remove {}", top.display());
}

/// Ends all processes in it: none but visitors are ever there.
fn end_processes(cgroup: &Path) {
    if fs::write(cgroup.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // Before Linux 5.14 there is no such file.
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let processes = processes.lines().filter_map(|pid| pid.parse().ok());
    let others = processes.filter(|pid| *pid > 1 && *pid != process::id().cast_signed());
    for pid in others.filter_map(Pid::from_raw) {
        let _ended = kill_process(pid, Signal::KILL);
    }
    for below in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            end_processes(&below.path());
        }
    }
}

/// Only what is empty goes.
fn remove_depth_first(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_depth_first(&entry.path());
        }
    }
    let _busy = fs::remove_dir(cgroup);
}

/// What a doctor that was killed has left.
fn remove_left_behind(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if is_left_behind(&name.to_string_lossy()) {
            remove_depth_first(&entry.path());
        }
    }
}

fn is_left_behind(name: &str) -> bool {
    let rest = name
        .strip_prefix(NAME)
        .and_then(|rest| rest.strip_prefix('.'));
    let maker = rest.and_then(|rest| {
        let mut parts = rest.split('.').map(str::parse::<u64>);
        let pid = u32::try_from(parts.next()?.ok()?).ok()?;
        Some((pid, parts.next().and_then(Result::ok)))
    });
    maker.is_some_and(|(pid, since)| match started(pid) {
        Some(started) => since.is_some_and(|since| since != started),
        None => true,
    })
}

/// When a process started, in clock ticks since boot; `None` if it has ended.
fn started(pid: u32) -> Option<u64> {
    let process = procfs::process::Process::new(pid.try_into().ok()?);
    Some(process.ok()?.stat().ok()?.starttime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_doctor_has_made_is_left_behind() {
        let (pid, started) = (process::id(), started(process::id()).unwrap());
        assert!(is_left_behind("podcreds-doctor.4294967295.1.trial"));
        assert!(!is_left_behind(&format!(
            "podcreds-doctor.{pid}.{started}.trial"
        )));
        // Another process has the number now.
        assert!(is_left_behind(&format!("podcreds-doctor.{pid}.1.trial")));
        assert!(!is_left_behind("podcreds-doctor.service"));
        assert!(!is_left_behind("kubepods"));
    }
}
