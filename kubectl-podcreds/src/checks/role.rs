//! The role of an association, and what its trust policy allows.

use serde_json::Value;

use super::Scene;
use crate::{
    commands,
    finding::Finding,
    policy::{self, ASSUME, Principal, SERVICE, TAG, Verdict, judge},
    snapshot::{Details, Role, account_of, role_name},
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
    let update = || update(scene, "--role-arn");
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

/// Gives the association another role.
fn update(scene: &Scene<'_>, flag: &str) -> String {
    let id = scene.association().map_or("ID", |it| it.id.as_str());
    commands::update_association(&scene.snapshot.cluster, id, flag)
}

/// Whether the role lets EKS assume it for this pod.
fn trust(scene: &Scene<'_>, details: &Details, role: &Role) -> Finding {
    let keys = keys(scene, details);
    let verdicts = match verdicts(&details.role, role, Principal::Pods, &[ASSUME, TAG], &keys) {
        Ok(verdicts) => verdicts,
        Err(seen) => return unreadable(TRUST, &details.role, seen),
    };
    let edit = || commands::edit_trust(&details.role);
    match gravest(&verdicts) {
        Some((action, Verdict::Denied)) => {
            let seen = format!("the role's trust policy denies {action} to {SERVICE}");
            Finding::fail(TRUST, seen, edit())
        }
        Some((_, Verdict::NotAllowed)) => {
            let lacks = verdicts.iter().filter(|(_, it)| *it == Verdict::NotAllowed);
            let lacks: Vec<_> = lacks.map(|(action, _)| *action).collect();
            let seen = format!(
                "the role's trust policy does not allow {} to {SERVICE}",
                lacks.join(" and ")
            );
            Finding::fail(TRUST, seen, mend(&details.role, &role.trust, &lacks))
        }
        Some((action, Verdict::Unmet(condition))) => {
            let seen = format!("the role allows {action} on a condition only: {condition}");
            Finding::fail(TRUST, seen, edit())
        }
        Some((action, Verdict::Unsure(condition))) => {
            let seen = format!(
                "the role allows {action} on a condition that cannot be judged here: {condition}"
            );
            Finding::warn(TRUST, seen, "see whether it holds for pods")
        }
        Some((_, Verdict::Allowed)) | None => {
            Finding::pass(TRUST, format!("it lets {SERVICE} assume it"))
        }
    }
}

/// What a role's trust policy says of each action.
///
/// # Errors
///
/// What was seen instead of a policy.
fn verdicts<'a>(
    arn: &str,
    role: &Role,
    principal: Principal<'_>,
    actions: &[&'a str],
    keys: &policy::Keys,
) -> Result<Vec<(&'a str, Verdict)>, String> {
    if !role.trust.is_object() {
        return Err(format!("the trust policy of {arn} cannot be read"));
    }
    let judged = |action: &&'a str| (*action, judge(&role.trust, principal, action, keys));
    Ok(actions.iter().map(judged).collect())
}

/// The first of the gravest verdicts, with its action.
fn gravest<'a>(verdicts: &'a [(&'a str, Verdict)]) -> Option<&'a (&'a str, Verdict)> {
    let reversed = verdicts.iter().rev();
    reversed.max_by_key(|(_, verdict)| verdict.gravity())
}

/// A policy that cannot be read may well allow all that is needed: none is put in its place.
fn unreadable(check: &'static str, arn: &str, seen: String) -> Finding {
    let name = commands::quoted(role_name(arn).unwrap_or(arn)).into_owned();
    let remedy = format!(
        "see what it says: aws iam get-role --role-name {name} \
         --query Role.AssumeRolePolicyDocument"
    );
    Finding::warn(check, seen, remedy)
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
                update(scene, "--target-role-arn"),
            ));
        }
        _ => return None,
    };
    let principal = Principal::Role(&details.role);
    let actions: &[&str] = match details.session_tags {
        true => &[ASSUME, TAG],
        false => &[ASSUME],
    };
    let keys = target_keys(scene, details);
    let verdicts = match verdicts(target, role, principal, actions, &keys) {
        Ok(verdicts) => verdicts,
        Err(seen) => return Some(unreadable(TARGET, target, seen)),
    };
    let fail = |action: &str, why: &str| {
        let seen = format!(
            "{action} on {target} by {}: its trust policy {why}",
            details.role
        );
        Finding::fail(TARGET, seen, commands::edit_trust(target))
    };
    Some(match gravest(&verdicts) {
        Some((action, Verdict::Denied)) => fail(action, "denies it"),
        Some((action, Verdict::NotAllowed)) => fail(action, "does not allow it"),
        Some((action, Verdict::Unmet(condition))) => fail(
            action,
            &format!("allows it on a condition only: {condition}"),
        ),
        Some((action, Verdict::Unsure(condition))) => Finding::warn(
            TARGET,
            format!("{target} allows {action} on a condition: {condition}"),
            "see whether it holds",
        ),
        Some((_, Verdict::Allowed)) | None => {
            Finding::pass(TARGET, format!("{target} trusts the role"))
        }
    })
}

/// What is known of the request by which the first role assumes the second.
fn target_keys(scene: &Scene<'_>, details: &Details) -> policy::Keys {
    let mut keys = keys(scene, details);
    // These are EKS's own, and not those of the role that assumes another.
    keys.known.retain(|key, _| !key.starts_with("aws:source"));
    let owner = account_of(&details.role).map(str::to_owned);
    let values = [
        ("aws:principalarn", Some(details.role.clone())),
        ("aws:principalaccount", owner),
        ("sts:externalid", details.external_id.clone()),
    ];
    for (key, value) in values {
        if let Some(value) = value {
            keys.known.insert(key.to_owned(), value);
        }
    }
    keys
}
