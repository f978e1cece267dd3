//! Simulated pods: real network namespaces, cgroups and processes, and a token on disk, without a
//! kubelet or a container runtime.
//!
//! A pod has two containers from the start: the sandbox, with the pause process that holds the
//! namespaces, and an app container, in whose cgroup [`Pod::command`] runs things.

mod builder;
pub mod cgroup;
mod client;
pub(crate) mod filter;
mod join;
mod names;
mod nested;
mod sandbox;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command},
};

pub use builder::PodBuilder;
pub use client::Client;
pub use join::Join;
pub use names::{Driver, Qos};
pub use nested::Nested;
use sandbox::{Network, Sandbox};
use serde_json::Value;
use tempfile::TempDir;

use crate::{aws::REGION, binary, sdk, token::Claims};

/// Where pods find their credentials.
pub const URI: &str = "http://169.254.170.23/v1/credentials";

/// Where pods of IPv6 clusters find them.
pub const URI_IPV6: &str = "http://[fd00:ec2::23]/v1/credentials";

/// A running pod. Its processes are killed and its cgroups removed when it is dropped.
pub struct Pod {
    claims: Claims,
    driver: Driver,
    folder: TempDir,
    cgroup: PathBuf,
    app: PathBuf,
    sandbox: Sandbox,
    /// The pause process, and the cgroup of its container.
    pause: Option<(Child, PathBuf)>,
}

impl Pod {
    /// What its token says about it, for making other tokens from.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.claims
            .kubernetes
            .pod
            .as_ref()
            .map_or("", |pod| &pod.name)
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        self.claims.pod_uid()
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The cgroup of its app container, where commands run.
    pub fn app_cgroup(&self) -> &Path {
        &self.app
    }

    /// Adds a container, and returns its cgroup.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn add_container(&self) -> PathBuf {
        let container = names::container(self.driver, &self.cgroup);
        fs::create_dir(&container).unwrap_or_else(|why| panic!("cannot make {container:?}: {why}"));
        container
    }

    /// The process ID of its pause process.
    ///
    /// # Panics
    ///
    /// When that has been killed.
    pub fn pause_pid(&self) -> u32 {
        self.pause.as_ref().expect("a pause process").0.id()
    }

    /// The file that stands for its network namespace.
    pub fn network(&self) -> PathBuf {
        self.namespace_file("net")
    }

    fn namespace_file(&self, kind: &str) -> PathBuf {
        format!("/proc/{}/ns/{kind}", self.pause_pid()).into()
    }

    /// Its IPv4 address, where its node has a network.
    ///
    /// # Panics
    ///
    /// When it has none.
    pub fn address(&self) -> Ipv4Addr {
        let mut command = Join::nothing().network(&self.network()).command("ip");
        let output = command.args(["-json", "-4", "address", "show", "dev", "eth0"]);
        let output = output.output().expect("ip (package iproute2)").stdout;
        let links: Value = serde_json::from_slice(&output).unwrap_or_default();
        let address = links[0]["addr_info"][0]["local"].as_str();
        let address = address.and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("pod {} has no address", self.name()))
    }

    /// What a process joins to be one of this pod's.
    pub fn join(&self) -> Join {
        let mut join = Join::nothing().cgroup(&self.app);
        if self.sandbox.user_namespace {
            join = join.user(&self.namespace_file("user"));
        }
        if !matches!(self.sandbox.network, Network::Host) {
            join = join.network(&self.network());
        }
        join
    }

    /// A command in this pod's app container, with the environment that EKS gives to pods.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.with_env(self.join().command(program))
    }

    /// Gives a command the environment that EKS' webhook gives to this pod, and none of the
    /// developer's own settings.
    pub fn with_env(&self, mut command: Command) -> Command {
        sdk::remove_settings(&mut command)
            .env("HOME", self.folder.path())
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_STS_REGIONAL_ENDPOINTS", "regional")
            .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", URI)
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", self.token_file());
        command
    }

    /// `pod-client` with these arguments, in this pod's app container.
    pub fn client<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.command(binary::pod_client());
        command.args(arguments);
        command
    }

    /// Starts `pod-client` with these arguments in this pod.
    pub fn spawn<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Client {
        Client::spawn(self.client(arguments))
    }

    /// Runs `pod-client` with these arguments in this pod, and returns the last line that it
    /// printed.
    ///
    /// # Panics
    ///
    /// When it fails or prints nothing.
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Value {
        let lines = self.spawn(arguments).finish();
        lines
            .into_iter()
            .next_back()
            .expect("a line from pod-client")
    }

    /// The file that holds its token.
    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("eks-pod-identity-token")
    }

    /// The token in that file.
    ///
    /// # Panics
    ///
    /// When the file is gone.
    pub fn token(&self) -> String {
        fs::read_to_string(self.token_file()).expect("the pod's token")
    }

    /// Puts another token into the file, at once, as the kubelet does when it rotates.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn write_token(&self, token: &str) {
        let next = self.folder.path().join("next-token");
        fs::write(&next, token).expect("a new token file");
        fs::rename(&next, self.token_file()).expect("the new token file in its place");
    }

    /// Brings `lo` up in its network namespace.
    pub fn raise_loopback(&self) {
        self.configure("--loopback");
    }

    /// Switches IPv6 off in its network namespace.
    pub fn disable_ipv6(&self) {
        self.configure("--no-ipv6");
    }

    fn configure(&self, option: &str) {
        let mut command = self.join().start();
        command.args([option, "--", "true"]);
        let status = command.status().expect("pod-client join");
        assert!(status.success(), "{option} failed in pod {}", self.name());
    }

    /// Kills the pause process, and removes its container: once nothing else runs in the pod, its
    /// namespaces are gone.
    pub fn kill_pause(&mut self) {
        if let Some((mut pause, container)) = self.pause.take() {
            let _ = pause.kill();
            let _ = pause.wait();
            cgroup::remove_tree(&container);
        }
    }

    /// Makes the sandbox again, as the kubelet does when the pause process has died: other
    /// namespaces, and another container. What still runs in the pod stays in the old ones.
    ///
    /// # Panics
    ///
    /// When something of that cannot be made.
    pub fn restart_pause(&mut self) {
        self.kill_pause();
        let container = names::container(self.driver, &self.cgroup);
        let pause = self.sandbox.start(&container);
        self.pause = Some((pause, container));
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        cgroup::remove_tree(&self.cgroup);
        self.kill_pause();
    }
}
