//! Another agent that speaks the protocol, to be measured beside podcreds.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podcreds_tests::{
    aws::{NodeCredentials, REGION},
    eks_auth::{CLUSTER, EksAuth},
    node::Node,
    pod::Pod,
    wait::{DEADLINE, poll},
};

/// A running agent on the host, and a pod in the host's network that it serves. It is stopped when
/// this is dropped.
pub(crate) struct Other {
    process: Child,
    pod: Pod,
    address: String,
    // Ends what runs below it, so it goes after the pod.
    _node: Node,
}

impl Other {
    /// Runs a shell command, and waits until the agent gives credentials at this address.
    ///
    /// The command finds the name of the cluster in `CLUSTER` and EKS Auth's address in
    /// `EKS_AUTH`, and the node's region and credentials where every SDK looks.
    ///
    /// # Errors
    ///
    /// When it ends, or gives no credentials in time.
    pub(crate) fn start(command: &str, address: SocketAddr, eks_auth: &EksAuth) -> Result<Self> {
        let node = Node::new();
        let pod = node.pod("load").host_network().start();
        // It becomes the agent, whose processor time is measured, and ends with this process.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .args(["sh", "-c", &format!("exec {command}")])
            .env("CLUSTER", CLUSTER)
            .env("EKS_AUTH", eks_auth.url())
            .env("AWS_REGION", REGION)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(NodeCredentials::default().env())
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start a shell")?;
        let mut other = Self {
            process,
            pod,
            address: address.to_string(),
            _node: node,
        };
        let outcome = poll(DEADLINE, || match other.process.try_wait() {
            Ok(None) => other.serves().then_some(None),
            ended => Some(Some(ended)),
        });
        match outcome {
            Some(None) => Ok(other),
            Some(Some(ended)) => bail!("`{command}` has ended: {:?}", ended.ok().flatten()),
            None => bail!("`{command}` gives no credentials at {address}"),
        }
    }

    /// From where it is asked.
    pub(crate) fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Where it is asked.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The process that does the work.
    pub(crate) fn process(&self) -> u32 {
        self.process.id()
    }

    fn serves(&self) -> bool {
        let answer = self.pod.run(["get", "--dst", &self.address]);
        answer["body"]["AccessKeyId"].is_string()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let process = Pid::from_raw(self.process.id().cast_signed());
        // Both fail only for a process that has ended and been waited for.
        let _ = kill(process, Signal::SIGTERM);
        if poll(DEADLINE, || self.process.try_wait().ok().flatten()).is_none() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}
