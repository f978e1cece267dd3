//! A socket that is made by one process and used by another, elsewhere.

use std::{env, ffi::OsString, net::SocketAddr, os::fd::OwnedFd, path::PathBuf, process::Command};

use anyhow::ensure;

use crate::socket::{CREDENTIALS, SocketOptions};

#[derive(clap::Args)]
pub(crate) struct PassSocket {
    /// The cgroup of the process that gets the socket.
    #[arg(long)]
    to_cgroup: PathBuf,
    /// Connects it here, before it is passed on.
    #[arg(long)]
    connect: bool,
    /// Where it is to be connected to.
    #[arg(long, default_value = CREDENTIALS)]
    dst: SocketAddr,
    #[command(flatten)]
    socket: SocketOptions,
    /// Further arguments of `pod-client get`.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl PassSocket {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let socket = self.socket.make(self.dst)?;
        if self.connect {
            self.socket.connect(&socket, self.dst)?;
        }
        let this = env::current_exe()?;
        let mut command = Command::new(&this);
        command
            .arg("join")
            .arg("--cgroup")
            .arg(&self.to_cgroup)
            .arg("--")
            .arg(&this);
        command.args(["get", "--socket-on-stdin"]);
        if self.connect {
            command.arg("--connected");
        }
        let status = command
            .args(["--dst", &self.dst.to_string()])
            .args(&self.arguments)
            .stdin(OwnedFd::from(socket))
            .status()?;
        ensure!(status.success(), "the other process failed: {status}");
        Ok(())
    }
}
