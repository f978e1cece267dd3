//! A node on which agents follow each other.

use std::path::Path;

use tempfile::TempDir;

use crate::{
    agent::{Agent, AgentBuilder},
    eks_auth::EksAuth,
    node::Node,
    pod::{Pod, PodBuilder},
    scenario::{ACCOUNT, ROLE, wait_served},
};

/// A node, EKS Auth, and a folder in which the node's agents meet.
pub struct SharedNode {
    /// The node.
    pub node: Node,
    /// Where its agents get credentials.
    pub eks_auth: EksAuth,
    folder: TempDir,
}

impl SharedNode {
    /// One without an agent, with a role for its pods.
    ///
    /// # Panics
    ///
    /// When there can be none.
    #[expect(
        clippy::new_without_default,
        reason = "it makes namespaces and starts servers"
    )]
    pub fn new() -> Self {
        let eks_auth = EksAuth::start();
        eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
        Self {
            node: Node::new(),
            eks_auth,
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// The folder in which agents meet.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An agent that meets the others there.
    pub fn agent(&self) -> AgentBuilder {
        self.with_folder(Agent::on(&self.node, &self.eks_auth))
    }

    /// Has an agent meet the others there.
    pub fn with_folder(&self, agent: AgentBuilder) -> AgentBuilder {
        agent.set("--handover-dir", &self.folder().to_string_lossy())
    }

    /// A pod that has its credentials.
    pub fn served_pod(&self, name: &str) -> Pod {
        self.serve(self.node.pod(name))
    }

    /// Starts a pod with the usual service account, and waits until it has its credentials.
    pub fn serve(&self, pod: PodBuilder) -> Pod {
        let pod = pod.account(ACCOUNT.0, ACCOUNT.1).start();
        wait_served(&pod, []);
        pod
    }
}
