//! The names of runs.

use std::{fmt, fs, io, os::unix::fs::MetadataExt, process, str::FromStr};

use procfs::process::Process;

/// What all names begin with.
const PREFIX: &str = "podcreds-run-";

/// Names a run: a process that no later one can be taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName {
    /// The inode of the PID namespace.
    namespace: u64,
    pid: i32,
    /// When it was started, in clock ticks since the machine was.
    start: u64,
}

impl RunName {
    /// That of this process.
    pub(super) fn own() -> io::Result<Self> {
        Self::of_process(process::id())
    }

    /// That of a process, which may not be a run at all.
    ///
    /// # Errors
    ///
    /// When there is no such process.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        let pid = pid.cast_signed();
        let start = start_of(pid).ok_or_else(|| io::Error::other(format!("no process {pid}")))?;
        Ok(Self {
            namespace: own_namespace()?,
            pid,
            start,
        })
    }

    /// The run that a cgroup, a folder or a process belongs to, if any.
    pub(super) fn of(mark: &str) -> Option<Self> {
        mark.split('.').next()?.parse().ok()
    }

    /// Whether the run has ended. Of one in another PID namespace that cannot be told.
    pub(super) fn has_ended(&self) -> bool {
        own_namespace().is_ok_and(|own| own == self.namespace)
            && start_of(self.pid) != Some(self.start)
    }
}

fn own_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// When a process was started. One that has ended counts as gone even if nobody has waited for it
/// yet.
fn start_of(pid: i32) -> Option<u64> {
    let process = Process::new(pid).ok().filter(Process::is_alive)?;
    Some(process.stat().ok()?.starttime)
}

impl fmt::Display for RunName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            pid,
            start,
        } = self;
        write!(formatter, "{PREFIX}{namespace}-{pid}-{start}")
    }
}

impl FromStr for RunName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let mut parts = text.strip_prefix(PREFIX)?.split('-');
            let name = Self {
                namespace: parts.next()?.parse().ok()?,
                pid: parts.next()?.parse().ok()?,
                start: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(name)
        };
        parts().ok_or_else(|| format!("{text} names no run"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_from_what_carries_it() {
        let own = RunName::own().unwrap();
        assert_eq!(RunName::of(&own.to_string()), Some(own.clone()));
        assert_eq!(RunName::of(&format!("{own}.17")), Some(own.clone()));
        for other in [
            "",
            "podcreds-run-1-2",
            "podcreds-run-1-2-3-4",
            "podcreds-test-1-2-3",
        ] {
            assert_eq!(RunName::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_run_has_ended_when_its_process_has_or_is_another() {
        let own = RunName::own().unwrap();
        assert!(!own.has_ended());
        let earlier = RunName {
            start: own.start - 1,
            ..own.clone()
        };
        assert!(earlier.has_ended());
        // PIDs end at 2^22.
        let gone = RunName {
            pid: 1 << 23,
            ..own.clone()
        };
        assert!(gone.has_ended());
        let foreign = RunName {
            namespace: 1,
            ..gone
        };
        assert!(!foreign.has_ended());
    }
}
