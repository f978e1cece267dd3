//! What the integration tests, `cargo xtask demo` and `cargo xtask load` stand on: stand-ins for
//! AWS and simulated pods, on the real kernel. Nothing here knows the agent's code: it runs the
//! binary.
//!
//! - [`between`]: proxies and TLS, between the agent and the stand-ins.
//! - [`dns`]: a slow DNS server.
//! - [`cluster`]: a real Kubernetes node on this machine.
//! - [`token`]: an issuer that signs service-account tokens as the API server does.
//! - [`aws`]: the node's own AWS credentials, and how issued credentials tell whose they are.
//! - [`associations`]: which service account has which role, for both stand-ins of EKS.
//! - [`eks`]: the EKS API, as far as associations go.
//! - [`eks_auth`]: EKS Auth, which checks everything it is sent and fails on demand.
//! - [`imds`]: the node's instance metadata service (v2).
//! - [`jwks`]: the keys with which the cluster signs tokens.
//! - [`moto`]: IAM, STS and S3, which allow what policies allow.
//! - [`network`]: a network namespace that stands for a host's.
//! - [`node`]: one simulated node: a cgroup of its own, below which its pods live.
//! - [`pod`]: a pod with a real network namespace, real cgroups and real processes.
//! - [`agent`]: the podcreds binary, its logs and its metrics.
//! - [`privileged`]: what a test needs from the machine, and what happens where it is missing.
//! - [`run`]: one process of tests, demo or load, and who removes what it leaves when it is killed.
//! - [`iam`]: the roles of IAM.
//! - [`scenario`]: all of these together, as most tests want them.
//! - [`shared_node`]: a node on which agents follow each other.
//! - [`sdk`]: unmodified AWS SDKs.
//! - [`soak`]: a long run in which everything changes at once, while each answer is checked.
//! - [`chart`]: the Helm chart, as it is rendered.
//! - [`dashboards`]: the dashboards for Grafana.
//! - [`prometheus`]: Prometheus and promtool.
//! - [`guide`]: the commands that a guide in `docs` shows.
//! - [`http`]: the small HTTP server and client below all of these.
//! - [`walkthrough`]: an application that lists a bucket, and whose role comes and goes.
//! - [`wire`]: requests written by hand, sent from inside a pod.
//! - [`wait`]: polling with a deadline.
//! - [`binary`]: finding the binaries of this workspace.
//! - [`program`]: programs that a test makes, and then starts.
//! - [`checkout`]: finding the checkout.
//!
//! What runs inside the simulated pods is the `pod-client` binary of this crate.
//!
//! A helper that cannot go on panics with what it was doing: to a test that is a failure with a
//! reason. Clean-up never panics.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that cannot go on fails the test that called it"
)]

pub mod agent;
pub mod associations;
pub mod aws;
pub mod between;
pub mod binary;
pub mod chart;
pub mod checkout;
pub mod cluster;
pub mod dashboards;
pub mod dns;
pub mod eks;
pub mod eks_auth;
pub mod guide;
pub mod http;
pub mod iam;
pub mod imds;
pub mod jwks;
pub mod moto;
pub mod network;
pub mod node;
pub mod pod;
pub mod privileged;
pub mod program;
pub mod prometheus;
pub mod run;
pub mod scenario;
pub mod sdk;
pub mod shared_node;
mod signature;
pub mod soak;
pub mod token;
pub mod wait;
pub mod walkthrough;
pub mod wire;

pub use podcreds_report::table;
