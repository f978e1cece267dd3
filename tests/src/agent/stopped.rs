//! A thread of the agent that is stopped, as by a debugger, while the others go on.

use std::marker::PhantomData;

use nix::{
    sys::{
        ptrace::{self, Options},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use procfs::process::Process;

use crate::wait::until;

/// A thread that is stopped until this is dropped. Only the thread that has stopped it can let it
/// go on.
pub struct StoppedThread {
    process: Pid,
    thread: Pid,
    gone: bool,
    _here: PhantomData<*const ()>,
}

impl StoppedThread {
    /// Stops the oldest thread of this name.
    pub(super) fn stop(process: u32, name: &str) -> Self {
        let process = Pid::from_raw(process.cast_signed());
        let thread = find(process, name).unwrap_or_else(|| panic!("no thread is called {name}"));
        ptrace::seize(thread, Options::empty()).expect("tracing a thread of the agent");
        ptrace::interrupt(thread).expect("stopping a thread of the agent");
        let flags = Some(WaitPidFlag::__WALL);
        let stopped = waitpid(thread, flags).expect("a thread that stops");
        assert!(
            matches!(stopped, WaitStatus::PtraceEvent(..)),
            "{stopped:?}"
        );
        Self {
            process,
            thread,
            gone: false,
            _here: PhantomData,
        }
    }

    /// Waits until it has ended with its process. Nobody else can wait for that process before.
    ///
    /// # Panics
    ///
    /// When that takes too long.
    pub fn wait_gone(mut self) {
        // The main thread is the process, which the caller waits for.
        if self.thread != self.process {
            let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
            until("a stopped thread ends with its process", || {
                let status = waitpid(self.thread, Some(flags));
                !matches!(status, Ok(WaitStatus::StillAlive))
            });
        }
        // Not before: nobody can wait for a killed process one of whose threads is traced.
        self.gone = true;
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        if !self.gone {
            // Fails only for one that has ended.
            let _ = ptrace::detach(self.thread, None);
        }
    }
}

fn find(process: Pid, name: &str) -> Option<Pid> {
    let tasks = Process::new(process.as_raw()).ok()?.tasks().ok()?;
    let named = tasks.flatten().filter(|task| {
        let stat = task.stat();
        stat.is_ok_and(|stat| stat.comm == name)
    });
    named.map(|task| task.tid).min().map(Pid::from_raw)
}
