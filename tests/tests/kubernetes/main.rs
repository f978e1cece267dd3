//! podcreds on a real Kubernetes node: real kubelet, real containerd, real tokens. Only AWS is a stand-in.
//!
//! `cargo xtask cluster test` starts the node, and these tests in it.

mod clients;
