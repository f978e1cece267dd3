//! The pod's service account, and whether it has an association.

use podcreds_types::ServiceAccount;

use super::Scene;
use crate::{commands, finding::Finding};

pub(super) const EXISTS: &str = "account";
pub(super) const ASSOCIATION: &str = "association";

/// Whether there is such a service account.
pub(super) fn exists(scene: &Scene<'_>) -> Vec<Finding> {
    let Ok(accounts) = &scene.snapshot.accounts else {
        return Vec::new();
    };
    let account = &scene.account;
    if accounts.contains_key(account) {
        return vec![Finding::pass(EXISTS, format!("{account} is there"))];
    }
    let create = commands::create_account(account);
    if scene.pod.is_some() {
        let seen = format!("the service account {account} does not exist any more");
        return vec![Finding::fail(EXISTS, seen, create)];
    }
    let close = accounts.keys().find(|other| is_close(account, other));
    let (seen, remedy) = match (close, scene.association()) {
        (Some(other), Some(_)) => {
            let details = scene.details();
            let create = commands::create_association(&scene.snapshot.cluster, other, details);
            let policy = match details.is_some_and(|details| details.has_policy) {
                true => ", with the policy of the other",
                false => "",
            };
            (
                format!("the service account {account} does not exist; there is {other}"),
                format!("{create}{policy}"),
            )
        }
        _ => (
            format!("the service account {account} does not exist"),
            format!("{create}, or take the association away"),
        ),
    };
    vec![Finding::fail(EXISTS, seen, remedy)]
}

/// Whether the pod's service account has an association, or which one was meant.
pub(super) fn association(scene: &Scene<'_>) -> Vec<Finding> {
    let (Ok(associations), Some(pod)) = (&scene.snapshot.associations, scene.pod) else {
        return Vec::new();
    };
    let account = &scene.account;
    if let Some(association) = associations.get(account) {
        let role = association.known().map(|it| it.role.as_str());
        let of = format!("{account} has {}", association.id);
        let seen = role.map_or(of.clone(), |role| format!("{of} with {role}"));
        return vec![Finding::pass(ASSOCIATION, seen)];
    }
    let cluster = &scene.snapshot.cluster;
    if let Some(role) = irsa_role(scene) {
        let seen = format!(
            "no association for {account}: it has {role} by IAM roles for service accounts"
        );
        let remedy = "kubectl podcreds migrate irsa, if it is to use Pod Identity";
        return vec![Finding::warn(ASSOCIATION, seen, remedy)];
    }
    let of_namespace: Vec<_> = associations
        .keys()
        .filter(|other| other.namespace == account.namespace)
        .collect();
    let close = of_namespace.iter().find(|other| is_close(account, other));
    // Somebody who has named no account may have meant the only one that has a role.
    let only = match of_namespace.as_slice() {
        [only] if account.name == "default" => Some(only),
        _ => None,
    };
    if let Some(other) = close.or(only) {
        let seen = format!("no association for {account}; there is one for {other}");
        return vec![Finding::fail(
            ASSOCIATION,
            seen,
            commands::use_account(pod, other),
        )];
    }
    let elsewhere = associations.keys().find(|other| other.name == account.name);
    let seen = match elsewhere {
        Some(other) => format!("no association for {account}; there is one for {other}"),
        None => format!(
            "no association for {account} in the cluster {}",
            cluster.name
        ),
    };
    let create = commands::create_association(cluster, account, None);
    let remedy = format!("{create}, then {}", commands::restart(pod));
    vec![Finding::fail(ASSOCIATION, seen, remedy)]
}

fn irsa_role<'a>(scene: &'a Scene<'_>) -> Option<&'a str> {
    let accounts = scene.snapshot.accounts.as_ref().ok()?;
    accounts.get(&scene.account)?.irsa_role.as_deref()
}

/// Whether one name was likely written for another: it differs in case, in a sign or two, or by a
/// beginning or an end.
fn is_close(a: &ServiceAccount, b: &ServiceAccount) -> bool {
    if a.namespace != b.namespace || a.name == b.name {
        return false;
    }
    let (a, b) = (a.name.to_lowercase(), b.name.to_lowercase());
    let (short, long) = if a.len() < b.len() {
        (&a, &b)
    } else {
        (&b, &a)
    };
    let is_part = short.len() >= 3
        && (long.starts_with(&format!("{short}-")) || long.ends_with(&format!("-{short}")));
    a == b || is_part || distance(&a, &b) <= 2.min(short.len() / 3)
}

/// How many characters must be put in, taken out or replaced to make one name of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((j, y), pair) in b.iter().enumerate().zip(row.windows(2)) {
            let [replaced, removed] = pair else { continue };
            let added = next.get(j).copied().unwrap_or_default();
            let cost = usize::from(x != *y);
            next.push((replaced + cost).min(removed + 1).min(added + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_were_likely_meant_are_close() {
        let close = |a: &str, b: &str| is_close(&a.parse().unwrap(), &b.parse().unwrap());
        for (a, b) in [
            ("shop/reader", "shop/raeder"),
            ("shop/reader", "shop/readers"),
            ("shop/reader", "shop/Reader"),
            ("shop/reader", "shop/reader-sa"),
            ("shop/reader", "shop/shop-reader"),
        ] {
            assert!(close(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("shop/reader", "pay/reader"),
            ("shop/reader", "shop/reader"),
            ("shop/reader", "shop/writer"),
            ("shop/a", "shop/b"),
        ] {
            assert!(!close(a, b), "{a} {b}");
        }
    }
}
