//! A host's network: a namespace of its own, so that a test may have the host's addresses to itself.

use std::{fs::File, os::fd::AsRawFd, path::PathBuf, process, thread};

use nix::sched::{CloneFlags, setns, unshare};

use crate::pod::Join;

/// A network namespace. It is gone with its last process once this is dropped.
pub struct Network {
    file: File,
}

impl Network {
    /// One with nothing but `lo`, which is up.
    ///
    /// # Panics
    ///
    /// When it cannot be made; [`needs_privileges!`](crate::needs_privileges) comes first.
    #[expect(
        clippy::new_without_default,
        reason = "making a namespace is not a default value"
    )]
    pub fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
            File::open("/proc/thread-self/ns/net").expect("the new namespace's file")
        });
        let network = Self {
            file: made.join().expect("a thread for the namespace"),
        };
        network.ip("link set lo up");
        network
    }

    /// The file that stands for it, for as long as this lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd()).into()
    }

    /// What a process joins to be in it.
    pub fn join(&self) -> Join {
        Join::nothing().network(&self.path())
    }

    /// Does something in it, in a thread of its own. Threads that this starts are in it too.
    ///
    /// # Panics
    ///
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("into the namespace");
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).expect("work in the namespace")
    }

    /// Runs `ip` with these arguments in it, and returns what it prints.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn ip(&self, arguments: &str) -> String {
        let mut ip = self.join().command("ip");
        let output = ip.args(arguments.split_whitespace()).output();
        let output = output.expect("ip (package iproute2)");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
