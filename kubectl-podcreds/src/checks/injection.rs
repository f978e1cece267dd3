//! Whether EKS's webhook has told the pod where to ask.

use podcreds_types::sdk::{URI, URIS};

use super::Scene;
use crate::{
    commands,
    finding::Finding,
    snapshot::{Container, Pod},
};

pub(super) const NAME: &str = "injection";
/// The annotation by which a pod's author keeps containers out.
const SKIP: &str = "eks.amazonaws.com/skip-containers";
/// So many seconds after an association was made, EKS may not know of it everywhere.
const SETTLING: i64 = 30;

pub(super) fn injected(scene: &Scene<'_>) -> Vec<Finding> {
    let (Some(pod), Some(_)) = (scene.pod, scene.association()) else {
        return Vec::new();
    };
    let is_told = |container: &&Container| container.env.contains_key(URI);
    let (told, others): (Vec<&Container>, Vec<&Container>) =
        pod.containers.iter().partition(is_told);
    if told.is_empty() {
        return vec![missed(scene, pod)];
    }
    let elsewhere = told.iter().find(|container| {
        let uri = container.env.get(URI).and_then(Option::as_deref);
        !uri.is_some_and(|uri| URIS.contains(&uri))
    });
    if let Some(container) = elsewhere {
        return vec![Finding::fail(
            NAME,
            format!("the container {} is told to ask elsewhere", container.name),
            format!(
                "take {URI} out of what makes the pod, so that EKS sets it: {}",
                commands::edit(pod)
            ),
        )];
    }
    // A sidecar that another webhook adds later may be without it, and rarely needs it.
    let names: Vec<_> = others.iter().map(|it| it.name.as_str()).collect();
    vec![match names.is_empty() {
        true => Finding::pass(NAME, "its containers are told where to ask"),
        false => Finding::pass(
            NAME,
            format!("told where to ask are all but {}", names.join(", ")),
        ),
    }]
}

/// Why none of the pod's containers was told.
fn missed(scene: &Scene<'_>, pod: &Pod) -> Finding {
    if pod.annotations.contains_key(SKIP) {
        let seen = format!("{SKIP} keeps its containers out");
        let remedy = format!("take the annotation away: {}", commands::edit(pod));
        return Finding::fail(NAME, seen, remedy);
    }
    let since = scene.details().and_then(|details| details.created);
    let seen = match since.map(|since| pod.created - since) {
        Some(after) if after < 0 => {
            "the pod is older than its association, so nobody has told it where to ask".to_owned()
        }
        Some(after) if after < SETTLING => format!(
            "the pod was made {after} s after its association, before EKS knew of it everywhere"
        ),
        _ => {
            "EKS's webhook has missed the pod: it runs with its node's role, if with any".to_owned()
        }
    };
    Finding::fail(NAME, seen, commands::restart(pod))
}
