//! The token that the pod shows to the agent.

use podcreds_types::sdk::{AUDIENCE, TOKEN_FILE, URI};

use super::Scene;
use crate::{
    commands,
    finding::Finding,
    snapshot::{Container, Pod, TokenVolume},
};

pub(super) const NAME: &str = "token";

/// Whether each container that was told where to ask has a token for that.
pub(super) fn token(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(pod) = scene.pod else {
        return Vec::new();
    };
    let mut told = pod
        .containers
        .iter()
        .filter(|container| container.env.contains_key(URI));
    let Some(first) = told.clone().next() else {
        return Vec::new();
    };
    let wrong = told.find_map(|container| wrong(pod, container));
    vec![match wrong {
        Some(seen) => Finding::fail(
            NAME,
            seen,
            format!(
                "take {URI}, {TOKEN_FILE} and the token's volume out of what makes the pod, so \
                 that EKS adds them; then {}",
                commands::restart(pod)
            ),
        ),
        None => Finding::pass(NAME, format!("{} has a token for {AUDIENCE}", first.name)),
    }]
}

fn wrong(pod: &Pod, container: &Container) -> Option<String> {
    let name = &container.name;
    let Some(file) = container.env.get(TOKEN_FILE) else {
        return Some(format!(
            "the container {name} has {URI}, and not {TOKEN_FILE}"
        ));
    };
    // From a ConfigMap, which is not looked at.
    let file = file.as_deref()?;
    let Some(volume) = behind(pod, container, file) else {
        return Some(format!(
            "{TOKEN_FILE} of the container {name} is not in a volume with a token"
        ));
    };
    match volume.audience.as_deref() {
        Some(AUDIENCE) => None,
        Some(other) => Some(format!(
            "the token of the container {name} is for {other}, and not for {AUDIENCE}"
        )),
        None => Some(format!(
            "the token of the container {name} is for the API server, and not for {AUDIENCE}"
        )),
    }
}

/// The volume's token that is at this path in the container.
fn behind<'a>(pod: &'a Pod, container: &Container, file: &str) -> Option<&'a TokenVolume> {
    pod.tokens.iter().find(|token| {
        let mut mounts = container.mounts.iter();
        mounts.any(|(path, volume)| {
            let inside = file.strip_prefix(path.trim_end_matches('/'));
            let inside = inside.and_then(|rest| rest.strip_prefix('/'));
            *volume == token.volume && inside == Some(token.path.as_str())
        })
    })
}
