//! The role of an association, and what its trust policy allows.

use serde_json::Value;

use super::Scene;
use crate::{
    commands,
    finding::Finding,
    policy::{self, ASSUME, Principal, SERVICE, TAG, Verdict, judge},
    snapshot::{Details, Role, account_of},
};

pub(super) const NAME: &str = "role";
pub(super) const TRUST: &str = "trust";
pub(super) const TARGET: &str = "target-role";
pub(super) const BOUNDARY: &str = "boundary";

/// The role, its trust policy, its target and what limits it.
pub(super) fn role(scene: &Scene<'_>) -> Vec<Finding> {
    let Some(details) = scene.details() else {
        return Vec::new();
    };
    let cluster = &scene.snapshot.cluster;
    let update = || {
        let id = scene.association().map_or("ID", |it| it.id.as_str());
        commands::update_association(cluster, id)
    };
    let arn = details.role.as_str();
    let (owner, own) = (account_of(arn), cluster.account());
    if let (Some(owner), Some(own)) = (owner, own)
        && owner != own
    {
        let seen = format!("{arn} is of another account than the cluster's, {own}");
        let remedy = format!("{}, and name this one with --target-role-arn", update());
        return vec![Finding::fail(NAME, seen, remedy)];
    }
    let role = match scene.snapshot.roles.get(arn) {
        Some(Ok(Some(role))) => role,
        Some(Ok(None)) => {
            let seen = format!("there is no role {arn} any more");
            return vec![Finding::fail(NAME, seen, update())];
        }
        Some(Err(_)) | None => return Vec::new(),
    };
    let mut findings = vec![Finding::pass(NAME, format!("{arn} is there"))];
    findings.push(trust(scene, details, role));
    findings.extend(target(scene, details));
    if let Some(boundary) = &role.boundary {
        let seen = format!("{boundary} limits what the role may do");
        findings.push(Finding::pass(BOUNDARY, seen));
    }
    findings
}

/// Whether the role lets EKS assume it for this pod.
fn trust(scene: &Scene<'_>, details: &Details, role: &Role) -> Finding {
    let keys = keys(scene, details);
    let say = |action| judge(&role.trust, Principal::Pods, action, &keys);
    let verdicts = [(ASSUME, say(ASSUME)), (TAG, say(TAG))];
    let lacks: Vec<_> = verdicts
        .iter()
        .filter(|(_, verdict)| *verdict == Verdict::NotAllowed)
        .map(|(action, _)| *action)
        .collect();
    let edit = || commands::edit_trust(&details.role);
    if let Some((action, _)) = verdicts.iter().find(|(_, it)| *it == Verdict::Denied) {
        let seen = format!("the role's trust policy denies {action} to {SERVICE}");
        return Finding::fail(TRUST, seen, edit());
    }
    if !lacks.is_empty() {
        let seen = format!(
            "the role's trust policy does not allow {} to {SERVICE}",
            lacks.join(" and ")
        );
        return Finding::fail(TRUST, seen, mend(&details.role, &role.trust, &lacks));
    }
    for (action, verdict) in &verdicts {
        match verdict {
            Verdict::Unmet(condition) => {
                let seen = format!("the role allows {action} on a condition only: {condition}");
                return Finding::fail(TRUST, seen, edit());
            }
            Verdict::Unsure(condition) => {
                let seen = format!(
                    "the role allows {action} on a condition that cannot be judged here: {condition}"
                );
                return Finding::warn(TRUST, seen, "see whether it holds for pods");
            }
            _ => {}
        }
    }
    Finding::pass(TRUST, format!("it lets {SERVICE} assume it"))
}

/// The command that lets EKS do what it may not yet.
pub(crate) fn mend(role: &str, trust: &Value, lacks: &[&str]) -> String {
    commands::set_trust(role, &policy::extended(trust, lacks))
}

/// What is known of EKS's request.
fn keys(scene: &Scene<'_>, details: &Details) -> policy::Keys {
    let cluster = &scene.snapshot.cluster;
    policy::pod_keys(cluster, scene.pod, &scene.account, details.session_tags)
}

/// Whether the second role lets the first one assume it.
fn target(scene: &Scene<'_>, details: &Details) -> Option<Finding> {
    let target = details.target_role.as_deref()?;
    let role = match scene.snapshot.roles.get(target) {
        Some(Ok(Some(role))) => role,
        Some(Ok(None)) if account_of(target) == account_of(&details.role) => {
            return Some(Finding::fail(
                TARGET,
                format!("there is no role {target} any more"),
                "name another one: aws eks update-pod-identity-association --target-role-arn",
            ));
        }
        _ => return None,
    };
    let mut keys = keys(scene, details);
    // These are EKS's own, and not those of the role that assumes another.
    keys.known.retain(|key, _| !key.starts_with("aws:source"));
    if let Some(id) = &details.external_id {
        keys.known.insert("sts:externalid".to_owned(), id.clone());
    }
    let principal = Principal::Role(&details.role);
    let actions: &[&str] = match details.session_tags {
        true => &[ASSUME, TAG],
        false => &[ASSUME],
    };
    let edit = || commands::edit_trust(target);
    for action in actions {
        let why = match judge(&role.trust, principal, action, &keys) {
            Verdict::Allowed => continue,
            Verdict::Unsure(condition) => {
                return Some(Finding::warn(
                    TARGET,
                    format!("{target} allows {action} on a condition: {condition}"),
                    "see whether it holds",
                ));
            }
            Verdict::Denied => "denies it".to_owned(),
            Verdict::NotAllowed => "does not allow it".to_owned(),
            Verdict::Unmet(condition) => format!("allows it on a condition only: {condition}"),
        };
        let seen = format!(
            "{action} on {target} by {}: its trust policy {why}",
            details.role
        );
        return Some(Finding::fail(TARGET, seen, edit()));
    }
    Some(Finding::pass(TARGET, format!("{target} trusts the role")))
}
