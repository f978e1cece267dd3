//! podcreds in the cluster: its image, and the manifests that its users apply.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{api::Api, install, layout::Layout, network};
use crate::eks_auth::CLUSTER;

/// The namespace that it is in.
pub const NAMESPACE: &str = "kube-system";
/// The DaemonSet's name.
pub const NAME: &str = "podcreds";
/// The manifests, rendered from the chart with its default values.
const MANIFESTS: &str = "deploy/manifests/podcreds.yaml";
/// The image that they name, below a registry.
pub const PUBLISHED: &str = concat!("podcreds:", env!("CARGO_PKG_VERSION"));
/// The image that `cargo xtask cluster` has built.
pub const IMAGE: &str = "localhost/podcreds:test";

/// Installs it into the cluster that this process is in, and waits until it is ready for pods.
///
/// # Errors
///
/// kubectl's complaint, or what has happened to its pod.
pub fn install() -> Result<()> {
    let layout = &Layout::of_checkout()?;
    install::apply(layout, &manifests(layout)?)?;
    install::wait_daemon_set(&Api::of(layout), NAMESPACE, NAME)
}

/// What users have to fill in is filled in, and EKS Auth is the stand-in. All the rest is as they
/// apply it.
fn manifests(layout: &Layout) -> Result<String> {
    let path = layout.checkout().join(MANIFESTS);
    let mut text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let cluster = format!(
        "\"--cluster-name={CLUSTER}\"\n            - \"--endpoint=http://{}\"",
        network::EKS_AUTH
    );
    for (from, to) in [
        ("\"--cluster-name=CLUSTER_NAME\"", cluster.as_str()),
        (PUBLISHED, IMAGE),
    ] {
        ensure!(text.contains(from), "{MANIFESTS} has no {from}");
        text = text.replace(from, to);
    }
    Ok(text)
}

/// Whether the DaemonSet has all of its pods as they should be, and ready.
pub fn is_rolled_out(api: &Api) -> bool {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{NAME}");
    api.get(&path)
        .is_ok_and(|daemon_set| install::is_rolled_out(&daemon_set))
}

/// The path of the list of its pods.
pub fn pods_path() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/name={NAME}")
}
