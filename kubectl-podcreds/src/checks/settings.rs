//! What in the pod goes before the agent.

use podcreds_types::sdk::{
    EXCEPTIONS, NO_PROXY, PROXIES, URI, WEB_IDENTITY, WINNERS, excepts_agent,
};

use super::Scene;
use crate::{commands, finding::Finding, snapshot::Container, variables::ROLE_ARN};

pub(super) const NAME: &str = "settings";
pub(super) const IRSA: &str = "irsa";
pub(super) const PROXY: &str = "proxy";

/// Variables that make SDKs look elsewhere first.
pub(super) fn winners(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(pod) = scene.pod.filter(|_| scene.association().is_some()) else {
        return Vec::new();
    };
    let found = pod.containers.iter().find_map(|container| {
        let mut winners = WINNERS.iter();
        let winner = winners.find(|(variable, _)| container.env.contains_key(*variable))?;
        Some((container, winner))
    });
    if let Some((container, (variable, what))) = found {
        let seen = format!(
            "the container {} has {variable} ({what}), which SDKs use before the agent",
            container.name
        );
        let remedy = match *variable == WEB_IDENTITY {
            true => commands::restart(pod),
            false => commands::unset(pod, variable),
        };
        return vec![Finding::fail(NAME, seen, remedy)];
    }
    let alone = |container: &&Container| container.env.contains_key(ROLE_ARN);
    if let Some(container) = pod.containers.iter().find(alone) {
        let seen = format!(
            "the container {} has {ROLE_ARN} and no token for it, which has no effect",
            container.name
        );
        let remedy = commands::unset(pod, ROLE_ARN);
        return vec![Finding::warn(NAME, seen, remedy)];
    }
    let hidden = pod
        .containers
        .iter()
        .any(|container| container.has_env_from);
    vec![Finding::pass(
        NAME,
        match hidden {
            true => "nothing goes before the agent (what envFrom brings is not looked at)",
            false => "nothing goes before the agent",
        },
    )]
}

/// The annotation of IAM roles for service accounts beside an association.
pub(super) fn irsa(scene: &Scene<'_>) -> Vec<Finding> {
    let (Ok(accounts), Some(_)) = (&scene.snapshot.accounts, scene.association()) else {
        return Vec::new();
    };
    let account = &scene.account;
    let role = accounts.get(account).and_then(|it| it.irsa_role.as_deref());
    let Some(role) = role else {
        return Vec::new();
    };
    vec![Finding::warn(
        IRSA,
        format!(
            "{account} also has {role} by IAM roles for service accounts: pods that are older than \
             the association use that"
        ),
        format!(
            "kubectl -n {} annotate serviceaccount {} eks.amazonaws.com/role-arn-",
            commands::quoted(&account.namespace),
            commands::quoted(&account.name)
        ),
    )]
}

/// A proxy that would get the pod's token.
pub(super) fn proxy(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(pod) = scene.pod else {
        return Vec::new();
    };
    let told = pod
        .containers
        .iter()
        .filter(|container| container.env.contains_key(URI));
    let found = told.into_iter().find_map(|container| {
        let mut proxies = PROXIES.iter();
        let proxy = proxies.find(|proxy| container.env.contains_key(**proxy))?;
        (!is_excepted(container)).then_some((container, proxy))
    });
    let Some((container, proxy)) = found else {
        return Vec::new();
    };
    vec![Finding::warn(
        PROXY,
        format!(
            "the container {} has {proxy}, and NO_PROXY does not except the agent's address for \
             every SDK: some send the pod's token to the proxy",
            container.name
        ),
        format!("add {EXCEPTIONS} to NO_PROXY: {}", commands::edit(pod)),
    )]
}

fn is_excepted(container: &Container) -> bool {
    let uri = container.env.get(URI).and_then(Option::as_deref);
    let uri = uri.unwrap_or_default();
    let mut values = NO_PROXY.iter().filter_map(|name| container.env.get(*name));
    values.any(|value| match value {
        Some(value) => excepts_agent(value, uri),
        // From elsewhere, which is not looked at.
        None => true,
    })
}
