//! podcreds in the cluster: a DaemonSet.

use std::env;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{api::Api, images::MACHINE, install, layout::Layout, machine::Machine, network};
use crate::eks_auth::CLUSTER;

/// The namespace that it is in.
pub const NAMESPACE: &str = "kube-system";
/// The DaemonSet's name.
pub const NAME: &str = "podcreds";

/// Installs it into the cluster that this process is in, and waits until it is ready for pods.
///
/// # Errors
///
/// kubectl's complaint, or what has happened to its pod.
pub fn install() -> Result<()> {
    let layout = &Layout::of_checkout()?;
    let own = env::current_exe().context("the path of this program")?;
    let program = own.with_file_name("podcreds").display().to_string();
    let manifest = daemon_set(&program, &Machine::of(layout));
    install::apply(layout, &manifest.to_string())?;
    install::wait_daemon_set(&Api::of(layout), NAMESPACE, NAME)
}

fn daemon_set(program: &str, machine: &Machine) -> Value {
    let probe = |path: &str| {
        json!({
            "httpGet": { "host": "127.0.0.1", "path": path, "port": 2703 },
            "periodSeconds": 1,
        })
    };
    let endpoint = format!("http://{}", network::EKS_AUTH);
    let mut mounts = machine.mounts();
    let mut volumes = machine.volumes();
    mounts.push(json!({ "name": "cgroup", "mountPath": "/sys/fs/cgroup" }));
    volumes.push(json!({ "name": "cgroup", "hostPath": { "path": "/sys/fs/cgroup" } }));
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "spec": {
            "selector": { "matchLabels": { "app": NAME } },
            "template": {
                "metadata": { "labels": { "app": NAME } },
                "spec": {
                    "hostNetwork": true,
                    "hostPID": true,
                    "priorityClassName": "system-node-critical",
                    "tolerations": [{ "operator": "Exists" }],
                    "volumes": volumes,
                    "containers": [{
                        "name": "agent",
                        "image": MACHINE,
                        "command": [program, "server", "--cluster-name", CLUSTER, "--endpoint", endpoint],
                        "securityContext": { "privileged": true },
                        "volumeMounts": mounts,
                        "readinessProbe": probe("/readyz"),
                        "livenessProbe": probe("/healthz"),
                    }],
                },
            },
        },
    })
}
