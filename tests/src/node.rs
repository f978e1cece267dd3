//! A simulated node: a cgroup of its own, below which kubelet's cgroups of its pods live.
//!
//! Every test has one, and its agent looks for pods below it only (`--cgroup-root`), so tests run
//! side by side on one kernel.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    network::HostNetwork,
    pod::{Join, PodBuilder, cgroup},
    run,
};

/// A simulated node. Whatever runs and exists below its cgroup goes when it is dropped.
pub struct Node {
    cgroup: PathBuf,
    network: Option<HostNetwork>,
}

impl Node {
    /// Makes a node without pods.
    ///
    /// # Panics
    ///
    /// When the cgroup cannot be made; [`needs_privileges!`](crate::needs_privileges) comes first.
    #[expect(
        clippy::new_without_default,
        reason = "making a cgroup is not a default value"
    )]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mount = cgroup::mount_point().expect("a cgroup2 mount");
        let run = run::current().name();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = mount.join(format!("{run}.{number}"));
        fs::create_dir(&cgroup).unwrap_or_else(|why| panic!("cannot make {cgroup:?}: {why}"));
        Self {
            cgroup,
            network: None,
        }
    }

    /// A node with a network of its own, in which pods reach the host: it has the addresses at
    /// which SDKs look for credentials.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn with_network() -> Self {
        let mut network = HostNetwork::new();
        if !network.has_dummies() {
            network = HostNetwork::with_link();
        }
        network.initialize();
        let mut node = Self::new();
        node.network = Some(network);
        node
    }

    /// Its network, where that is not the one that the tests run in.
    pub fn network(&self) -> Option<&HostNetwork> {
        self.network.as_ref()
    }

    /// What a process joins to be in its network.
    pub fn join(&self) -> Join {
        self.network
            .as_ref()
            .map_or_else(Join::nothing, HostNetwork::join)
    }

    /// Does something in its network. Threads that this starts stay in it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.network {
            Some(network) => network.enter(work),
            None => work(),
        }
    }

    /// The agent's `--cgroup-root`.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A new pod on this node, in namespace `default` with service account `default` unless the
    /// builder says otherwise.
    pub fn pod(&self, name: &str) -> PodBuilder {
        PodBuilder::new(&self.cgroup, self.network.clone(), name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        cgroup::remove_tree(&self.cgroup);
    }
}
