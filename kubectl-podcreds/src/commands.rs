//! The commands that findings name. They are for a shell, so what is put into them is quoted.

use std::borrow::Cow;

use podcreds_types::ServiceAccount;
use serde_json::Value;

use crate::snapshot::{Cluster, Details, role_name};

/// A word for a shell.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => Cow::Borrowed(word),
        false => Cow::Owned(format!("'{}'", word.replace('\'', r"'\''"))),
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

/// Makes an association, with another one's role.
pub(crate) fn create_association(
    cluster: &Cluster,
    account: &ServiceAccount,
    like: Option<&Details>,
) -> String {
    let role = like.map_or("ROLE_ARN", |details| details.role.as_str());
    let target = like.and_then(|details| details.target_role.as_deref());
    let target = target.map(|target| format!(" --target-role-arn {}", quoted(target)));
    format!(
        "aws eks create-pod-identity-association {} --namespace {} --service-account {} \
         --role-arn {}{}",
        place(cluster),
        quoted(&account.namespace),
        quoted(&account.name),
        quoted(role),
        target.unwrap_or_default()
    )
}

/// Gives an association another role.
pub(crate) fn update_association(cluster: &Cluster, id: &str) -> String {
    format!(
        "aws eks update-pod-identity-association {} --association-id {} --role-arn ROLE_ARN",
        place(cluster),
        quoted(id)
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
    }
}
