//! podcreds: a node agent for Amazon EKS Pod Identity.
//!
//! The folders are the stages of a request, in the order in which it meets them:
//! [`datapath`] -> [`identity`] -> [`server`] -> [`credentials`] -> [`upstream`]. A stage knows the
//! stages to its right and the plain values in [`types`]; only [`app`] knows them all. What is not a
//! stage of a request (probes, metrics, logs, draining) is in [`ops`], and what agents that follow each
//! other have to say to each other is in [`handover`].
//!
//! `docs/architecture.md` tells the road of a request and the invariants behind it.

pub mod app;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod datapath;
pub mod handover;
pub mod identity;
pub mod initialize;
pub mod ops;
pub mod server;
pub mod types;
pub mod upstream;
