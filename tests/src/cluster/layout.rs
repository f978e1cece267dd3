//! Where the cluster keeps its files, and where its programs are.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::checkout;

/// The folders of one checkout's cluster.
///
/// Certificates, configuration and logs are on disk and stay for a look. What the components write
/// is in memory, in a mount that only the node sees, and gone with it.
#[derive(Clone, Debug)]
pub struct Layout {
    checkout: PathBuf,
}

impl Layout {
    /// That of [the checkout](checkout::root).
    ///
    /// # Errors
    ///
    /// When there is none, or the folders cannot be made.
    pub fn of_checkout() -> Result<Self> {
        let checkout = checkout::root().context("this program is in no checkout of podcreds")?;
        let layout = Self {
            checkout: checkout.canonicalize().context("the checkout's path")?,
        };
        for folder in [
            layout.certificates(),
            layout.config().join("cni"),
            layout.images(),
            layout.logs(),
            layout.run(),
        ] {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(layout)
    }

    /// The root of the checkout.
    pub fn checkout(&self) -> &Path {
        &self.checkout
    }

    /// Cargo's folder.
    pub fn target(&self) -> PathBuf {
        self.checkout.join("target")
    }

    /// Where all of the cluster's files are.
    pub fn folder(&self) -> PathBuf {
        self.target().join("cluster")
    }

    /// Keys, certificates, and kubeconfigs that name them.
    pub fn certificates(&self) -> PathBuf {
        self.folder().join("certificates")
    }

    /// The components' configuration files.
    pub fn config(&self) -> PathBuf {
        self.folder().join("config")
    }

    /// Archives of container images.
    pub fn images(&self) -> PathBuf {
        self.folder().join("images")
    }

    /// One log for each component.
    pub fn logs(&self) -> PathBuf {
        self.folder().join("log")
    }

    /// What the components write; inside of the node only.
    pub fn run(&self) -> PathBuf {
        self.folder().join("run")
    }

    /// A socket that speaks plain HTTP to the API server, with all rights.
    pub fn api_socket(&self) -> PathBuf {
        self.run().join("api.sock")
    }

    /// The process ID of the node's init.
    pub fn node_pid(&self) -> PathBuf {
        self.folder().join("node.pid")
    }

    /// A component's process ID, as processes of the node see it.
    pub fn component_pid(&self, component: &str) -> PathBuf {
        self.run().join(format!("{component}.pid"))
    }

    /// A user's kubeconfig.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.certificates().join(format!("{user}.kubeconfig"))
    }

    /// Where `cargo xtask setup` puts things.
    pub fn tools(&self) -> PathBuf {
        // The agent's own folder may be a link to one that several checkouts share.
        let tools = self.target().join("tools");
        tools.canonicalize().unwrap_or(tools)
    }

    /// Kubernetes, container runtime and network plugins.
    pub fn kubernetes(&self) -> PathBuf {
        self.tools().join("kubernetes")
    }

    /// A version of Helm, such as `3`.
    pub fn helm(&self, major: &str) -> PathBuf {
        self.tools().join("helm").join(major).join("helm")
    }

    /// The path on which the components find each other.
    pub fn path(&self) -> OsString {
        let kubernetes = self.kubernetes();
        let own = ["bin", "usr/bin", "usr/sbin"].map(|folder| kubernetes.join(folder));
        let path = env::var_os("PATH").unwrap_or_default();
        let all = own.into_iter().chain(env::split_paths(&path));
        let all = all.chain(["/usr/sbin".into(), "/sbin".into()]);
        env::join_paths(all).unwrap_or(path)
    }
}
