//! A pod's sandbox: the namespaces, and the pause process that holds them.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use super::Join;

/// What a sandbox is like.
pub(super) struct Sandbox {
    pub(super) network: Network,
    /// Whether `lo` is up from the start.
    pub(super) loopback: bool,
    pub(super) ipv6: bool,
    /// Whether it has a user namespace of its own.
    pub(super) user_namespace: bool,
}

/// Whose network namespace a pod uses.
pub(super) enum Network {
    Own,
    Host,
    /// That of another pod, by its file.
    Of(PathBuf),
}

impl Sandbox {
    /// Starts the pause process in a new `cgroup`, and waits until it holds the namespaces.
    pub(super) fn start(&self, cgroup: &Path) -> Child {
        fs::create_dir_all(cgroup).unwrap_or_else(|why| panic!("cannot make {cgroup:?}: {why}"));
        let mut join = Join::nothing().cgroup(cgroup);
        if let Network::Of(file) = &self.network {
            join = join.network(file);
        }
        let mut command = join.start();
        command.arg("--announce");
        if self.user_namespace {
            command.arg("--new-user");
        }
        if matches!(self.network, Network::Own) {
            command.arg("--new-net");
            if !self.ipv6 {
                command.arg("--no-ipv6");
            }
            if self.loopback {
                command.arg("--loopback");
            }
        }
        command.args(["--", "sleep", "infinity"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a pause process");
        let stdout = child.stdout.take().expect("the pause process' output");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        if read.is_err() || line.is_empty() {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the pause process in {cgroup:?} did not start");
        }
        child
    }
}
