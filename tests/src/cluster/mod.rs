//! A Kubernetes node on this machine, with nothing simulated but AWS: etcd, API server,
//! controllers, scheduler, containerd and kubelet, in namespaces and cgroups of their own.
//!
//! ```text
//! machine                        node: network, mount, PID and cgroup namespaces
//! cluster up ── unshare ───────► cluster init, PID 1: starts the components, and restarts them
//! cluster run ── nsenter ──────► a shell, or the tests
//! cluster down ── SIGKILL ─────► init, and with it everything
//! ```
//!
//! - [`Host`]: the node from outside.
//! - [`init`]: its first process.
//! - [`aws`]: EKS Auth and the instance's metadata, as processes on the node.
//! - [`Api`]: the API server, for tests that run in the node.
//! - [`Associations`]: which service account has which role.
//! - [`Cluster`], [`Namespace`], [`PodSpec`], [`ClusterPod`]: what tests are written with.

pub mod addon;
pub mod agent;
mod api;
mod associations;
mod authority;
pub mod aws;
mod certificates;
mod command;
mod components;
mod config;
mod hierarchies;
mod host;
mod images;
pub mod init;
mod install;
mod layout;
mod machine;
mod network;
mod suite;
mod workload;

pub use api::{Api, ApiError};
pub use associations::Associations;
pub use host::Host;
pub use images::{BUSYBOX, MACHINE};
pub use layout::Layout;
pub use machine::Machine;
pub use network::EKS_AUTH;
pub use suite::{Cluster, Namespace, Solitude, Visit};
pub use workload::{ClusterPod, Container, PodSpec};
