//! Notices when the processes end by which the agent knows pods' network namespaces.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use crate::{
    pods::processes::Witness,
    poll_set::{PollSet, PolledSocket},
};

/// Waits for the ends of processes, all of them at once.
pub(crate) struct Ends(Arc<PollSet<LivingProcess>>);

/// Waits for the end of one process. Dropping it ends that.
pub(crate) type EndWatch = PolledSocket<LivingProcess>;

/// A process that is waited for.
pub(crate) struct LivingProcess {
    pidfd: OwnedFd,
    /// The cgroup id of the pod that it is a process of.
    pod: u64,
}

impl AsFd for LivingProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Ends {
    /// For the runtime in which it is made.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(PollSet::new()?)))
    }

    /// Waits for the end of a pod's witness, whose pod's cgroup is at `path`.
    ///
    /// # Errors
    ///
    /// When the process does not stand for its pod any more, or the agent has no descriptors.
    pub(crate) fn watch(&self, witness: &Witness, path: &Path, pod: u64) -> io::Result<EndWatch> {
        let pidfd = witness.open()?;
        // Its number may have been given to another process before that was opened.
        if !witness.stands(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.add(pidfd, pod)
    }

    fn add(&self, pidfd: OwnedFd, pod: u64) -> io::Result<EndWatch> {
        self.0.add(LivingProcess { pidfd, pod })
    }

    /// Waits until processes have ended, and returns the pods that they were of. Those processes
    /// are not waited for any more. Cancel-safe.
    pub(crate) async fn next(&self) -> io::Result<Vec<u64>> {
        let batch = self.0.ready().await?;
        let ended = batch.keys().filter_map(|key| {
            let pod = self.0.get(key)?.pod;
            self.0.remove(key);
            Some(pod)
        });
        Ok(ended.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_reported_once() {
        let mut sleep = Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&sleep), PidfdFlags::empty()).unwrap();
        let ends = Ends::new().unwrap();
        let watch = ends.add(pidfd, 7).unwrap();
        let silence = Duration::from_millis(50);
        assert!(timeout(silence, ends.next()).await.is_err());
        sleep.kill().unwrap();
        let ended = timeout(Duration::from_secs(10), ends.next()).await.unwrap();
        assert_eq!(ended.unwrap(), [7]);
        assert!(!watch.is_valid());
        assert!(timeout(silence, ends.next()).await.is_err());
        sleep.wait().unwrap();
    }
}
