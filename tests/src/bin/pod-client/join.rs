//! Gets a process into cgroups and namespaces, the way a container runtime does: the cgroup first.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::json;

#[derive(clap::Args)]
pub(crate) struct Join {
    /// The folder of the cgroup to join.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// The network namespace to join, such as /proc/PID/ns/net.
    #[arg(long, conflicts_with = "new_net")]
    net: Option<PathBuf>,
    /// The user namespace to join, such as /proc/PID/ns/user.
    #[arg(long, conflicts_with = "new_user")]
    user: Option<PathBuf>,
    /// Makes a user namespace, in which root is root.
    #[arg(long)]
    new_user: bool,
    /// Makes a network namespace.
    #[arg(long)]
    new_net: bool,
    /// Switches IPv6 off in the network namespace.
    #[arg(long)]
    no_ipv6: bool,
    /// Brings lo up in the network namespace.
    #[arg(long)]
    loopback: bool,
    /// Prints a line once everything is joined.
    #[arg(long)]
    announce: bool,
    /// What to become.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Join {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            join_cgroup(cgroup)?;
        }
        // Joining takes the privileges that this process has now, making takes those that it gets.
        if let Some(file) = &self.net {
            enter(file, CloneFlags::CLONE_NEWNET)?;
        }
        if let Some(file) = &self.user {
            enter(file, CloneFlags::CLONE_NEWUSER)?;
        }
        if self.new_user {
            make_user_namespace()?;
        }
        if self.new_net {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
        }
        if self.no_ipv6 {
            disable_ipv6()?;
        }
        if self.loopback {
            raise_loopback()?;
        }
        if self.announce {
            crate::print(&json!({ "joined": true }))?;
        }
        let (program, arguments) = self.command.split_first().context("no command")?;
        let failed = Command::new(program).args(arguments).exec();
        Err(failed).with_context(|| format!("running {}", program.display()))
    }
}

/// Moves this process into a cgroup.
pub(crate) fn join_cgroup(cgroup: &std::path::Path) -> anyhow::Result<()> {
    let file = cgroup.join("cgroup.procs");
    fs::write(&file, "0").with_context(|| format!("joining {}", cgroup.display()))
}

fn enter(file: &PathBuf, kind: CloneFlags) -> anyhow::Result<()> {
    let shown = file.display();
    let file = File::open(file).with_context(|| format!("opening {shown}"))?;
    setns(&file, kind).with_context(|| format!("joining {shown}"))
}

fn make_user_namespace() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).context("making a user namespace")?;
    // A namespace whose maker is no longer privileged outside must give setgroups up first.
    for (file, content) in [
        ("setgroups", "deny"),
        ("gid_map", "0 0 1"),
        ("uid_map", "0 0 1"),
    ] {
        let path = format!("/proc/self/{file}");
        fs::write(&path, content).with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}

fn disable_ipv6() -> anyhow::Result<()> {
    for interface in ["all", "default", "lo"] {
        let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
        fs::write(&path, "1").with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}

fn raise_loopback() -> anyhow::Result<()> {
    let ip = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    let status = ip.context("running ip (package iproute2)")?;
    ensure!(status.success(), "ip link set lo up failed");
    Ok(())
}
