//! Containers that a pod runs itself, as Docker in Docker does.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use serde_json::Value;

use super::{
    Client, Join, Pod,
    sandbox::{Network, Sandbox},
};
use crate::binary;

/// A container inside of a pod: in a cgroup below one of the pod's, and in a network namespace of
/// its own. Its first process is killed when this is dropped.
pub struct Nested<'a> {
    pod: &'a Pod,
    pause: Child,
    cgroup: PathBuf,
}

impl Pod {
    /// Starts a container inside of this pod, without any way out of its network.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn nested(&self) -> Nested<'_> {
        let cgroup = self.add_container().join("docker/0123abcd");
        fs::create_dir_all(&cgroup).unwrap_or_else(|why| panic!("cannot make {cgroup:?}: {why}"));
        let sandbox = Sandbox {
            network: Network::Own,
            loopback: true,
            ipv6: true,
            user_namespace: false,
        };
        Nested {
            pod: self,
            pause: sandbox.start(&cgroup),
            cgroup,
        }
    }

    /// The same with a link to the pod, whose address its connections get on their way out.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn nested_behind_nat(&self) -> Nested<'_> {
        let nested = self.nested();
        let pid = nested.pause.id();
        let in_pod = Join::nothing().network(&self.network());
        let in_nested = Join::nothing().network(&nested.network());
        let run = |join: &Join, script: &str| {
            let status = join.command("sh").args(["-ec", script]).status();
            assert!(
                status.is_ok_and(|status| status.success()),
                "failed: {script}"
            );
        };
        run(
            &in_pod,
            &format!(
                "ip link add docker0 type veth peer name eth0 netns {pid}
                ip address add 172.17.0.1/16 dev docker0
                ip link set docker0 up
                echo 1 > /proc/sys/net/ipv4/ip_forward
                nft add table ip docker
                nft add chain ip docker out '{{ type nat hook postrouting priority 100; }}'
                nft add rule ip docker out ip saddr 172.17.0.0/16 oifname != docker0 masquerade"
            ),
        );
        run(
            &in_nested,
            "ip address add 172.17.0.2/16 dev eth0
            ip link set eth0 up
            ip route add default via 172.17.0.1",
        );
        nested
    }
}

impl Nested<'_> {
    /// Its cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The file that stands for its network namespace.
    pub fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pause.id()).into()
    }

    /// A command in it, with the environment of its pod.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let join = Join::nothing()
            .cgroup(&self.cgroup)
            .network(&self.network());
        self.pod.with_env(join.command(program))
    }

    /// Runs `pod-client` with these arguments in it, and returns the last line that it printed.
    ///
    /// # Panics
    ///
    /// When it fails or prints nothing.
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Value {
        let mut command = self.command(binary::pod_client());
        command.args(arguments);
        let lines = Client::spawn(command).finish();
        lines
            .into_iter()
            .next_back()
            .expect("a line from pod-client")
    }
}

impl Drop for Nested<'_> {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.pause.kill();
        let _ = self.pause.wait();
    }
}
