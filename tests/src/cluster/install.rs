//! What is installed into a new cluster.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{api::Api, command, layout::Layout};
use crate::wait::poll;

/// The table of associations, and the policy that stands for the webhook.
const EKS: &str = include_str!("manifests/eks.yaml");
/// How long a DaemonSet may take to have its pod ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether kubelet has announced its node, and the node takes pods.
pub(super) fn node_is_ready(api: &Api) -> bool {
    let Ok(node) = api.get("/api/v1/nodes/node") else {
        return false;
    };
    let conditions = node["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| {
        (condition["type"].as_str(), condition["status"].as_str()) == (Some("Ready"), Some("True"))
    })
}

/// Installs what stands for EKS.
pub(super) fn eks(layout: &Layout) -> Result<()> {
    apply(layout, EKS)
}

/// Applies manifests as users do.
///
/// # Errors
///
/// kubectl's complaint.
pub(super) fn apply(layout: &Layout, manifests: &str) -> Result<()> {
    let mut kubectl = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(layout.kubeconfig("admin"))
        .args(["apply", "--filename", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start kubectl")?;
    let mut stdin = kubectl.stdin.take().context("kubectl's input")?;
    stdin.write_all(manifests.as_bytes())?;
    drop(stdin);
    let output = kubectl.wait_with_output()?;
    command::checked("kubectl apply", &output).map(drop)
}

/// Waits until a DaemonSet has all of its pods as they should be, and ready.
pub(super) fn wait_daemon_set(api: &Api, namespace: &str, name: &str) -> Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}");
    let mut last = Value::Null;
    let ready = poll(PATIENCE, || {
        last = api.get(&path).ok()?;
        is_rolled_out(&last).then_some(())
    });
    ensure!(
        ready.is_some(),
        "gave up after {PATIENCE:?} waiting for the DaemonSet {name}: {}\n{}",
        last["status"],
        events(api, namespace)
    );
    Ok(())
}

/// What has happened in a namespace, one line an event.
fn events(api: &Api, namespace: &str) -> String {
    let list = api.get(&format!("/api/v1/namespaces/{namespace}/events"));
    let list = list.unwrap_or_default();
    let events = list["items"].as_array();
    let lines = events.into_iter().flatten().map(|event| {
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let (object, message) = (&event["involvedObject"]["name"], &event["message"]);
        format!("{}: {}", text(object), text(message))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a DaemonSet has all of its pods as they should be, and ready.
pub(super) fn is_rolled_out(daemon_set: &Value) -> bool {
    let status = &daemon_set["status"];
    let number = |name: &str| status[name].as_u64().unwrap_or_default();
    let wanted = number("desiredNumberScheduled");
    status["observedGeneration"] == daemon_set["metadata"]["generation"]
        && wanted > 0
        && number("updatedNumberScheduled") == wanted
        && number("numberReady") == wanted
        && number("numberUnavailable") == 0
}
