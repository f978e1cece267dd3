//! How the agent is started.

use std::{collections::HashMap, env, ffi::OsStr, fs, path::PathBuf, process::Stdio};

use super::{Agent, Logs};
use crate::{
    aws::{NodeCredentials, REGION},
    binary,
    eks_auth::{CLUSTER, EksAuth},
    imds::Imds,
    network::HostNetwork,
    node::Node,
    pod::Join,
    run,
};

/// Collects the agent's arguments and environment.
pub struct AgentBuilder {
    wrapper: Vec<String>,
    binary: Option<PathBuf>,
    arguments: Vec<String>,
    environment: HashMap<String, String>,
    cgroup: Option<PathBuf>,
    network: Option<HostNetwork>,
}

impl AgentBuilder {
    pub(super) fn on_node(node: &Node, eks_auth: &EksAuth) -> Self {
        let root = node.cgroup().display().to_string();
        let mut builder = Self::new(eks_auth).args(["--cgroup-root", &root, "--datapath", "ebpf"]);
        // So that it ends with the node, even when the test is killed before it can clean up.
        builder.cgroup = Some(node.cgroup().join("agent"));
        builder.network = node.network().cloned();
        builder
    }

    pub(super) fn on_loopback(eks_auth: &EksAuth) -> Self {
        Self::new(eks_auth).args([
            "--datapath",
            "node",
            "--bind-hosts",
            "127.0.0.1",
            "--port",
            "0",
        ])
    }

    fn new(eks_auth: &EksAuth) -> Self {
        let arguments = [
            "server",
            "--cluster-name",
            CLUSTER,
            "--endpoint",
            &eks_auth.url(),
            "--metrics-address",
            "127.0.0.1",
            "--metrics-port",
            "0",
            "--probe-port",
            "0",
            // Agents of other tests are none of its business.
            "--handover-dir",
            "none",
            "--log-format",
            "json",
        ];
        let builder = Self {
            wrapper: Vec::new(),
            binary: None,
            arguments: arguments.map(str::to_owned).to_vec(),
            environment: HashMap::new(),
            cgroup: None,
            network: None,
        };
        builder
            .env("AWS_REGION", REGION)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .signer(&NodeCredentials::default())
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Gives a flag a value, in place of the one that it may have.
    #[must_use]
    pub fn set(self, flag: &str, value: &str) -> Self {
        self.unset(flag).args([flag, value])
    }

    /// Takes a flag and its value away, so that the default holds.
    #[must_use]
    pub fn unset(mut self, flag: &str) -> Self {
        if let Some(at) = self.arguments.iter().position(|held| held == flag) {
            self.arguments.drain(at..(at + 2).min(self.arguments.len()));
        }
        self
    }

    /// Runs another build of it.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Has another command start it, which must become the agent in the end: `setpriv`, for one.
    #[must_use]
    pub fn through<'a>(mut self, command: impl IntoIterator<Item = &'a str>) -> Self {
        self.wrapper.extend(command.into_iter().map(str::to_owned));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Has it sign its calls with these credentials.
    #[must_use]
    pub fn signer(mut self, credentials: &NodeCredentials) -> Self {
        let variables = credentials.env().into_iter();
        self.environment
            .extend(variables.map(|(name, value)| (name.to_owned(), value)));
        self
    }

    /// Takes an environment variable away.
    #[must_use]
    pub fn env_remove(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Has it ask `imds` for region and credentials, with neither in its environment.
    #[must_use]
    pub fn node_from(mut self, imds: &Imds) -> Self {
        self.environment.retain(|name, _| !name.starts_with("AWS_"));
        self.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds.url())
    }

    /// Starts it, and waits until it is ready for pods.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn start(self) -> Agent {
        let agent = self.spawn();
        agent.wait_ready();
        agent
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// When the binary cannot be run.
    pub fn spawn(self) -> Agent {
        let mut join = Join::nothing();
        if let Some(cgroup) = &self.cgroup {
            fs::create_dir_all(cgroup).expect("a cgroup for the agent");
            join = join.cgroup(cgroup);
        }
        if let Some(network) = &self.network {
            join = join.network(&network.path());
        }
        let agent = self.binary.unwrap_or_else(binary::podcreds);
        let wrapper = self.wrapper.iter().map(OsStr::new);
        let mut words = wrapper.chain([agent.as_os_str()]);
        let mut command = join.command(words.next().unwrap_or_default());
        command
            .args(words)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("RUST_BACKTRACE", "1")
            .env(run::VARIABLE, run::current().name().to_string())
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the podcreds binary");
        let stderr = child.stderr.take().expect("the agent's stderr");
        Agent {
            child,
            logs: Logs::collect(stderr),
            network: self.network,
        }
    }
}
