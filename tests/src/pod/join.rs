//! How a process gets into a pod, or into parts of several.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{binary, run};

/// The cgroup and the namespaces that a command is to run in. Whatever is not set stays as the test
/// process has it.
///
/// `pod-client join` does the joining and then becomes the command, so the process ID is the
/// command's from the start.
#[derive(Clone, Debug, Default)]
pub struct Join {
    cgroup: Option<PathBuf>,
    network: Option<PathBuf>,
    user: Option<PathBuf>,
}

impl Join {
    /// Joins nothing.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Runs in this cgroup. It is joined first, as container runtimes do.
    #[must_use]
    pub fn cgroup(mut self, cgroup: &Path) -> Self {
        self.cgroup = Some(cgroup.to_owned());
        self
    }

    /// Runs in this network namespace, given as a file such as `/proc/PID/ns/net`.
    #[must_use]
    pub fn network(mut self, file: &Path) -> Self {
        self.network = Some(file.to_owned());
        self
    }

    /// Stays in the host's network namespace.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.network = None;
        self
    }

    /// Runs in this user namespace, given as a file such as `/proc/PID/ns/user`.
    #[must_use]
    pub fn user(mut self, file: &Path) -> Self {
        self.user = Some(file.to_owned());
        self
    }

    /// Runs `program` there; its arguments are added to what this returns.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.start();
        command.arg("--").arg(program);
        command
    }

    /// The joining part, to which further options of `pod-client join` can be added.
    pub(super) fn start(&self) -> Command {
        let mut command = Command::new(binary::pod_client());
        command
            .arg("join")
            .env(run::VARIABLE, run::current().name().to_string());
        let options = [
            ("--cgroup", &self.cgroup),
            ("--net", &self.network),
            ("--user", &self.user),
        ];
        for (option, path) in options {
            if let Some(path) = path {
                command.arg(option).arg(path);
            }
        }
        command
    }
}
