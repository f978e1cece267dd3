//! What stands for the add-on eks-pod-identity-agent.

use super::network;
use crate::eks_auth;

const MANIFEST: &str = include_str!("manifests/addon.yaml");

/// What EKS installs.
pub fn manifest() -> String {
    MANIFEST
        .replace("CLUSTER", eks_auth::CLUSTER)
        .replace("EKS_AUTH", network::EKS_AUTH)
}
