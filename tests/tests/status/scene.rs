//! A node whose agents can be asked.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use podcreds_tests::{aws::ACCOUNT as AWS_ACCOUNT, binary, shared_node::SharedNode};
use serde_json::Value;

/// A node whose agents can be asked in the folder in which they meet.
pub(crate) struct Scene(SharedNode);

impl Deref for Scene {
    type Target = SharedNode;

    fn deref(&self) -> &SharedNode {
        &self.0
    }
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self(SharedNode::new())
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

    /// What there is to say about the node.
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ask(&["status", "-o", "json"])).unwrap()
    }

    /// What each of its agents says.
    pub(crate) fn agents(&self) -> Vec<Value> {
        self.status()["agents"].as_array().unwrap().clone()
    }

    /// The pods of the first one.
    pub(crate) fn pods(&self) -> Vec<Value> {
        self.agents()[0]["pods"].as_array().unwrap().clone()
    }

    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let is_admin = |path: &PathBuf| path.to_str().unwrap().contains("/admin-");
        paths.filter(is_admin).collect()
    }
}

pub(crate) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::podcreds());
    command.args(arguments).arg("--admin-dir").arg(folder);
    command
}

pub(crate) fn assumed(role: &str) -> String {
    format!("arn:aws:sts::{AWS_ACCOUNT}:assumed-role/{role}")
}

pub(crate) fn field<'a>(pod: &'a Value, name: &str) -> &'a str {
    pod[name].as_str().unwrap_or_default()
}
