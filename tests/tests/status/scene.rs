//! A node whose agents can be asked.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use podcreds_tests::{
    agent::{Agent, AgentBuilder},
    aws::ACCOUNT as AWS_ACCOUNT,
    binary,
    eks_auth::EksAuth,
    node::Node,
    pod::Pod,
    scenario::{ACCOUNT, ROLE, wait_served},
};
use serde_json::Value;
use tempfile::TempDir;

/// A node whose agents have a folder in which they meet, and where operators ask.
pub(crate) struct Scene {
    pub(crate) node: Node,
    pub(crate) eks_auth: EksAuth,
    pub(crate) folder: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let eks_auth = EksAuth::start();
        eks_auth.associate(ACCOUNT.0, ACCOUNT.1, ROLE);
        Self {
            node: Node::new(),
            eks_auth,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn folder(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    pub(crate) fn agent(&self) -> AgentBuilder {
        Agent::on(&self.node, &self.eks_auth).set("--handover-dir", self.folder())
    }

    pub(crate) fn served_pod(&self, name: &str) -> Pod {
        let pod = self.node.pod(name).account(ACCOUNT.0, ACCOUNT.1).start();
        wait_served(&pod, []);
        pod
    }

    /// Runs a command that asks the agents.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        command(self.folder(), arguments).output().unwrap()
    }

    /// What a command prints that succeeds.
    #[track_caller]
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The status of all agents.
    pub(crate) fn status(&self) -> Vec<Value> {
        let text = self.ask(&["status", "-o", "json"]);
        let mut status: Value = serde_json::from_str(&text).unwrap();
        match status["agents"].take() {
            Value::Array(agents) => agents,
            other => vec![other],
        }
    }

    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let is_admin = |path: &PathBuf| path.to_str().unwrap().contains("/admin-");
        paths.filter(is_admin).collect()
    }
}

pub(crate) fn command(folder: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::podcreds());
    command.args(arguments).args(["--admin-dir", folder]);
    command
}

pub(crate) fn assumed(role: &str) -> String {
    format!("arn:aws:sts::{AWS_ACCOUNT}:assumed-role/{role}")
}

pub(crate) fn field<'a>(pod: &'a Value, name: &str) -> &'a str {
    pod[name].as_str().unwrap_or_default()
}
