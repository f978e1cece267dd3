//! `kubectl podcreds doctor`: why pods do not have the role that they should have.

use crate::{
    checks,
    collect::{Depth, World},
    commands::quoted,
    finding::{Finding, Report},
    snapshot::{Missing, Snapshot},
};

/// Looks at the whole cluster, or at one namespace of it.
///
/// # Errors
///
/// When nothing could be looked at.
pub(crate) async fn cluster(world: &World) -> Result<Report, Missing> {
    let snapshot = world.cluster(Depth::Roles).await;
    judge(&snapshot)
}

fn judge(snapshot: &Snapshot) -> Result<Report, Missing> {
    if let (Err(missing), Err(_)) = (&snapshot.pods, &snapshot.associations) {
        return Err(missing.clone());
    }
    let subject = format!("cluster {}", snapshot.cluster.name);
    Ok(Report::new(&subject, checks::cluster(snapshot)))
}

/// Looks at one pod.
///
/// # Errors
///
/// When nobody says whether there is such a pod.
pub(crate) async fn pod(world: &World, name: &str) -> Result<Report, Missing> {
    let (namespace, name) = match name.split_once('/') {
        Some(parts) => parts,
        None => (world.namespace.as_str(), name),
    };
    let subject = format!("pod {namespace}/{name}");
    let Some(pod) = world.kubernetes.pod(namespace, name).await? else {
        let none = Finding::fail(
            "pod",
            format!("there is no pod {namespace}/{name}"),
            format!("kubectl -n {} get pods", quoted(namespace)),
        );
        return Ok(Report::new(&subject, vec![none.of(&subject)]));
    };
    let snapshot = world.around(&pod).await;
    Ok(Report::new(&subject, checks::pod(&snapshot, &pod)))
}
