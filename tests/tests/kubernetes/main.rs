//! podcreds on a real Kubernetes node: real kubelet, real containerd, real tokens. Only AWS is a
//! stand-in.
//!
//! `cargo xtask cluster test` starts the node, and these tests in it.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod changes;
mod clients;
mod doctor;
mod identity;
mod install;
mod load;
mod plugin;
mod races;
mod restarts;
mod shapes;
mod starts;
mod update;
